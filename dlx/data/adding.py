"""The adding problem (Hochreiter & Schmidhuber 1997): the sum of the two numbers of a sequence that are marked."""

from __future__ import annotations

import torch

from dlx.config import checks
from dlx.data.dataset import Dataset, Source, TensorSource
from dlx.random import generator
from dlx.tasks.spec import Reals, RealSequence, RegressionSequences


class Adding(Dataset):
    """Numbers uniform in [0, 1], one marked in each half: [B, length, 2], with marks 0 and 1; the target is their sum.

    Who answers the mean, 1, has the mean squared error 1/6. samples: to train on; a tenth of that validates and another
    tests. data_seed: draws them, whatever the run's seed.
    """

    def __init__(self, *, length: int = 50, samples: int = 50_000, data_seed: int = 0) -> None:
        checks.at_least(2, length=length)
        checks.at_least(10, samples=samples)
        self.length, self.samples, self.data_seed = length, samples, data_seed
        self.spec: RegressionSequences = RegressionSequences(
            sequence=RealSequence(length=length, size=2, names=("number", "marked")), target=Reals(names=("sum",))
        )

    def _source(self, count: int, name: str) -> Source:
        rng = generator(self.data_seed, f"adding {name}")
        number_NT, half = torch.rand(count, self.length, generator=rng), self.length // 2
        first_N1 = torch.randint(half, (count, 1), generator=rng)
        second_N1 = torch.randint(half, self.length, (count, 1), generator=rng)
        marked_NT = torch.zeros_like(number_NT).scatter_(1, torch.cat([first_N1, second_N1], 1), 1.0)
        sum_N1 = (number_NT * marked_NT).sum(1, keepdim=True)
        return TensorSource(sequence=torch.stack([number_NT, marked_NT], 2), target=sum_N1)

    def splits(self) -> dict[str, Source]:
        held = max(1, self.samples // 10)
        return {name: self._source(n, name) for name, n in {"train": self.samples, "val": held, "test": held}.items()}
