"""A detector: boxes on a grid over pictures of several sizes, with a trunk that is chosen by option."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.runs.media import Overlay
from dlx.tasks.spec import Boxes, Image, Size, Spec
from dlx.tasks.system import Answer, Batch, Objective, Report, Statistics, System, Trunk


@dataclass(frozen=True, kw_only=True)
class SizedBoxes(Spec):
    image: Image
    size: Size
    boxes: Boxes
    targets = ("boxes",)


class Detector(System):
    """Each cell of the trunk's maps says whether a box's middle is in it, where its sides are, and its class."""

    def __init__(self, *, spec: SizedBoxes, trunk: Trunk, width: int = 16) -> None:
        super().__init__()
        self.spec, self.trunk = spec, trunk
        with torch.no_grad():
            maps = self.trunk.eval().features(spec.image.example(1))  # type: ignore[attr-defined]
        self.cell = spec.image.height // maps.shape[-1]
        self.convs = nn.Sequential(nn.Conv2d(maps.shape[1], width, 3, padding=1), nn.ReLU())
        self.out = nn.Conv2d(width, 5 + len(spec.boxes.classes), 1)

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/recall", "max"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return "loss", "recall"

    def forward(self, image: Tensor, size: Tensor) -> Tensor:
        """[B, h, w, 5 + K]; cells beyond a picture's size are off."""
        cells = self.out(self.convs(self.trunk.features(image))).permute(0, 2, 3, 1)
        rows = torch.arange(cells.shape[1], device=image.device) * self.cell
        columns = torch.arange(cells.shape[2], device=image.device) * self.cell
        inside = (rows < size[:, :1]).unsqueeze(-1) & (columns < size[:, 1:]).unsqueeze(-2)
        off = torch.where(inside, 0.0, -1e4)
        return torch.cat([cells[..., :1] + off.unsqueeze(-1), cells[..., 1:]], -1)

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """A loss for each sample, and the cells."""
        cells, boxes = self(batch["image"], batch["size"]), batch["boxes"]
        there = boxes[..., 4] >= 0
        middle = ((boxes[..., :2] + boxes[..., 2:4]) / 2 / self.cell).long()
        row, column = (middle[..., k].clamp(0, cells.shape[2 - k] - 1) for k in (1, 0))
        sample = torch.arange(len(boxes), device=boxes.device).unsqueeze(1)
        wanted = torch.zeros_like(cells[..., 0]).index_put((sample, row, column), there.float(), accumulate=True)
        found = cells[sample, row, column]
        sides = F.smooth_l1_loss(found[..., 1:5], boxes[..., :4] / self.spec.image.height, reduction="none").sum(-1)
        kind = F.cross_entropy(found[..., 5:].movedim(-1, 1), boxes[..., 4].long().clamp_min(0), reduction="none")
        objectness = F.binary_cross_entropy_with_logits(cells[..., 0], wanted.clamp(max=1), reduction="none")
        return objectness.mean((1, 2)) + ((sides + kind) * there).sum(1), cells

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        return self._losses(batch)[0].mean(), {}

    def _decode(self, cells: Tensor) -> Tensor:
        """The best box of each picture, [B, 5]."""
        flat = cells.flatten(1, 2)
        best = flat[torch.arange(len(flat), device=flat.device), flat[..., 0].argmax(1)]
        return torch.cat([best[:, 1:5] * self.spec.image.height, best[:, 5:].argmax(1, keepdim=True).float()], 1)

    def evaluate(self, batch: Batch) -> Statistics:
        loss_B, cells = self._losses(batch)
        found, wanted = self._decode(cells), batch["boxes"][:, 0]
        right = ((found[:, :4] - wanted[:, :4]).abs().amax(1) < 3) & (found[:, 4] == wanted[:, 4])
        count = torch.bincount(wanted[:, 4].long(), minlength=len(self.spec.boxes.classes))
        hits = torch.bincount(wanted[:, 4].long(), right.double(), minlength=len(self.spec.boxes.classes))
        return {"loss": loss_B.double().sum(), "hits": hits, "count": count}

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        count = statistics["count"].sum()
        return {"loss": float(statistics["loss"] / count), "recall": float(statistics["hits"].sum() / count)}

    def report(self, statistics: Statistics) -> Report:
        share = (statistics["hits"] / statistics["count"]).tolist()
        rows = [{"class": c, "recall": r} for c, r in zip(self.spec.boxes.classes, share, strict=True)]
        return Report({"per_class": rows}, {}, {"per_class": rows})

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        return {"boxes": self._decode(self(batch["image"], batch["size"]))}

    def answer(self, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        """In the pixels of the file."""
        boxes = predicted["boxes"].clone()
        if "scale" in batch:
            boxes[:, :4] /= batch["scale"].unsqueeze(1)
        answers = []
        for number, (*box, kind) in enumerate(boxes.tolist()):
            name = self.spec.boxes.classes[int(kind)]
            text = " ".join(f"{value:.0f}" for value in box)
            draw = partial(self._draw, batch["image"][number : number + 1], predicted["boxes"][number], name)
            answers.append(Answer(f"{name} {text}", {"class": name, "box": box}, draw))
        return answers

    def _draw(self, image: Tensor, box: Tensor, name: str, title: str) -> Any:
        return Overlay(self.spec.image.draw(image)[0], [tuple(box[:4].tolist())], [name])

    def showcase(self, batch: Batch) -> dict[str, Any]:
        return {"boxes": self._draw(batch["image"][:1], self.predict(batch)["boxes"][0], "found", "")}
