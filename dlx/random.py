"""Counter-based randomness: every draw is a function of (seed, scope, counters), so nothing of it needs saving.

Before each scope the default generators are reseeded with a hash of the run's seed, the scope's name and its
counters (step, micro-batch, rank). Training then does not depend on how often one evaluates or samples, a resumed
run draws what the uninterrupted one would have drawn, and a member of a batched plan draws what it would draw alone.
"""

from __future__ import annotations

import math
import zlib
from functools import cache

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


@cache
def _scope_id(scope: str) -> int:
    return zlib.crc32(scope.encode())


def derive(seed: int, scope: str, *counters: int) -> int:
    """A 63-bit seed from a run's seed, a scope and counters (splitmix64, Steele et al. 2014, over each in turn)."""
    x = seed & _MASK
    for value in (_scope_id(scope), *counters):
        x = (x ^ value) + 0x9E3779B97F4A7C15 & _MASK
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
        x ^= x >> 31
    return x >> 1


def generator(seed: int, scope: str, *counters: int) -> torch.Generator:
    """A CPU generator of its own for a scope (data order, splits)."""
    return torch.Generator().manual_seed(derive(seed, scope, *counters))


def reseed(seed: int, scope: str, *counters: int, device: torch.device | None = None) -> None:
    """Reseeds the default generator, and the device's. Not `torch.manual_seed`: 189 µs against 1.3 µs, measured."""
    value = derive(seed, scope, *counters)
    torch.default_generator.manual_seed(value)
    if device is not None and device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(value)
    elif device is not None and device.type == "mps":
        torch.mps.manual_seed(value)


# Draws by row: functions of a scope's name and of each sample's index alone, so that they depend neither on the batch
# that a sample is in nor on the process, and torch.func.vmap takes them.

_GOLDEN, _FIRST, _SECOND = (c - (1 << 64) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _mix(x: Tensor) -> Tensor:
    """splitmix64's finalizer on int64, whose products wrap; shifts of what is signed are masked."""
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * _FIRST
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * _SECOND
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def uniform_rows(scope: str, index: Tensor, *shape: int) -> Tensor:
    """Numbers in (0, 1), float32 [B, *shape], a row for each sample's `index` (int64 [B]).

    Two draws for one sample need scopes of two names: the same name gives the same numbers, also to `normal_rows`.
    """
    count = math.prod(shape)
    rows_B1 = _mix(index.unsqueeze(-1) * _GOLDEN + _scope_id(scope))
    x_BN = _mix(rows_B1 + torch.arange(1, count + 1, device=index.device) * _GOLDEN)
    top_BN = (x_BN >> 41) & ((1 << 23) - 1)  # 23 bits: with the half that keeps them off 0 and 1 what a float32 holds
    u_BN = (top_BN.float() + 0.5) / (1 << 23)
    return u_BN.unflatten(-1, shape) if shape else u_BN[..., 0]


def normal_rows(scope: str, index: Tensor, *shape: int) -> Tensor:
    """Standard normal numbers, float32 [B, *shape], as `uniform_rows`."""
    return torch.special.ndtri(uniform_rows(scope, index, *shape))
