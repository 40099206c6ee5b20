"""Supervised systems: input -> output, judged against a target. Labels make a classifier, real targets a regressor.

A model inherits `Supervised` and is then the network and nothing else: it defines `forward(x)`, from inputs
[B, *spec.input_shape] to outputs [B, spec.num_outputs].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch

from dlx.tasks.classification import Classification
from dlx.tasks.regression import Regression
from dlx.tasks.spec import ImageSpec, Spec
from dlx.tasks.system import Batch, Objective, Statistics, System

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


def training_samples(data: Any, spec: Spec) -> tuple[Tensor, Tensor, Tensor]:
    """All training samples at once, on the CPU, for a closed form: inputs [N, *input_shape], targets as in a batch,
    and weights float64 [N], ones where the samples have none. data: what `System.fit` is given."""
    parts = list(data.train.all())
    inputs, target = (torch.cat([part[key].cpu() for part in parts]) for key in (spec.input_key, spec.target_key))
    weights = [part["weight"].cpu().double() for part in parts if "weight" in part]
    return inputs, target, torch.cat(weights) if weights else torch.ones(len(inputs), dtype=torch.float64)


class Target(Protocol):
    """What the outputs mean: the loss, the figures and the pictures of one kind of target."""

    monitor: tuple[str, str]
    gaps: ClassVar[dict[str, int]]
    figures: tuple[str, ...]

    def loss(self, output: Tensor, batch: Batch) -> Tensor: ...
    def logs(self, output: Tensor, batch: Batch) -> dict[str, Tensor]: ...
    def statistics(self, output: Tensor, batch: Batch) -> Statistics: ...
    def metrics(self, statistics: Statistics) -> dict[str, float]: ...
    def predict(self, output: Tensor) -> dict[str, Tensor]: ...
    def showcase(self, output: Tensor, batch: Batch) -> dict[str, Any]: ...


class Supervised(System):
    """Base of all classifiers and regressors.

    spec: what the dataset holds; `ImageSpec` makes a classifier, any other spec a regressor.
    loss: classifiers take cross_entropy (default), mse or l1; regressors mse (default), l1 or huber.
    """

    def __init__(self, *, spec: Spec, loss: str | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.target: Target = (
            Classification(spec, loss or "cross_entropy")
            if isinstance(spec, ImageSpec)
            else Regression(spec, loss or "mse")
        )

    @property
    def monitor(self) -> tuple[str, str]:
        return self.target.monitor

    @property
    def gaps(self) -> Mapping[str, int]:
        return self.target.gaps

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        output = self(batch[self.spec.input_key])
        return self.target.loss(output, batch), self.target.logs(output.detach(), batch)

    def evaluate(self, batch: Batch) -> Statistics:
        return self.target.statistics(self(batch[self.spec.input_key]), batch)

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        return self.target.metrics(statistics)

    @property
    def figures(self) -> tuple[str, ...]:
        """Those of the target, unless a subclass has metrics of its own."""
        return self.target.figures if type(self).metrics is Supervised.metrics else ()

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Classifiers: `label` int64 [B] and `probability` float [B, K]. Regressors: `target` float [B, D]."""
        return self.target.predict(self(batch[self.spec.input_key]))

    def showcase(self, batch: Batch) -> dict[str, Any]:
        return self.target.showcase(self(batch[self.spec.input_key]), batch)
