"""Encoders and decoders of a single vector, dense or convolutional, that the VAE and the AAE share.

Shapes: B batch, C channels, H height, W width, F features, Z of the code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn

from dlx.config import checks
from dlx.models.mlp import ACTIVATIONS

Network = Literal["mlp", "conv"]
Activation = Literal["relu", "tanh", "sigmoid", "gelu", "identity"]


def check_networks(shape: Sequence[int], network: str, hidden: Sequence[int], activation: str) -> None:
    """Raises ValueError naming the argument."""
    checks.one_of(("mlp", "conv"), network=network)
    checks.one_of(ACTIVATIONS, activation=activation)
    if any(width < 1 for width in hidden):
        raise ValueError(f"hidden must hold widths of at least 1, got {list(hidden)}")
    if network == "conv" and len(shape) != 3:
        raise ValueError("network conv needs images; points have network=mlp")
    if network == "conv" and not hidden:
        raise ValueError("hidden must hold at least one width for network=conv, got []")


def dense(widths: Sequence[int], activation: str) -> nn.Sequential:
    """Affine maps of these widths with the activation between."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def make_encoder(
    shape: Sequence[int], outputs: int, network: str, hidden: Sequence[int], activation: str
) -> nn.Sequential:
    """From samples [B, *shape] to [B, outputs]. hidden: widths of dense layers, or channels of convolutions that halve
    the side each; the last layer is affine."""
    if network == "mlp":
        return nn.Sequential(nn.Flatten(), *dense([math.prod(shape), *hidden, outputs], activation))
    layers: list[nn.Module] = []
    for inputs, channels in pairwise([shape[0], *hidden]):
        layers += [nn.Conv2d(inputs, channels, 3, stride=2, padding=1), ACTIVATIONS[activation]()]
    height, width = _sides(shape, len(hidden))[-1]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(hidden[-1] * height * width, outputs))


def make_decoder(
    inputs: int, shape: Sequence[int], network: str, hidden: Sequence[int], activation: str
) -> nn.Sequential:
    """From codes [B, inputs] to [B, *shape]: the mirror of the encoder, without a nonlinearity at its end."""
    if network == "mlp":
        return nn.Sequential(
            *dense([inputs, *reversed(hidden), math.prod(shape)], activation), nn.Unflatten(-1, tuple(shape))
        )
    sides = _sides(shape, len(hidden))
    height, width = sides[-1]
    layers: list[nn.Module] = [
        nn.Linear(inputs, hidden[-1] * height * width), nn.Unflatten(-1, (hidden[-1], height, width))
    ]  # fmt: skip
    channels = [*reversed(hidden), shape[0]]
    for (before, after), (height, width) in zip(pairwise(channels), reversed(sides[:-1]), strict=True):
        more = (1 - height % 2, 1 - width % 2)  # a side that was halved from an odd number is one shorter
        layers += [
            ACTIVATIONS[activation](), nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=more)
        ]  # fmt: skip
    return nn.Sequential(*layers)


def _sides(shape: Sequence[int], halvings: int) -> list[tuple[int, int]]:
    """Height and width before and after each halving."""
    sides = [(shape[1], shape[2])]
    for _ in range(halvings):
        height, width = sides[-1]
        sides.append(((height + 1) // 2, (width + 1) // 2))
    return sides
