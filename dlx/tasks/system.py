"""System: what dlx trains. A network, the objectives of its players, how it is evaluated and what it shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import Tensor, nn

from dlx.tasks.analyses import probe
from dlx.tasks.answer import Answer as Answer
from dlx.tasks.answer import Report as Report
from dlx.tasks.judge import judge
from dlx.tasks.spec import Image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch

    from dlx.tasks.spec import Spec

Batch = dict[str, Any]
"""Tensors under the names of the system's spec, always with `index`. It lives for one step: an objective may leave
detached tensors in it for the next one, so that a generator's fakes are made once."""

Statistics = dict[str, Any]
"""Sums of an evaluation. Tensors of several batches (and processes) are added, lists are joined."""


@dataclass(frozen=True, eq=False)
class Objective:
    """One player's turn: which parameters take a gradient step, and on which steps.

    `every=5` takes its turn on each fifth step only (a generator against five critic steps).
    """

    name: str
    params: list[nn.Parameter]
    every: int = 1

    @classmethod
    def of(cls, name: str, *modules: nn.Module, every: int = 1) -> Objective:
        """Over the parameters of modules, as far as they train."""
        params = [p for module in modules for p in module.parameters() if p.requires_grad]
        return cls(name, list(dict.fromkeys(params)), every)


class Trunk(Protocol):
    """What an argument is annotated with whose value is a model without its head: a part that is used for its features.

    `model.encoder={name: resnet, depth: 18}` builds it on the inputs alone.
    """

    def features(self, x: Tensor) -> Tensor:
        """Maps [B, C, h, w], tokens [B, N, C] or vectors [B, C]."""

    def embed(self, batch: Batch) -> Tensor:
        """Features [B, C] of each sample."""

    def __call__(self, x: Tensor) -> Tensor: ...


