"""A variational autoencoder: the weight of its prior grows over the first half of the training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dlx.random import normal_rows
from dlx.runs.media import grid
from dlx.tasks.spec import Images
from dlx.tasks.system import Batch, Objective, Statistics, System


class VAE(System):
    """latent_dim: numbers of the code. draws: of the importance-weighted bound in an evaluation."""

    film = True

    def __init__(self, *, spec: Images, latent_dim: int = 2, width: int = 32, draws: int = 4) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")
        self.spec = Images(image=spec.image.in_range(-1, 1))
        pixels = spec.image.channels * spec.image.height * spec.image.width
        self.latent_dim, self.draws = latent_dim, draws
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(pixels, width), nn.ReLU(), nn.Linear(width, 2 * latent_dim)
        )
        self.decoder = nn.Sequential(nn.Linear(latent_dim, width), nn.ReLU(), nn.Linear(width, pixels))

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/nll", "min"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return "loss", "nll"

    def _code(self, image: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.encoder(image).chunk(2, -1)
        return mean, log_std.clamp(-5, 2)

    def embed(self, batch: Batch) -> Tensor:
        return self._code(batch["image"])[0]

    def _reconstruction(self, image: Tensor, code: Tensor) -> Tensor:
        """-log p(x | z) of each sample, up to a constant."""
        return 0.5 * (self.decoder(code) - image.flatten(1)).square().sum(-1)

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        mean, log_std = self._code(batch["image"])
        code = mean + log_std.exp() * torch.randn_like(mean)
        prior = 0.5 * (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(-1).mean()
        weight = (2 * batch["progress"]).clamp(max=1)
        loss = self._reconstruction(batch["image"], code).mean() + weight * prior
        return loss, {"prior": prior.detach(), "warmup": weight.detach()}

    def evaluate(self, batch: Batch) -> Statistics:
        image = batch["image"]
        mean, log_std = self._code(image)
        noise = normal_rows("vae", batch["index"], self.draws, self.latent_dim).transpose(0, 1)
        code = mean + log_std.exp() * noise
        log_prior, log_code = -0.5 * code.square().sum(-1), -(0.5 * noise.square() + log_std).sum(-1)
        weight = -self._reconstruction(image, code) + log_prior - log_code
        bound = weight.logsumexp(0) - torch.tensor(float(self.draws)).log()
        count = torch.tensor(float(len(image)), device=image.device)
        return {"loss": -weight.mean(0).double().sum(), "nll": -bound.double().sum(), "count": count}

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        return {name: float(statistics[name] / statistics["count"]) for name in ("loss", "nll")}

    def _decode(self, code: Tensor) -> Tensor:
        return self.decoder(code).view(-1, *self.spec.image.shape)

    def sample(self, count: int, *, scale: float = 1.0) -> Batch:
        return {"image": self._decode(scale * torch.randn(count, self.latent_dim, device=self.device))}

    def showcase(self, batch: Batch) -> dict[str, Any]:
        return {"samples": grid(self.spec.image.draw(self.sample(9)["image"]))}
