"""What trained members answer on samples, and what that is worth. Shapes: N samples, M members, K outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlx.config.errors import UserError
from dlx.tasks.classification import Classification
from dlx.tasks.regression import Regression
from dlx.tasks.supervised import Supervised
from dlx.training.trained import open_run

if TYPE_CHECKING:
    from dlx.data.loader import Loader
    from dlx.runs.folder import RunFolder
    from dlx.tasks.system import System


Target = Classification | Regression


@dataclass(frozen=True)
class Samples:
    """Answers to a split's samples, on the CPU.

    index: positions in the source [N]; inputs: as the networks see them; truth: labels int64 [N] or targets float32
    [N, K]; output: float32 [N, K], logits of a classifier; of several members [M, N, K].
    """

    target: Target
    index: Tensor
    inputs: Tensor
    truth: Tensor
    output: Tensor

    @property
    def classes(self) -> bool:
        return isinstance(self.target, Classification)

    def judge(self, output: Tensor, truth: Tensor) -> dict[str, float]:
        """What outputs [N, K] are worth: figures as a run has them (loss is nll or mse), and `error`, which is
        1 - accuracy or mse."""
        found = self.target.metrics(self.target.statistics(output, {self.target.target_name: truth}))
        return {**found, "error": 1 - found["accuracy"] if self.classes else found["mse"]}


def answers(run: RunFolder, split: str, *, trust: tuple[str, ...], of: RunFolder | None = None) -> Samples:
    """A run's best weights on `train`, `val` or `test` of its data, or of another run's."""
    system, loader = open_run(run, split, trust=trust)
    if of is not None:
        loader = open_run(of, split, trust=trust)[1]
    return _collect(system, loader, system)


def answers_of_members(ensemble: RunFolder, split: str, *, trust: tuple[str, ...]) -> Samples:
    """The members of an ensemble's run, each on its own: output is [M, N, K]."""
    system, loader = open_run(ensemble, split, trust=trust)
    members: Any = system.members
    return _collect(system, loader, lambda x: torch.stack([member(x) for member in members], dim=1))


@torch.no_grad()
def _collect(system: System, loader: Loader, forward: Callable[[Tensor], Tensor]) -> Samples:
    if not isinstance(system, Supervised):
        raise UserError(f"method: it is for classifiers and regressors; {type(system).__name__} is neither")
    x, y = system.input_name, system.target_name
    parts = [(batch["index"], batch[x], batch[y], forward(batch[x]).float()) for batch in loader.eval_batches()]
    index, inputs, truth, output = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
    kind = Classification if system.is_classifier else Regression
    target = kind(system.spec, x, y, "cross_entropy" if system.is_classifier else "mse")
    return Samples(target, index, inputs, truth, output.movedim(1, 0) if output.dim() == 3 else output)
