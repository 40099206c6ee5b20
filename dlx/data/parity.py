"""Running parity of random bits: one bit of memory, for any length (Minsky & Papert 1969: no single layer has it)."""

from __future__ import annotations

import torch

from dlx.config import checks
from dlx.data.dataset import Dataset, Source, TensorSource
from dlx.random import generator
from dlx.tasks.spec import TaggedTokens, TokenLabels, Tokens
from dlx.tasks.tokenizer import Characters


class Parity(Dataset):
    """Random bits, and at each whether those up to it have an even or an odd number of ones.

    length: bits. samples: to train on; a tenth of that validates and another tests. data_seed: draws them, whatever the
    run's seed.
    """

    def __init__(self, *, length: int = 20, samples: int = 20_000, data_seed: int = 0) -> None:
        checks.at_least(2, length=length)
        checks.at_least(10, samples=samples)
        self.length, self.samples, self.data_seed = length, samples, data_seed
        tokenizer = Characters("01").to_json()
        self.spec: TaggedTokens = TaggedTokens(
            tokens=Tokens(vocabulary=2, length=length, tokenizer=tokenizer),
            labels=TokenLabels(classes=("even", "odd"), length=length),
        )

    def _source(self, count: int, name: str) -> Source:
        bits_NL = torch.randint(2, (count, self.length), generator=generator(self.data_seed, f"parity {name}"))
        return TensorSource(tokens=bits_NL.to(torch.uint8), labels=(bits_NL.cumsum(1) % 2).to(torch.uint8))

    def splits(self) -> dict[str, Source]:
        held = max(1, self.samples // 10)
        return {name: self._source(n, name) for name, n in {"train": self.samples, "val": held, "test": held}.items()}
