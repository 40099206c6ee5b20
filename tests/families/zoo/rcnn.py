"""R-CNN in small: a network learns to tell the patches at proposals apart; then linear machines on its features are
fitted in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.tasks.spec import Boxes, Image, Proposals, Spec
from dlx.tasks.system import Batch, Objective, Statistics, System


@dataclass(frozen=True, kw_only=True)
class ProposedBoxes(Spec):
    image: Image
    proposals: Proposals
    boxes: Boxes
    targets = ("boxes",)


class RCNN(System):
    """ridge: of the linear machines."""

    def __init__(self, *, spec: ProposedBoxes, ridge: float = 1e-3) -> None:
        super().__init__()
        self.spec, self.ridge = spec, ridge
        self.classes = len(spec.boxes.classes) + 1  # the last is the ground
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(25 * spec.image.channels, 16), nn.ReLU())
        self.top = nn.Linear(16, self.classes)
        self.machines = nn.Buffer(torch.zeros(17, self.classes))
        self.fitted = nn.Buffer(torch.zeros(()))

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/accuracy", "max"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("accuracy",)

    def _patches(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Patches [B, M, C, 5, 5] at proposals, their classes, and which are none."""
        image, proposals = batch["image"], batch["proposals"]
        there = proposals[..., 2] > proposals[..., 0]
        offset = torch.arange(5, device=image.device)
        rows = (proposals[..., 1:2].long().clamp(0, image.shape[-2] - 5) + offset).unsqueeze(-1)
        columns = (proposals[..., 0:1].long().clamp(0, image.shape[-1] - 5) + offset).unsqueeze(-2)
        sample = torch.arange(len(image), device=image.device).view(-1, 1, 1, 1)
        patches = image.permute(0, 2, 3, 1)[sample, rows, columns].movedim(-1, 2)
        same = (proposals.unsqueeze(2) - batch["boxes"][:, None, :, :4]).abs().amax(-1) < 1
        same = same & (batch["boxes"][:, None, :, 4] >= 0)
        kind = (batch["boxes"][:, None, :, 4] * same).sum(-1).long()
        return patches, kind.where(same.any(-1), self.classes - 1), there

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        patches, kind, there = self._patches(batch)
        logits = self.top(self.body(patches.flatten(0, 1))).view(*kind.shape, -1)
        loss = F.cross_entropy(logits.movedim(-1, 1), kind, reduction="none")
        return (loss * there).sum() / there.sum(), {}

    def _features(self, patches: Tensor) -> Tensor:
        x = self.body(patches.flatten(0, 1))
        return torch.cat([x, torch.ones_like(x[:, :1])], 1)

    def fit(self, data: Any) -> None:
        rows, aims = [], []
        for batch in data.train.eval_batches():
            patches, kind, there = self._patches(batch)
            rows.append(self._features(patches)[there.flatten()].double())
            aims.append(2 * F.one_hot(kind[there], self.classes).double() - 1)
        x, y = torch.cat(rows), torch.cat(aims)
        gram = x.T @ x + self.ridge * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        self.machines.copy_(torch.linalg.solve(gram, x.T @ y))
        self.fitted.fill_(1)

    def evaluate(self, batch: Batch) -> Statistics:
        patches, kind, there = self._patches(batch)
        features = self._features(patches)
        scores = torch.where(self.fitted > 0, features @ self.machines, self.top(features[:, :-1]))
        right = (scores.argmax(1).view_as(kind) == kind) & there
        return {"right": right.sum(), "count": there.sum()}

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        return {"accuracy": float(statistics["right"] / statistics["count"])}
