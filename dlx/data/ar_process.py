"""An autoregressive process (Yule 1927): x_t = c_1 x_{t-1} + ... + c_n x_{t-n} + noise, with known coefficients."""

from __future__ import annotations

import torch
from torch import Tensor

from dlx.config import checks
from dlx.data.dataset import Dataset, Source, Windows
from dlx.random import generator
from dlx.tasks.spec import RealSequence, Series

FORGOTTEN = 1000  # steps before the first that is kept


class ARProcess(Dataset):
    """One series of `size` steps to train on; another of a fifth of that validates and a third tests.

    coefficients: of the values 1, 2, ... steps before. noise: standard deviation of what is added at each step; no
    model's mean squared error can be below its square but by chance. length: steps of a window; neighbours share one.
    data_seed: draws the noise, whatever the run's seed.
    """

    def __init__(
        self,
        *,
        coefficients: tuple[float, ...] = (0.75, -0.5),
        noise: float = 1.0,
        size: int = 10_000,
        length: int = 64,
        data_seed: int = 0,
    ) -> None:
        checks.above(0, noise=noise)
        checks.at_least(2, length=length)
        coefficients = tuple(coefficients)
        if not coefficients:
            raise ValueError("coefficients must be at least one number, got none")
        if (root := largest_root(coefficients)) >= 1:
            raise ValueError(
                f"coefficients must be those of a stationary process, got {coefficients} (largest root {root:.3g}, not "
                "below 1)"
            )
        if size < 5 * length:
            raise ValueError(f"size must be at least five windows ({5 * length}), got {size}")
        self.coefficients, self.noise = coefficients, noise
        self.size, self.length, self.data_seed = size, length, data_seed
        self.spec: Series = Series(series=RealSequence(length=length))

    def _draw(self, count: int, name: str) -> Tensor:
        """[count, 1]."""
        rng = generator(self.data_seed, f"ar {name}")
        values = [0.0] * len(self.coefficients)
        for shock in torch.randn(count + FORGOTTEN, dtype=torch.float64, generator=rng).tolist():
            past = values[: -len(self.coefficients) - 1 : -1]
            values.append(sum(c * x for c, x in zip(self.coefficients, past, strict=True)) + self.noise * shock)
        return torch.tensor(values[-count:], dtype=torch.float32).unsqueeze(1)

    def splits(self) -> dict[str, Source]:
        sizes = {"train": self.size, "val": self.size // 5, "test": self.size // 5}
        return {
            name: Windows(self._draw(count, name), self.length, stride=self.length - 1, name="series")
            for name, count in sizes.items()
        }


def largest_root(coefficients: tuple[float, ...]) -> float:
    """The largest absolute eigenvalue of the companion matrix: below 1 the process forgets where it began."""
    order = len(coefficients)
    companion = torch.diag(torch.ones(order - 1, dtype=torch.float64), -1)
    companion[0] = torch.tensor(coefficients, dtype=torch.float64)
    return float(torch.linalg.eigvals(companion).abs().max())
