"""Job: all that one training needs, built; and what a training knows of itself while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dlx.data.loader import not_finite

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor
    from torch.optim import Optimizer

    from dlx.data.dataset import Dataset
    from dlx.data.loader import Loader
    from dlx.optim.schedules import Schedule
    from dlx.regularization.regularizer import Regularizer
    from dlx.tasks.system import Objective, System
    from dlx.tracking.recorder import Recorder
    from dlx.training.world import World


Watch = Callable[[list[dict[str, float]]], bool]


class Diverged(Exception):
    """A loss or a gradient is not finite any more. step: of which it is so (from 1), where one was taken."""

    def __init__(self, message: str, step: int = 0) -> None:
        super().__init__(message)
        self.step = step

    def explained(self, train: Loader) -> Diverged:
        """The same, with what was not finite in the step's own data, or else what often helps."""
        bad = not_finite(train, self.step - 1) if self.step else None
        why = f"the data are not finite: {bad}" if bad else "a smaller optim.lr or trainer.clip_norm=1 often helps"
        return Diverged(f"{self}; {why}", self.step)


@dataclass
class Data:
    """A dataset and the loaders of its splits. probe: a fixed part of train, as large as val, for the gap; bank: a
    fixed part of train for evaluations that look at it; whole: all of train, by one process, for what is fitted at
    once."""

    dataset: Dataset
    train: Loader
    val: Loader
    test: Loader
    probe: Loader | None = None
    bank: Loader | None = None
    whole: Loader | None = None


@dataclass
class Job:
    """What `Trainer.fit` trains.

    clip_norms: of players that have their own.
    resume: a checkpoint to go on from, to the same bits; start: weights to begin with, in a run of their own.
    watch: told all validations so far after each; True says that the run is not worth its end (a search prunes it).
    """

    system: System
    data: Data
    make_optimizers: Callable[[System, list[Objective]], list[Optimizer]]
    schedule: Schedule
    regularizers: dict[str, Regularizer]
    recorder: Recorder
    world: World
    seed: int
    checkpoints: Path
    clip_norms: dict[str, float]
    resume: Path | None = None
    start: dict[str, Tensor] | None = None
    watch: Watch | None = None


@dataclass
class State:
    """Where a training is. All of it goes into a checkpoint."""

    step: int = 0
    stage: int = 0  # of the steps done
    stages: list[int] = field(default_factory=lambda: [0])  # first steps
    stopped_of: int = 0  # the steps that were asked for when it ended before them (early stopping)
    best_value: float | None = None
    best_step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # one row per validation of the stage
    shown_step: int = 0  # when pictures were last made
    pending: dict[str, list[Tensor]] = field(default_factory=dict)  # scalars since the last row
    seconds: float = 0.0  # trained, over all sessions


@dataclass(frozen=True)
class Outcome:
    """How a training ended. monitored: what "best" meant, such as ("val/accuracy", "max"). signal: 0 unless one
    interrupted it. pruned: the job's watch ended it."""

    state: State
    monitored: tuple[str, str] | None = None
    signal: int = 0
    pruned: bool = False
