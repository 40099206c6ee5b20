"""Strings of random letters, and the same backwards: a translation that needs the whole source (Sutskever et al. 2014
found that its direction matters)."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

import torch

from dlx.config import checks
from dlx.data.pairs import FIRST, Pair, TextPairs
from dlx.random import generator
from dlx.tasks.tokenizer import Characters

if TYPE_CHECKING:
    from dlx.tasks.tokenizer import Tokenizer


class Reverse(TextPairs):
    """Strings of `shortest` to `longest` of the first `symbols` letters, no two alike, and the same backwards.

    samples: in all, a fifth to test and a tenth of the rest to validate. data_seed: draws them, whatever the run's
    seed.
    """

    def __init__(
        self, *, samples: int = 20_000, shortest: int = 8, longest: int = 12, symbols: int = 20, data_seed: int = 0
    ) -> None:
        checks.at_least(10, samples=samples)
        checks.at_least(1, shortest=shortest)
        checks.at_least(shortest, longest=longest)
        checks.between("[2, 26]", symbols=symbols)
        there = sum(symbols**length for length in range(shortest, longest + 1))
        if samples > there // 2:
            raise ValueError(f"samples must be at most {there // 2}, half of the strings that there are, got {samples}")
        self.samples, self.symbols, self.data_seed = samples, symbols, data_seed
        self.lengths = (shortest, longest)

    def pairs(self) -> dict[str, list[Pair]]:
        rng = generator(self.data_seed, "reverse")
        shortest, longest = self.lengths
        found: dict[str, None] = {}
        while len(found) < self.samples:
            length = torch.randint(shortest, longest + 1, (self.samples,), generator=rng).tolist()
            letters = torch.randint(self.symbols, (self.samples, longest), generator=rng).tolist()
            for size, row in zip(length, letters, strict=True):
                found["".join(string.ascii_lowercase[letter] for letter in row[:size])] = None
        return {"train": [(text, text[::-1]) for text in list(found)[: self.samples]]}

    def tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        return (Characters(string.ascii_lowercase[: self.symbols], FIRST),) * 2

    def longest(self) -> tuple[int, int]:
        return self.lengths[1] + 1, self.lengths[1] + 2