class System(nn.Module):
    """The contract between a model and the one training loop.

    A subclass defines `training_loss`, and of the rest what it has: a hook that it does not define is never called, or
    does nothing. All parameters are made in the constructor (a growing network switches its blocks on); `training_loss`
    keeps nothing on `self` but detached tensors that `state` returns (it is run by DDP, torch.compile and vmap alike).
    The batch that an objective or an evaluation gets has three 0-d tensors beside the spec's entries: `step`, `stage`,
    and `progress`, from 0 to 1 within the stage (1 in an evaluation): for warm-ups, temperatures and fade-ins.
    """

    players: ClassVar[tuple[str, ...]] = ()
    """Names that `optimizer.players.<name>` may set apart: those of its objectives, where there are several."""

    takes: ClassVar[tuple[str, ...]] = ()
    """What its loss makes use of beside its entries: `weight` (float32 [B], multiplies the per-sample losses),
    `soft_label` (a label as float32 [B, K])."""

    whole_batch: ClassVar[bool] = False
    """Whether its loss compares the samples of a batch with each other, so that micro-batches would change it."""

    compiles: ClassVar[bool] = True
    """False if torch.compile cannot follow the loss (double backward)."""

    views: ClassVar[tuple[str, ...]] = ()
    """Names of batch entries that are views of the first, such as ("image", "image_2"): the loop makes them by applying
    the regularizer in the attribute `augmentation` to the image, once for each view."""

    asked: ClassVar[str] = ""
    """The entry that `dlx predict` reads a file as, where the system has several inputs and answers to one."""

    film: ClassVar[bool] = False
    """True if the showcase is also made at validations, to show how it changes."""

    spec: Spec
    """What it reads. The constructor copies what it is given, and may replace an image's mean and std: the loaders
    normalize as this spec says."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuses layers with the name of a method of this class: they would hide it."""
        if isinstance(value, nn.Module | nn.Parameter) and hasattr(System, name):
            raise AttributeError(f"{type(self).__name__}.{name}: a layer cannot have the name of a method of System")
        super().__setattr__(name, value)

    @classmethod
    def defines(cls, hook: str) -> bool:
        """True if the class defines a hook."""
        return getattr(cls, hook) is not getattr(System, hook)

    @property
    def device(self) -> torch.device:
        """The device of the weights, or of the buffers of a closed-form system."""
        return next(chain(self.parameters(), self.buffers())).device

    # Training.

    def objectives(self, stage: int = 0) -> list[Objective]:
        """The players of a stage in the order of their turns; empty for a closed-form system. What it depends on is the
        stage or a plain attribute: it is also called on the meta device."""
        return [Objective("loss", [p for p in self.parameters() if p.requires_grad])]

    def stage_starts(self, total_steps: int) -> list[int]:
        """The first step of each stage, beginning with 0. Optimizers, schedule, `progress`, validation history and
        "best" begin anew with each; early stopping acts in the last. Raises ValueError naming the argument where the
        training is too short for them."""
        return [0]

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (a scalar tensor) and further scalars to log (detached tensors; no `.item()`)."""
        raise NotImplementedError(f"{type(self).__name__} defines no training_loss")

    def counted(self, batch: Batch) -> Tensor | None:
        """How many things the loss of a batch is the mean of, a scalar, where they are not its samples: tokens that are
        no padding. Micro-batches and processes count by it, so that their losses make the mean over the whole batch."""
        return None

    def before_step(self, step: int, data: Any) -> None:
        """Called before each step, under the random scope `before_step`."""

    def after_step(self, step: int) -> None:
        """Called after each step (target networks)."""

    def fit(self, data: Any) -> None:
        """A closed-form stage on the best weights, after gradient training, in eval mode and without gradients.

        `data.train.eval_batches()` is all of the training split, on process 0; its results are buffers of fixed shape,
        which the other processes get. It is validated afterwards.
        """

    def averaged(self) -> list[nn.Parameter]:
        """The parameters that `trainer.ema` averages."""
        return [p for p in self.parameters() if p.requires_grad]

    def state(self) -> dict[str, Any]:
        """What must survive a resume and is no weight: tensors, numbers and strings. Of several processes each saves
        and gets back its own."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores the output of `state`, tensors on the system's device; called before the weights are loaded."""

    # Evaluation.

    @property
    def monitor(self) -> tuple[str, str] | None:
        """What "best" means, such as ("val/accuracy", "max"); None: the last weights are the best."""
        return None

    @property
    def gaps(self) -> Mapping[str, int]:
        """Metrics whose generalization gap is logged as `gap/NAME`, with the sign that makes overfitting positive: 1
        for train - val (accuracy), -1 for val - train (loss). Empty: the training data are not evaluated."""
        return {}

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names in `metrics`, the most important first; empty if they are not known before an evaluation."""
        return ()

    def before_evaluation(self, train: Any, dist: Any) -> None:
        """Called before each evaluation with the training samples, at most 10,000 of them, the same each time: for what
        needs them (a k-NN bank). `dist` gathers over processes."""

    def evaluate(self, batch: Batch) -> Statistics:
        """Sums over one batch in eval mode, without gradients, from which `metrics` makes metrics. A draw comes from
        `dlx.random.normal_rows` or `uniform_rows`, so that no metric depends on the batch size."""
        return {}

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        """Metrics from the joined sums of a whole split, without the split's prefix: {"loss": ..., "accuracy": ...}."""
        return {}

    def remarks(self, metrics: Mapping[str, float]) -> list[str]:
        """Warnings that a person should read after a training, from the metrics of the test split: a collapse."""
        return []

    def report(self, statistics: Statistics) -> Report:
        """What `dlx eval` shows of a split beside the metrics. It evaluates with `report` in each batch, for what is
        worth more work then (lists of the worst mistakes)."""
        return Report()

    def embed(self, batch: Batch) -> Tensor:
        """Features [B, F] of each sample, for probes and neighbours."""
        raise NotImplementedError(f"{type(self).__name__} has no embed")

    @property
    def analyses(self) -> Mapping[str, Callable[..., Report]]:
        """Functions of `dlx eval --analysis NAME` (dlx/tasks/analyses.py, dlx/tasks/judge.py)."""
        found: dict[str, Callable[..., Report]] = {"probe": probe} if self.defines("embed") else {}
        return {**found, "judge": judge} if self.defines("sample") and self.spec.of_kind(Image) else found

    # What a person asks a trained system for.

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Its answers to a batch of inputs, tensors [B, ...] by name."""
        raise NotImplementedError(f"{type(self).__name__} has no predict")

    def answer(self, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        """The predictions for people and scripts, one for each sample."""
        raise NotImplementedError(f"{type(self).__name__} has no answer")

    def results_file(self, predictions: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
        """Answers in the form of the field's own programs: the name and the text of a file. predictions: of each image
        its `file` and the JSON of its answer."""
        raise NotImplementedError(f"{type(self).__name__} has no results_file")

    def sample(self, count: int) -> Batch | Iterator[Batch]:
        """New data in the dataset's own form, by the spec's names; an iterator is shown as it comes.

        What each sample was given may go along, int64 [count]: `label`, a class, or `code`, a group without a name
        (dlx/tasks/judge.py).

        Keyword arguments of a subclass are `dlx sample --given NAME=VALUE`: one that is annotated with a kind of entry
        is read by the spec's entry of that name, or the only one of that kind; the others are converted.
        """
        raise NotImplementedError(f"{type(self).__name__} has no sample")

    def sample_from(self, batch: Batch) -> Batch:
        """Samples that are made of a batch of held-out data, one for each row, by the spec's names: of its texts, or of
        its images, which are changed. What they were given goes along: `label`, the class that each was to be of; the
        text; or `source`, the image that it was made of. `dlx eval --analysis judge` reads them (dlx/tasks/judge.py).
        """
        raise NotImplementedError(f"{type(self).__name__} has no sample_from")

    def showcase(self, batch: Batch) -> dict[str, Any]:
        """Pictures by name that a person would look at (dlx/runs/media.py), always under the same random numbers.

        The batch is of a held-out split; of a small training split it has all as `training/<entry>` too.
        """
        return {}
