"""Bias and variance of predictors from several training sets, on the same points.

Shapes: M predictors, N points, D target dimensions, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Squared:
    """Squared loss at each point, mean over target dimensions, [N]: error = bias2 + variance, exactly.

    The mean of M predictors still varies, by variance / M; that is taken out of bias2, which may thus be a little
    negative where the bias is 0. Both are unbiased estimates: variance has M - 1 in its denominator.
    """

    error: Tensor
    bias2: Tensor
    variance: Tensor


def squared(output_MND: Tensor, target_ND: Tensor) -> Squared:
    """Against targets without noise; with noise in them, bias2 has the noise's variance too."""
    output_MND, target_ND = output_MND.double(), target_ND.double()
    variance_N = output_MND.var(0).mean(-1)
    distance_N = (output_MND.mean(0) - target_ND).square().mean(-1)
    error_N = (output_MND - target_ND).square().mean((0, -1))
    return Squared(error_N, distance_N - variance_N / len(output_MND), variance_N)


@dataclass(frozen=True)
class Noisy:
    """The error against noisy targets, `rest` = error - (bias2 + variance + noise), and the standard error of rest."""

    error: float
    rest: float
    standard_error: float


def measure_error(output_MND: Tensor, target_ND: Tensor, noise: float, rng: torch.Generator) -> Noisy:
    """Noise of this standard deviation is drawn for each predictor and point: error - (bias2 + variance + noise^2) is
    the mean of e^2 - noise^2 - 2 e (output - target), whose terms are independent."""
    output_MND, target_ND = output_MND.double(), target_ND.double()
    drawn_MND = noise * torch.randn(output_MND.shape, generator=rng, dtype=torch.float64)
    rest_MND = drawn_MND.square() - noise**2 - 2 * drawn_MND * (output_MND - target_ND)
    error = (output_MND - target_ND - drawn_MND).square().mean()
    return Noisy(float(error), float(rest_MND.mean()), float(rest_MND.std() / rest_MND.numel() ** 0.5))


@dataclass(frozen=True)
class ZeroOne:
    """0-1 loss at each point, [N] (Domingos 2000, A Unified Bias-Variance Decomposition), for labels without noise.

    bias: 1 where the main prediction, the predictors' mode, is wrong. variance: the share of predictors that differ
    from it. Where the main prediction is right, variance costs (c2 = 1). Where it is wrong, variance helps as far as
    the differing predictors are right (c2 = -P(y = t | y != main); -1 with two classes). error = bias + c2 variance,
    exactly.
    """

    error: Tensor
    bias: Tensor
    variance: Tensor
    c2: Tensor

    @property
    def unbiased(self) -> Tensor:
        """The variance where the main prediction is right, [N]; 0 elsewhere."""
        return self.variance * (self.bias == 0)

    @property
    def biased(self) -> Tensor:
        """The error that variance saves where the main prediction is wrong, [N]; 0 elsewhere."""
        return -self.c2 * self.variance * (self.bias == 1)


def zero_one(label_MN: Tensor, truth_N: Tensor) -> ZeroOne:
    """The main prediction is the lowest label of several modes."""
    classes = int(max(label_MN.max(), truth_N.max())) + 1
    votes_NK = (label_MN.unsqueeze(-1) == torch.arange(classes)).sum(0)
    main_N = votes_NK.argmax(1)
    differs_MN, right_MN = label_MN != main_N, label_MN == truth_N
    right_of_differing_N = (differs_MN & right_MN).sum(0) / differs_MN.sum(0).clamp_min(1)
    bias_N = (main_N != truth_N).double()
    c2_N = torch.where(bias_N == 0, 1.0, -right_of_differing_N.double())
    return ZeroOne((~right_MN).double().mean(0), bias_N, differs_MN.double().mean(0), c2_N)
