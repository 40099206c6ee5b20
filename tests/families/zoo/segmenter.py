"""A segmenter: a class for each pixel; void pixels count nowhere."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.runs.media import Overlay
from dlx.tasks.spec import MaskedImages
from dlx.tasks.system import Batch, Objective, Report, Statistics, System


class Segmenter(System):
    def __init__(self, *, spec: MaskedImages, width: int = 8) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        self.spec, self.classes = spec, len(spec.mask.classes)
        self.net = nn.Sequential(
            nn.Conv2d(spec.image.channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, self.classes, 1),
        )

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/miou", "max"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return "loss", "miou"

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)

    def _loss(self, logits: Tensor, mask: Tensor, reduction: str = "mean") -> Tensor:
        return F.cross_entropy(logits, mask, ignore_index=self.spec.mask.void, reduction=reduction)

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        return self._loss(self(batch["image"]), batch["mask"]), {}

    def evaluate(self, batch: Batch) -> Statistics:
        logits, mask = self(batch["image"]).float(), batch["mask"]
        counts = mask != self.spec.mask.void
        cell = torch.where(counts, mask * self.classes + logits.argmax(1), self.classes**2).flatten()
        confusion = torch.bincount(cell, minlength=self.classes**2 + 1)[:-1].view(self.classes, -1)
        return {"loss": self._loss(logits, mask, "sum").double(), "confusion": confusion}

    def _iou(self, confusion: Tensor) -> Tensor:
        confusion = confusion.double()
        hits = confusion.diagonal()
        return hits / (confusion.sum(0) + confusion.sum(1) - hits)

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        confusion = statistics["confusion"]
        return {
            "loss": float(statistics["loss"] / confusion.sum()),
            "miou": float(self._iou(confusion).nanmean()),
        }

    def report(self, statistics: Statistics) -> Report:
        iou = self._iou(statistics["confusion"]).tolist()
        rows = [{"class": name, "iou": value} for name, value in zip(self.spec.mask.classes, iou, strict=True)]
        return Report({"per_class": rows}, {}, {"per_class": rows})

    def showcase(self, batch: Batch) -> dict[str, Any]:
        mask = self(batch["image"][:1]).argmax(1)[0]
        photo = self.spec.image.draw(batch["image"][:1])[0]
        return {"mask": Overlay(photo, mask=torch.where(mask > 0, mask, -1).cpu())}
