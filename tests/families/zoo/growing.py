"""An autoencoder that grows: a second block fades in over the second half of the training."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.runs.media import grid
from dlx.tasks.spec import Images
from dlx.tasks.system import Batch, Objective, Statistics, System


class Growing(System):
    """grows_at: share of the training after which the second stage begins; the block is in fully half way through it.
    All parameters are there from the start; the stage says which of them train."""

    def __init__(self, *, spec: Images, width: int = 8, grows_at: float = 0.5) -> None:
        super().__init__()
        if not 0 < grows_at < 1:
            raise ValueError(f"grows_at must be in (0, 1), got {grows_at}")
        self.spec, self.grows_at = spec, grows_at
        channels = spec.image.channels
        self.small = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, channels, 1))
        self.large = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, channels, 1))

    def stage_starts(self, total_steps: int) -> list[int]:
        second = int(self.grows_at * total_steps)
        if second < 1:
            raise ValueError(f"grows_at must leave a step to the first stage, got {self.grows_at} of {total_steps}")
        return [0, second]

    def objectives(self, stage: int = 0) -> list[Objective]:
        return [Objective.of("loss", self.small, *([self.large] if stage else []))]

    def _rebuild(self, image: Tensor, share: Tensor) -> Tensor:
        coarse = F.interpolate(self.small(F.avg_pool2d(image, 2)), scale_factor=2)
        return coarse + share * self.large(coarse)

    def _share(self, batch: Batch) -> Tensor:
        """How far the second block is in: 0 in the first stage."""
        return (2 * batch["progress"]).clamp(max=1) * (batch["stage"] > 0)

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        share = self._share(batch)
        loss = (self._rebuild(batch["image"], share) - batch["image"]).square().mean()
        return loss, {"share": share}

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/mse", "min"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("mse",)

    def evaluate(self, batch: Batch) -> Statistics:
        off = (self._rebuild(batch["image"], torch.ones(())) - batch["image"]).square().mean((1, 2, 3))
        return {"mse": off.double().sum(), "count": torch.tensor(float(len(off)), device=off.device)}

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        return {"mse": float(statistics["mse"] / statistics["count"])}

    def showcase(self, batch: Batch) -> dict[str, Any]:
        return {"rebuilt": grid(self.spec.image.draw(self._rebuild(batch["image"][:4], torch.ones(()))))}
