"""Generative adversarial network (Goodfellow et al. 2014, arXiv:1406.2661): two dense networks that play a game.

The generator makes samples of latent numbers; the discriminator says of each sample how probably it is real. With
`loss=wasserstein` and a gradient penalty it is a WGAN-GP (Gulrajani et al. 2017, arXiv:1704.00028).
Shapes: B batch, F features, Z of the latent.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from dlx.config import checks
from dlx.random import normal_rows, uniform_rows
from dlx.tasks.adversarial import Adversarial
from dlx.tasks.spec import Image, Images, Points


class Maxout(nn.Module):
    """The largest of `pieces` affine maps, for each output (Goodfellow et al. 2013, arXiv:1302.4389)."""

    def __init__(self, inputs: int, outputs: int, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces
        self.linear = nn.Linear(inputs, pieces * outputs)

    def forward(self, x_BF: Tensor) -> Tensor:
        return self.linear(x_BF).unflatten(-1, (-1, self.pieces)).amax(-1)


class GAN(Adversarial):
    """hidden, discriminator: widths of the hidden layers of both. latent_dim, latent: how many numbers a sample is made
    of, and their distribution, uniform in (-1, 1) or standard normal.

    loss: non_saturating, minimax, least_squares or wasserstein. penalty: factor of the gradient penalty; critic_steps:
    turns of the discriminator for one of the generator. pieces: of maxout units in the discriminator; 0: leaky ReLUs.
    dropout: rate after its hidden layers. Images are in [-1, 1], of a tanh.
    """

    def __init__(
        self,
        *,
        spec: Images | Points,
        latent_dim: int = 100,
        latent: Literal["uniform", "normal"] = "uniform",
        hidden: tuple[int, ...] = (1200, 1200),
        discriminator: tuple[int, ...] = (240, 240),
        pieces: int = 5,
        dropout: float = 0.5,
        loss: Literal["non_saturating", "minimax", "least_squares", "wasserstein"] = "non_saturating",
        penalty: float = 0.0,
        critic_steps: int = 1,
    ) -> None:
        super().__init__(spec=spec)
        checks.at_least(1, latent_dim=latent_dim)
        checks.one_of(("uniform", "normal"), latent=latent)
        checks.at_least(0, pieces=pieces)
        checks.between("[0, 1)", dropout=dropout)
        for name, widths in (("hidden", hidden), ("discriminator", discriminator)):
            if not widths or min(widths) < 1:
                raise ValueError(f"{name} must hold widths of at least 1, got {list(widths)}")
        self.choose_loss(loss, penalty, critic_steps)
        self.latent_dim, self.latent = latent_dim, latent
        size = math.prod(self.input.shape)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((latent_dim, *hidden)):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        layers += [nn.Linear(hidden[-1], size), *([nn.Tanh()] if isinstance(self.input, Image) else [])]
        self.generator = nn.Sequential(*layers, nn.Unflatten(-1, self.input.shape))
        layers = []
        for inputs, outputs in pairwise((size, *discriminator)):
            layers += [Maxout(inputs, outputs, pieces)] if pieces else [nn.Linear(inputs, outputs), nn.LeakyReLU(0.2)]
            layers += [nn.Dropout(dropout)] if dropout else []
        self.discriminator = nn.Sequential(nn.Flatten(), *layers, nn.Linear(discriminator[-1], 1))

    def draw_latent(self, count: int) -> Tensor:
        if self.latent == "normal":
            return super().draw_latent(count)
        return 2 * torch.rand(count, self.latent_dim, device=self.device) - 1

    def latent_rows(self, index_B: Tensor) -> Tensor:
        if self.latent == "normal":
            return normal_rows("latent", index_B, self.latent_dim)
        return 2 * uniform_rows("latent", index_B, self.latent_dim) - 1
