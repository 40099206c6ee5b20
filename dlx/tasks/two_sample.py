"""Whether two sets of points come from one distribution, and how far apart they are.

The first by the maximum mean discrepancy and its permutation test, the second by the sliced Wasserstein distance.

Gretton et al. 2012, JMLR 13. The kernel is the mean of exp(-|a - b|^2 / (s m)) over s in SCALES, with m the mean of
|a - b|^2 over pairs of the second set: it sees differences of the whole spread and of a tenth of it alike.
Shapes: N, M points, Z numbers of a point.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCALES = (1.0, 0.1, 0.01)
AT_A_TIME = 1024  # rows of the kernel's matrix


def mmd(a_NZ: Tensor, b_MZ: Tensor) -> float:
    """The unbiased estimate of the squared MMD, 0 on average for one distribution; it can be below 0."""
    bandwidth = _bandwidth(b_MZ)
    count, other = len(a_NZ), len(b_MZ)
    within = _kernel_sum(a_NZ, a_NZ, bandwidth) - count, _kernel_sum(b_MZ, b_MZ, bandwidth) - other  # k(a, a) = 1
    across = _kernel_sum(a_NZ, b_MZ, bandwidth)
    return within[0] / (count * (count - 1)) + within[1] / (other * (other - 1)) - 2 * across / (count * other)


def permutation_test(a_NZ: Tensor, b_MZ: Tensor, *, permutations: int = 200, seed: int = 0) -> float:
    """p: the share of random divisions of all points into two such sets whose MMD is as large as that of these.

    The kernel's matrix of all points is kept: for some thousands at most.
    """
    points = torch.cat([a_NZ, b_MZ]).double()
    kernel = _kernel(points, points, _bandwidth(b_MZ)).fill_diagonal_(0)
    count, total = len(a_NZ), len(points)
    generator = torch.Generator().manual_seed(seed)
    own = torch.zeros(total, permutations + 1, dtype=torch.float64)
    own[:count, 0] = 1
    for column in range(1, permutations + 1):
        own[torch.randperm(total, generator=generator)[:count], column] = 1
    own, other = own.to(points.device), 1 - own.to(points.device)
    first, second = ((part * (kernel @ part)).sum(0) for part in (own, other))
    across = (own * (kernel @ other)).sum(0)
    rest = total - count
    found = first / (count * (count - 1)) + second / (rest * (rest - 1)) - 2 * across / (count * rest)
    return float((found >= found[0] - 1e-12).double().mean())


def sliced_wasserstein(a_NZ: Tensor, b_NZ: Tensor, *, directions: int = 256, seed: int = 0) -> float:
    """The mean over random directions of the Wasserstein distance of both sets along it (Rabin et al. 2011): in one
    dimension the mean distance of the sorted points. The sets are equally large."""
    if len(a_NZ) != len(b_NZ):
        raise ValueError(f"b_NZ must have {len(a_NZ)} points, got {len(b_NZ)}")
    generator = torch.Generator().manual_seed(seed)
    lines_ZR = torch.randn(a_NZ.shape[1], directions, generator=generator, dtype=torch.float64).to(a_NZ.device)
    lines_ZR = lines_ZR / lines_ZR.norm(dim=0)
    seen = [(points.double() @ lines_ZR).sort(0).values for points in (a_NZ, b_NZ)]
    return float((seen[0] - seen[1]).abs().mean())


def _bandwidth(b_MZ: Tensor) -> Tensor:
    """Mean squared distance of two different points of a set."""
    return 2 * b_MZ.double().var(0).sum()


def _kernel(a_NZ: Tensor, b_MZ: Tensor, bandwidth: Tensor) -> Tensor:
    squares = torch.cdist(a_NZ.double(), b_MZ.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    return torch.stack([(-squares / (scale * bandwidth)).exp() for scale in SCALES]).mean(0)


def _kernel_sum(a_NZ: Tensor, b_MZ: Tensor, bandwidth: Tensor) -> float:
    starts = range(0, len(a_NZ), AT_A_TIME)
    return sum(float(_kernel(a_NZ[start : start + AT_A_TIME], b_MZ, bandwidth).sum()) for start in starts)
