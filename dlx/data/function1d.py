"""Regression of a function of one variable, with Gaussian noise of a known size."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from dlx.config import checks
from dlx.data.dataset import Dataset, Source, TensorSource
from dlx.random import generator
from dlx.tasks.spec import Reals, RegressionReals

FUNCTIONS = {
    "sin": lambda x: torch.sin(3 * math.pi * x),
    "step": lambda x: (x > 0).float(),
    "abs": torch.abs,
    "polynomial": lambda x: 4 * x**3 - 3 * x,
    "sinc": lambda x: torch.sinc(4 * x),
}


class Function1D(Dataset):
    """y = f(x) + noise, x uniform in [low, high]; test is the function itself on an even grid of 1,000 points.

    function: sin is sin(3 pi x), polynomial is 4 x^3 - 3 x, sinc is sin(4 pi x) / (4 pi x).
    noise: its standard deviation. data_seed: draws x and the noise, whatever the run's seed.
    """

    spec: RegressionReals = RegressionReals(features=Reals(names=("x",)), target=Reals(names=("y",)))

    def __init__(
        self,
        *,
        function: Literal["sin", "step", "abs", "polynomial", "sinc"] = "sin",
        samples: int = 1024,
        noise: float = 0.0,
        low: float = -1.0,
        high: float = 1.0,
        data_seed: int = 0,
    ) -> None:
        checks.one_of(FUNCTIONS, function=function)
        checks.at_least(10, samples=samples)
        checks.at_least(0, noise=noise)
        if not low < high:
            raise ValueError(f"low must be below high ({high}), got {low}")
        self.function, self.samples, self.noise = function, samples, noise
        self.low, self.high, self.data_seed = low, high, data_seed

    def _source(self, x_N1: Tensor, noise_N1: Tensor | float) -> Source:
        return TensorSource(features=x_N1, target=FUNCTIONS[self.function](x_N1) + noise_N1)

    def splits(self) -> dict[str, Source]:
        rng = generator(self.data_seed, "function1d")
        x_N1 = torch.rand(self.samples, 1, generator=rng) * (self.high - self.low) + self.low
        noise_N1 = torch.randn(self.samples, 1, generator=rng) * self.noise
        grid_N1 = torch.linspace(self.low, self.high, 1000).unsqueeze(1)
        return {"train": self._source(x_N1, noise_N1), "test": self._source(grid_N1, 0.0)}
