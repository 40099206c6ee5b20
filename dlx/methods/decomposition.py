"""Bias and variance of predictors from several training sets, on the same points.

Shapes: M predictors, N points, D target dimensions, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def squared(output_MND: Tensor, target_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The squared error at each point, mean over target dimensions, and its parts: error, bias2, variance, [N] each.

    error = bias2 + variance, exactly. The mean of M predictors still varies, by variance / M; that is taken out of
    bias2, which may thus be a little negative where the bias is 0. Both are unbiased estimates: variance has M - 1 in
    its denominator. With noise in the targets, bias2 has the noise's variance too.
    """
    output_MND, target_ND = output_MND.double(), target_ND.double()
    variance_N = output_MND.var(0).mean(-1)
    distance_N = (output_MND.mean(0) - target_ND).square().mean(-1)
    error_N = (output_MND - target_ND).square().mean((0, -1))
    return error_N, distance_N - variance_N / len(output_MND), variance_N


def measure_error(
    output_MND: Tensor, target_ND: Tensor, noise: float, rng: torch.Generator
) -> tuple[float, float, float]:
    """The error against noisy targets, `rest` = error - (bias2 + variance + noise^2), and the standard error of rest.

    Noise of this standard deviation is drawn for each predictor and point: rest is the mean of
    e^2 - noise^2 - 2 e (output - target), whose terms are independent.
    """
    output_MND, target_ND = output_MND.double(), target_ND.double()
    drawn_MND = noise * torch.randn(output_MND.shape, generator=rng, dtype=torch.float64)
    rest_MND = drawn_MND.square() - noise**2 - 2 * drawn_MND * (output_MND - target_ND)
    error = (output_MND - target_ND - drawn_MND).square().mean()
    return float(error), float(rest_MND.mean()), float(rest_MND.std() / rest_MND.numel() ** 0.5)


def zero_one(label_MN: Tensor, truth_N: Tensor) -> dict[str, Tensor]:
    """The 0-1 loss at each point and its parts, [N] each (Domingos 2000, A Unified Bias-Variance Decomposition), for
    labels without noise: error = bias + variance_unbiased - variance_biased, exactly.

    bias: 1 where the main prediction is wrong: the predictors' mode, the lowest of several. variance: the share of
    predictors that differ from it. variance_unbiased: the variance where the main prediction is right and variance
    costs. variance_biased: the error that variance saves where it is wrong: the share of predictors that differ and
    are right.
    """
    classes = int(max(label_MN.max(), truth_N.max())) + 1
    votes_NK = (label_MN.unsqueeze(-1) == torch.arange(classes)).sum(0)
    main_N = votes_NK.argmax(1)
    differs_MN, right_MN = label_MN != main_N, label_MN == truth_N
    variance_N = differs_MN.double().mean(0)
    is_wrong_N = main_N != truth_N
    return {
        "bias": is_wrong_N.double(),
        "variance": variance_N,
        "variance_unbiased": variance_N * ~is_wrong_N,
        "variance_biased": (differs_MN & right_MN).double().mean(0) * is_wrong_N,
        "error": (~right_MN).double().mean(0),
    }
