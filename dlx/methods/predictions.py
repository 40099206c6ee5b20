"""Predictions of trained members on a split, and their metrics. Shapes: N samples, M members, K outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dlx.config.errors import UserError
from dlx.data.loader import Loader
from dlx.runs.folder import RunFolder
from dlx.tasks.classification import Classification
from dlx.tasks.regression import Regression
from dlx.tasks.supervised import Supervised
from dlx.tasks.system import System
from dlx.training.trained import open_run


@dataclass(frozen=True)
class Predictions:
    """Predictions on a split's samples, on the CPU.

    index: positions in the source [N]; inputs: as the networks see them; truth: labels int64 [N] or targets float32
    [N, K]; output: float32 [N, K], logits of a classifier; of several members [M, N, K].
    """

    head: Classification | Regression
    index: Tensor
    inputs: Tensor
    truth: Tensor
    output: Tensor

    @property
    def are_labels(self) -> bool:
        return isinstance(self.head, Classification)

    def score(self, output: Tensor, truth: Tensor) -> dict[str, float]:
        """Metrics of outputs [N, K], named as a run's (loss is nll or mse), and `error`: 1 - accuracy, or mse."""
        metrics = self.head.metrics(self.head.statistics(output, {self.head.target_name: truth}))
        return {**metrics, "error": 1 - metrics["accuracy"] if self.are_labels else metrics["mse"]}


def predict_split(run: RunFolder, split: str, *, trust: tuple[str, ...], of: RunFolder | None = None) -> Predictions:
    """Predicts `train`, `val` or `test` with a run's best weights. of: another run, whose data are predicted."""
    system, loader = open_run(run, split, trust=trust)
    if of is not None:
        loader = open_run(of, split, trust=trust)[1]
    return _predict(system, loader, system)


def predict_split_by_runs(runs: Iterable[RunFolder], split: str, *, trust: tuple[str, ...]) -> Predictions:
    """Predicts a split with each of several runs: output is [M, N, K], the samples are those of the first."""
    found = [predict_split(run, split, trust=trust) for run in runs]
    return replace(found[0], output=torch.stack([one.output for one in found]))


def predict_split_by_member(ensemble: RunFolder, split: str, *, trust: tuple[str, ...]) -> Predictions:
    """Predicts a split with each member of an ensemble's run: output is [M, N, K]."""
    system, loader = open_run(ensemble, split, trust=trust)
    members: Any = system.members
    return _predict(system, loader, lambda x: torch.stack([member(x) for member in members], dim=1))


@torch.no_grad()
def _predict(system: System, loader: Loader, forward: Callable[[Tensor], Tensor]) -> Predictions:
    if not isinstance(system, Supervised) or not system.answers_once:
        raise UserError(f"method: it is for classifiers and regressors; {type(system).__name__} is neither")
    x, y = system.input_name, system.target_name
    parts = [(batch["index"], batch[x], batch[y], forward(batch[x]).float()) for batch in loader.eval_batches()]
    index, inputs, truth, output = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
    kind = Classification if system.is_classifier else Regression
    head = kind(system.spec, x, y, "cross_entropy" if system.is_classifier else "mse")
    return Predictions(head, index, inputs, truth, output.movedim(1, 0) if output.dim() == 3 else output)
