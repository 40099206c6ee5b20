"""Distributions of codes that can be drawn from, and need no density (Makhzani et al. 2015, arXiv:1511.05644).

Each is a function of standard normal numbers [N, Z] and uniform ones [N], which may come from a generator or from
counters. Shapes: N draws, Z numbers of a code.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

MODES = 8
RADIUS = 3.0  # of the circle on which the modes lie
WIDTH = 0.4  # of a mode
TURNS = 2.0
THICKNESS = 0.12  # of the roll


def gaussian(normal_NZ: Tensor, uniform_N: Tensor) -> Tensor:
    """Standard normal numbers."""
    return normal_NZ


def mixture(normal_NZ: Tensor, uniform_N: Tensor) -> Tensor:
    """Eight round Gaussians on a circle of the first two numbers; further numbers are standard normal."""
    angle_N = (uniform_N * MODES).floor() * (2 * math.pi / MODES)
    centre_N2 = RADIUS * torch.stack([angle_N.cos(), angle_N.sin()], -1)
    return torch.cat([centre_N2 + WIDTH * normal_NZ[:, :2], normal_NZ[:, 2:]], -1)


def swiss_roll(normal_NZ: Tensor, uniform_N: Tensor) -> Tensor:
    """A spiral of two turns, even in its length, of two numbers."""
    share_N = uniform_N.sqrt()  # the length of a spiral grows with the square of its radius
    angle_N = 2 * math.pi * TURNS * share_N
    line_N2 = RADIUS * share_N.unsqueeze(-1) * torch.stack([angle_N.cos(), angle_N.sin()], -1)
    return line_N2 + THICKNESS * normal_NZ


PRIORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gaussian": gaussian,
    "mixture": mixture,
    "swiss_roll": swiss_roll,
}


def check_prior(prior: str, latent_dim: int) -> None:
    """Raises ValueError naming `prior` for an unknown one, or one that codes of this size cannot have."""
    if prior not in PRIORS:
        *first, last = PRIORS
        raise ValueError(f"prior must be {', '.join(first)} or {last}, got {prior!r}")
    if prior == "mixture" and latent_dim < 2:
        raise ValueError(f"prior mixture needs latent_dim of at least 2, got {latent_dim}")
    if prior == "swiss_roll" and latent_dim != 2:
        raise ValueError(f"prior swiss_roll needs latent_dim of 2, got {latent_dim}")
