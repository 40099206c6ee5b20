"""Unpaired translation: two generators, two critics, cycles, and a pool of images made before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dlx.runs.media import grid
from dlx.tasks.spec import UnpairedImages
from dlx.tasks.system import Batch, Objective, Statistics, System


class Cycle(System):
    """pool: images of the second side that are kept for the critic."""

    players = ("generators", "critics")

    def __init__(self, *, spec: UnpairedImages, width: int = 4, pool: int = 8) -> None:
        super().__init__()
        self.spec = spec
        channels = spec.image_a.channels

        def net(out: int) -> nn.Sequential:
            first = nn.Conv2d(channels, width, 3, padding=1)
            return nn.Sequential(first, nn.ReLU(), nn.Conv2d(width, out, 3, padding=1))

        self.to_b, self.to_a = net(channels), net(channels)
        self.critic_a, self.critic_b = net(1), net(1)
        self._pool = torch.zeros(pool, *spec.image_b.shape)
        self._filled = 0

    def objectives(self, stage: int = 0) -> list[Objective]:
        generators = Objective.of("generators", self.to_a, self.to_b)
        return [generators, Objective.of("critics", self.critic_a, self.critic_b)]

    def _swapped(self, made: Tensor) -> Tensor:
        """Half of the images are swapped for older ones, once the pool is full."""
        self._pool = self._pool.to(made.device)
        out = made.clone()
        for n in range(len(made)):
            if self._filled < len(self._pool):
                self._pool[self._filled] = made[n]
                self._filled += 1
            elif torch.rand(()) < 0.5:
                place = int(torch.randint(len(self._pool), ()))
                out[n], self._pool[place] = self._pool[place].clone(), made[n]
        return out

    def state(self) -> dict[str, Any]:
        return {"pool": self._pool, "filled": self._filled}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._pool, self._filled = state["pool"], state["filled"]

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        a, b = batch["image_a"], batch["image_b"]
        if objective.name == "generators":
            fake_b, fake_a = self.to_b(a), self.to_a(b)
            batch["fake_a"], batch["fake_b"] = fake_a.detach(), fake_b.detach()
            fooled = (self.critic_b(fake_b) - 1).square().mean() + (self.critic_a(fake_a) - 1).square().mean()
            cycle = (self.to_a(fake_b) - a).abs().mean() + (self.to_b(fake_a) - b).abs().mean()
            return fooled + 10 * cycle, {"cycle": cycle.detach()}
        fake_b = self._swapped(batch["fake_b"])
        loss_b = (self.critic_b(b) - 1).square().mean() + self.critic_b(fake_b).square().mean()
        loss_a = (self.critic_a(a) - 1).square().mean() + self.critic_a(batch["fake_a"]).square().mean()
        return loss_a + loss_b, {}

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/cycle", "min"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("cycle",)

    def evaluate(self, batch: Batch) -> Statistics:
        a = batch["image_a"]
        off = (self.to_a(self.to_b(a)) - a).abs().mean((1, 2, 3))
        return {"cycle": off.double().sum(), "count": torch.tensor(float(len(a)), device=a.device)}

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        return {"cycle": float(statistics["cycle"] / statistics["count"])}

    def showcase(self, batch: Batch) -> dict[str, Any]:
        pairs = torch.stack([batch["image_a"][:4], self.to_b(batch["image_a"][:4])], 1).flatten(0, 1)
        return {"to_b": grid(self.spec.image_b.draw(pairs), columns=2)}
