"""A variational autoencoder: the weight of its prior grows over the first half of the training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlx.random import normal_rows
from dlx.tasks.density import Density
from dlx.tasks.spec import Images
from dlx.tasks.system import Batch, Objective


class VAE(Density):
    """latent_dim: numbers of the code. draws: of the importance-weighted bound in an evaluation."""

    def __init__(self, *, spec: Images, latent_dim: int = 2, width: int = 32, draws: int = 4) -> None:
        super().__init__(spec=spec)
        if latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")
        self.latent_dim, self.draws = latent_dim, draws
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(self.dimensions, width), nn.ReLU(), nn.Linear(width, 2 * latent_dim)
        )
        self.decoder = nn.Sequential(nn.Linear(latent_dim, width), nn.ReLU(), nn.Linear(width, self.dimensions))

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
        prior_B = 0.5 * (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(-1)
        share = (2 * batch["progress"]).clamp(max=1)
        loss = self.weighted_mean(self._reconstruction(batch["image"], code) + share * prior_B, batch)
        return loss, {"prior": prior_B.mean().detach(), "warmup": share.detach()}

    def log_prob(self, batch: Batch) -> Tensor:
        """The importance-weighted bound."""
        mean, log_std = self._code(batch["image"])
        noise = normal_rows("vae", batch["index"], self.draws, self.latent_dim).transpose(0, 1)
        code = mean + log_std.exp() * noise
        log_prior, log_code = -0.5 * code.square().sum(-1), -(0.5 * noise.square() + log_std).sum(-1)
        weight = -self._reconstruction(batch["image"], code) + log_prior - log_code
        return weight.logsumexp(0) - torch.tensor(float(self.draws)).log()

    def sample(self, count: int, *, scale: float = 1.0) -> Batch:
        code = scale * torch.randn(count, self.latent_dim, device=self.device)
        return {"image": self.decoder(code).view(-1, *self.input.shape)}
