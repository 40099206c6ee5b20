"""A sine with noise, sin(0.01 t) + 0.2 e: the course's series, on which one step ahead is easy and many are not."""

from __future__ import annotations

import torch

from dlx.config import checks
from dlx.data.dataset import Dataset, Source, Windows
from dlx.random import generator
from dlx.tasks.spec import RealSequence, Series


class NoisySine(Dataset):
    """`size` steps, of which the first 60 % are trained on, the next 20 % validate and the last 20 % test.

    frequency: radians of a step. noise: its standard deviation. length: steps of a window; windows begin one step apart
    in training, and share one step otherwise. data_seed: draws the noise, whatever the run's seed.
    """

    def __init__(
        self,
        *,
        size: int = 1000,
        frequency: float = 0.01,
        noise: float = 0.2,
        length: int = 32,
        data_seed: int = 0,
    ) -> None:
        checks.at_least(0, noise=noise)
        checks.above(0, frequency=frequency)
        checks.at_least(2, length=length)
        if size < 5 * length:
            raise ValueError(f"size must be at least five windows ({5 * length}), got {size}")
        self.size, self.frequency, self.noise = size, frequency, noise
        self.length, self.data_seed = length, data_seed
        self.spec: Series = Series(series=RealSequence(length=length))

    def splits(self) -> dict[str, Source]:
        e_T = torch.randn(self.size, generator=generator(self.data_seed, "noisy sine"))
        x_T1 = (torch.sin(self.frequency * torch.arange(1, self.size + 1)) + self.noise * e_T).unsqueeze(1)
        a, b = self.size * 3 // 5, self.size * 4 // 5
        parts = {"train": (x_T1[:a], 1), "val": (x_T1[a:b], self.length - 1), "test": (x_T1[b:], self.length - 1)}
        return {name: Windows(x, self.length, stride=stride, name="series") for name, (x, stride) in parts.items()}
