"""Supervised systems: one input -> output, scored on one target. A label makes a classifier, real numbers a regressor.

A model inherits `Supervised` and is then the network and nothing else: it defines `forward(x)`, from inputs
[B, *input.shape] to outputs [B, num_outputs].
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from dlx.tasks.classification import Classification
from dlx.tasks.regression import Regression
from dlx.tasks.spec import Entry, Label, LabeledImages, LabeledReals, Reals, RegressionReals, Spec
from dlx.tasks.system import Answer, Batch, Objective, Report, Statistics, System

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

AnySamples = LabeledImages | LabeledReals | RegressionReals
"""The specs of a model that flattens its input."""


def training_samples(data: Any, system: Supervised) -> tuple[Tensor, Tensor, Tensor]:
    """All training samples at once, on the CPU, for a closed form: inputs [N, *input.shape], targets as in a batch,
    and weights float64 [N], ones where the samples have none. data: what `System.fit` is given."""
    parts = list(data.train.eval_batches())
    names = (system.input_name, system.target_name)
    inputs, target = (torch.cat([part[key].cpu() for part in parts]) for key in names)
    weights = [part["weight"].cpu().double() for part in parts if "weight" in part]
    return inputs, target, torch.cat(weights) if weights else torch.ones(len(inputs), dtype=torch.float64)


class TaskHead(Protocol):
    """The head of a supervised system: loss, metrics and pictures of one kind of target. One whose loss is no mean over
    the samples also has `counted` (dlx/tasks/system.py)."""

    monitor: tuple[str, str]
    gaps: ClassVar[dict[str, int]]
    metric_names: tuple[str, ...]

    def loss(self, output: Tensor, batch: Batch) -> Tensor: ...
    def logs(self, output: Tensor, batch: Batch) -> dict[str, Tensor]: ...
    def statistics(self, output: Tensor, batch: Batch) -> Statistics: ...
    def metrics(self, statistics: Statistics) -> dict[str, float]: ...
    def predict(self, output: Tensor, batch: Batch) -> dict[str, Tensor]: ...
    def answer(self, system: System, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]: ...
    def showcase(self, output: Tensor, batch: Batch) -> dict[str, Any]: ...
    def report(self, statistics: Statistics) -> Report: ...


class Supervised(System):
    """Base of all classifiers and regressors.

    spec: one input, and one target: a `Label` makes a classifier, `Reals` a regressor. Without a target it is a trunk,
    a part of another system that uses its `features`: it has no head.
    loss: classifiers take cross_entropy (default), mse or l1; regressors mse (default), l1 or huber.
    """

    takes = ("weight", "soft_label")
    target: TaskHead

    def __init__(self, *, spec: Spec, loss: str | None = None) -> None:
        super().__init__()
        self.spec = spec
        if len(spec.inputs) != 1 or len(spec.targets) > 1:
            names = ", ".join(spec.entries)
            raise ValueError(f"spec must be of one input and one target for {type(self).__name__}, got {names}")
        ((self.input_name, self.input),) = spec.inputs.items()
        self.target_name, self.num_outputs = "", 0
        for name in spec.targets:
            self.target_name = name
            self.num_outputs, self.target = self.make_target(spec.entries[name], loss)

    def make_target(self, entry: Entry, loss: str | None) -> tuple[int, TaskHead]:
        """The number of outputs, and the head that scores them against the target. Raises ValueError naming `loss` for
        one that the target does not have."""
        if isinstance(entry, Label):
            return len(entry.classes), Classification(
                self.spec, self.input_name, self.target_name, loss or "cross_entropy"
            )
        if isinstance(entry, Reals):
            return entry.size, Regression(self.spec, self.input_name, self.target_name, loss or "mse")
        raise ValueError(f"spec must have a label or real numbers as its target, got {type(entry).__name__}")

    @property
    def is_classifier(self) -> bool:
        return self.num_outputs > 0 and isinstance(self.target, Classification)

    @property
    def answers_once(self) -> bool:
        """Whether it answers each sample with one class or one vector of numbers, which methods can join."""
        return isinstance(getattr(self, "target", None), Classification | Regression)

    @property
    def num_features(self) -> int:
        """Numbers of one input."""
        return math.prod(self.input.shape)

    def make_head(self, in_features: int) -> nn.Module:
        """The last layer, from features to outputs; of a trunk none."""
        return nn.Linear(in_features, self.num_outputs) if self.num_outputs else nn.Identity()

    @property
    def monitor(self) -> tuple[str, str]:
        return self.target.monitor

    @property
    def gaps(self) -> Mapping[str, int]:
        return self.target.gaps

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Those of the target, unless a subclass has metrics of its own."""
        return self.target.metric_names if type(self).metrics is Supervised.metrics else ()

    def output(self, batch: Batch) -> Tensor:
        """What the head scores: the network's output for the input."""
        output: Tensor = self(batch[self.input_name])
        return output

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        output = self.output(batch)
        return self.target.loss(output, batch), self.target.logs(output.detach(), batch)

    def counted(self, batch: Batch) -> Tensor | None:
        counted: Callable[[Batch], Tensor | None] | None = getattr(self.target, "counted", None)
        return None if counted is None else counted(batch)

    def evaluate(self, batch: Batch) -> Statistics:
        return self.target.statistics(self.output(batch), batch)

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        return self.target.metrics(statistics)

    def report(self, statistics: Statistics) -> Report:
        return self.target.report(statistics)

    def embed(self, batch: Batch) -> Tensor:
        """The trunk's features, averaged over positions: maps [B, C, h, w] and tokens [B, N, C] give [B, C]."""
        trunk = getattr(self, "features", None)
        if trunk is None:
            raise NotImplementedError(f"{type(self).__name__} has no features")
        x: Tensor = trunk(batch[self.input_name])
        return x.mean((2, 3)) if x.dim() == 4 else x.mean(1) if x.dim() == 3 else x

    @property
    def analyses(self) -> Mapping[str, Callable[..., Report]]:
        return super().analyses if hasattr(self, "features") else {}

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Classifiers: `label` int64 [B] and `probability` float [B, K]. Regressors: `target` float [B, D]."""
        return self.target.predict(self.output(batch), batch)

    def answer(self, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        return self.target.answer(self, batch, predicted)

    def showcase(self, batch: Batch) -> dict[str, Any]:
        return self.target.showcase(self.output(batch), batch)
