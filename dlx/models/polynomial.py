"""Polynomial regression of one variable (Legendre 1805; Gauss 1809): least squares in closed form.

`degree` is its capacity, the knob of the course's plots of under- and overfitting. The sums are over Legendre
polynomials instead of powers of x: the same functions, but of a size, so that a high degree is no numerical trouble.
Shapes: N samples, D outputs, P = degree + 1 coefficients.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from dlx.config import checks
from dlx.tasks.spec import RegressionReals
from dlx.tasks.supervised import Supervised, training_samples
from dlx.tasks.system import Objective


def legendre(x_B: Tensor, degree: int) -> Tensor:
    """The polynomials P_0 .. P_degree at x, [B, P]: (n + 1) P_n+1 = (2 n + 1) x P_n - n P_n-1."""
    values = [torch.ones_like(x_B), x_B]
    for n in range(1, degree):
        values.append(((2 * n + 1) * x_B * values[n] - n * values[n - 1]) / (n + 1))
    return torch.stack(values[: degree + 1], dim=1)


class Polynomial(Supervised):
    """degree: the highest power of x. penalty: ridge; it times the sum of squares of the coefficients (of the Legendre
    polynomials, on the interval of the training data as [-1, 1], without the constant) is added to the mean squared
    error."""

    def __init__(self, *, spec: RegressionReals, degree: int = 5, penalty: float = 0.0) -> None:
        super().__init__(spec=spec)
        checks.at_least(0, degree=degree, penalty=penalty)
        if self.num_features != 1:
            raise ValueError(f"a polynomial is of one feature, the data have {self.num_features}")
        self.degree, self.penalty = degree, penalty
        self.interval = nn.Buffer(torch.tensor([0.0, 1.0]))  # its middle and half its length
        self.coefficients = nn.Buffer(torch.zeros(degree + 1, self.num_outputs))

    def objectives(self, stage: int = 0) -> list[Objective]:
        return []

    def _basis(self, x_B1: Tensor) -> Tensor:
        middle, half = self.interval.to(x_B1.dtype)
        return legendre((x_B1[:, 0] - middle) / half, self.degree)

    def forward(self, x_B1: Tensor) -> Tensor:
        return self._basis(x_B1) @ self.coefficients

    def fit(self, data: Any) -> None:
        x, target, weight_N = training_samples(data, self)
        x_N1, target_ND = x.double(), target.double()
        low, high = x_N1.aminmax()
        self.interval.copy_(torch.stack([(low + high) / 2, (high - low) / 2 if high > low else low.new_ones(())]))
        root_N1 = (weight_N / weight_N.sum()).sqrt().unsqueeze(1)
        ridge_PP = math.sqrt(self.penalty) * torch.eye(self.degree + 1, dtype=torch.float64)
        ridge_PP[0] = 0
        rows = torch.cat([root_N1 * self._basis(x_N1), ridge_PP])
        aims = torch.cat([root_N1 * target_ND, target_ND.new_zeros(self.degree + 1, target_ND.shape[1])])
        # gelsd: where there are more coefficients than samples, the smallest ones that fit.
        self.coefficients.copy_(torch.linalg.lstsq(rows, aims, driver="gelsd").solution)
