"""Contrastive learning: two views of each image attract each other; neighbours among training images tell its class."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.regularization.regularizer import Regularizer
from dlx.tasks import gather_with_grad
from dlx.tasks.spec import LabeledImages
from dlx.tasks.system import Batch, Objective, Statistics, System, Trunk


class Contrastive(System):
    views = ("image", "image_2")
    whole_batch = True

    def __init__(
        self, *, spec: LabeledImages, encoder: Trunk, augmentation: Regularizer, dim: int = 8, temperature: float = 0.5
    ) -> None:
        super().__init__()
        self.spec, self.encoder, self.augmentation, self.temperature = spec, encoder, augmentation, temperature
        with torch.no_grad():
            width = self.encoder.eval().embed({"image": spec.image.example(1)}).shape[1]  # type: ignore[attr-defined]
        self.project = nn.Linear(width, dim)
        self._bank: tuple[Tensor, Tensor] | None = None

    def embed(self, batch: Batch) -> Tensor:
        return self.encoder.embed(batch)

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        pairs = [F.normalize(self.project(self.embed({"image": batch[view]})), dim=1) for view in self.views]
        z = torch.cat([gather_with_grad(part) for part in pairs])
        scores = (z @ z.T / self.temperature).fill_diagonal_(-1e9)
        partner = torch.arange(len(z), device=z.device).roll(len(z) // 2)
        return F.cross_entropy(scores, partner), {}

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/knn_accuracy", "max"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("knn_accuracy",)

    def before_evaluation(self, train: Any, dist: Any) -> None:
        parts = [(F.normalize(self.embed(batch), dim=1), batch["label"]) for batch in train.eval_batches()]
        self._bank = tuple(torch.cat(column) for column in zip(*parts, strict=True))  # type: ignore[assignment]

    def evaluate(self, batch: Batch) -> Statistics:
        assert self._bank is not None
        features, label = self._bank
        near = (F.normalize(self.embed(batch), dim=1) @ features.T).topk(5).indices
        right = label[near].mode(1).values == batch["label"]
        return {"right": right.sum(), "count": torch.tensor(float(len(right)), device=right.device)}

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        return {"knn_accuracy": float(statistics["right"] / statistics["count"])}
