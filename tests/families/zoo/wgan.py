"""A Wasserstein GAN with gradient penalty: five steps of the critic for one of the generator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dlx.runs.media import grid
from dlx.tasks.adversarial import gradient_penalty
from dlx.tasks.spec import Images
from dlx.tasks.system import Batch, Objective, System


class WGAN(System):
    players = ("critic", "generator")
    compiles = False  # a gradient of a gradient
    film = True

    def __init__(self, *, spec: Images, latent_dim: int = 4, width: int = 32, penalty: float = 10.0) -> None:
        super().__init__()
        self.spec = Images(image=spec.image.in_range(-1, 1))
        pixels = spec.image.channels * spec.image.height * spec.image.width
        self.latent_dim, self.penalty = latent_dim, penalty
        self.critic = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, 1))
        self.generator = nn.Sequential(nn.Linear(latent_dim, width), nn.ReLU(), nn.Linear(width, pixels), nn.Tanh())

    def objectives(self, stage: int = 0) -> list[Objective]:
        return [Objective.of("critic", self.critic), Objective.of("generator", self.generator, every=5)]

    def averaged(self) -> list[nn.Parameter]:
        return list(self.generator.parameters())

    def _generate(self, count: int) -> Tensor:
        code = torch.randn(count, self.latent_dim, device=self.device)
        return self.generator(code).view(-1, *self.spec.image.shape)

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        fake = self._generate(len(batch["image"]))
        if objective.name == "generator":
            return -self.critic(fake).mean(), {}
        real, fake = batch["image"], fake.detach()
        distance = self.critic(real).mean() - self.critic(fake).mean()
        loss = self.penalty * gradient_penalty(self.critic, real, fake) - distance
        return loss, {"distance": distance.detach()}

    def sample(self, count: int) -> Batch:
        return {"image": self._generate(count)}

    def showcase(self, batch: Batch) -> dict[str, Any]:
        return {"samples": grid(self.spec.image.draw(self._generate(9)))}
