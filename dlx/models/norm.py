"""Normalization by name: what a model's argument `norm` chooses from."""

from __future__ import annotations

import math
from typing import Literal, get_args

from torch import nn

Norm = Literal["none", "batch", "layer", "group"]
GROUPS = 8


def make_norm(kind: str, channels: int, *, dim: int) -> nn.Module:
    """A normalization of [B, C] (dim 0) or [B, C, H, W] (dim 2).

    batch: over the batch and places (Ioffe and Szegedy 2015); layer: over one sample (Ba et al. 2016); group: over 8
    groups of its channels, or fewer where 8 does not divide them (Wu and He 2018). Raises ValueError naming `norm`.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels) if dim == 2 else nn.BatchNorm1d(channels)
    if kind == "layer":
        return nn.GroupNorm(1, channels)
    if kind == "group":
        return nn.GroupNorm(math.gcd(GROUPS, channels), channels)
    if kind != "none":
        raise ValueError(f"norm must be one of {', '.join(get_args(Norm))}, got {kind!r}")
    return nn.Identity()
