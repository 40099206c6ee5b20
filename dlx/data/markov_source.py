"""A Markov source of order k with a random table, whose entropy is known (Shannon 1948)."""

from __future__ import annotations

import string
from bisect import bisect
from functools import cached_property

import torch
from torch import Tensor

from dlx.config import checks
from dlx.data.dataset import Dataset, Source, Windows
from dlx.data.text import MARKED, smallest
from dlx.random import generator
from dlx.tasks.spec import Streams, Tokens
from dlx.tasks.tokenizer import Characters

UNIFORM = 0.05  # of each row, so that every state is reached and the stationary distribution is one
MOST = 1 << 22  # numbers of a table


class MarkovSource(Dataset):
    """Letters, of which each depends on the `order` before it alone.

    symbols: how many letters. concentration: of the Dirichlet distribution that each row of the table is drawn from;
    the smaller, the fewer letters are probable after a context. size: letters to train on; a quarter of that validates
    and another tests. length: letters of a window; neighbours share one. marks: tokens 0 to 3 are padding, begin, end
    and mask, as BERT needs them; windows hold none. data_seed: draws the table and the letters, whatever the run's
    seed.

    No model's mean loss can be below `entropy` but by chance.
    """

    def __init__(
        self,
        *,
        order: int = 1,
        symbols: int = 8,
        concentration: float = 0.3,
        size: int = 200_000,
        length: int = 64,
        marks: bool = False,
        data_seed: int = 0,
    ) -> None:
        checks.at_least(0, order=order)
        checks.at_least(2, symbols=symbols, length=length)
        checks.above(0, concentration=concentration)
        if symbols > len(string.ascii_letters):
            raise ValueError(f"symbols must be at most {len(string.ascii_letters)}, got {symbols}")
        if symbols ** (order + 1) > MOST:
            raise ValueError(f"order must be lower: {symbols} symbols have {symbols}^{order} contexts")
        if size < 4 * length:
            raise ValueError(f"size must be at least four windows ({4 * length}), got {size}")
        self.order, self.symbols, self.concentration = order, symbols, concentration
        self.size, self.length, self.marks, self.data_seed = size, length, marks, data_seed

    @property
    def first(self) -> int:
        """The token of the first letter."""
        return len(MARKED) if self.marks else 0

    @cached_property
    def spec(self) -> Streams:  # type: ignore[override]
        tokenizer = Characters(string.ascii_letters[: self.symbols], self.first)
        marks = MARKED if self.marks else {}
        return Streams(
            tokens=Tokens(vocabulary=tokenizer.size, length=self.length, tokenizer=tokenizer.to_json(), **marks)
        )

    @cached_property
    def table(self) -> Tensor:
        """The probability of each letter after each context (the oldest letter counts most), float64 [V^k, V]."""
        rng = generator(self.data_seed, "markov table")
        shape = (self.symbols**self.order, self.symbols)
        # A gamma variate of a small shape a is one of shape a + 1 times u^(1/a) (Marsaglia & Tsang 2000); torch's takes
        # the generator.
        shape_SV = torch.full(shape, self.concentration + 1, dtype=torch.float64)
        gamma_SV = torch._standard_gamma(shape_SV, generator=rng)
        u_SV = torch.rand(shape, dtype=torch.float64, generator=rng).clamp_min(1e-300)
        log_SV = gamma_SV.log() + u_SV.log() / self.concentration
        return (1 - UNIFORM) * log_SV.softmax(1) + UNIFORM / self.symbols

    @cached_property
    def stationary(self) -> Tensor:
        """The share of each context in an endless text, float64 [V^k]."""
        states, v = self.symbols**self.order, self.symbols
        p_S = torch.full((states,), 1 / states, dtype=torch.float64)
        for _ in range(10_000):
            joint_SV = p_S.unsqueeze(1) * self.table
            # A context forgets its oldest letter and takes the new one: [v, S / v, v] summed over the first.
            after_S = joint_SV.view(v, -1, v).sum(0).flatten() if self.order else joint_SV.sum().view(1)
            if (after_S - p_S).abs().sum() < 1e-14:
                break
            p_S = after_S
        return p_S

    @property
    def entropy(self) -> float:
        """The entropy rate in nats: H(x_t | all before it)."""
        return float(torch.special.entr(self.table).sum(1) @ self.stationary)

    @property
    def entropy_between(self) -> float:
        """H(x_t | x_{t-1}, x_{t+1}) in nats, of order 1: what remains of a letter between two that are known."""
        if self.order != 1:
            raise ValueError(f"order must be 1 for the entropy between neighbours, got {self.order}")
        joint_ABC = self.stationary.view(-1, 1, 1) * self.table.unsqueeze(2) * self.table.unsqueeze(0)
        return float(torch.special.entr(joint_ABC).sum() - torch.special.entr(joint_ABC.sum(1)).sum())

    def _draw(self, count: int, name: str) -> Tensor:
        rng = generator(self.data_seed, f"markov {name}")
        state = int(torch.multinomial(self.stationary, 1, generator=rng))
        rows = self.table.cumsum(1).tolist()
        states, last, letters = len(rows), self.symbols - 1, []
        for u in torch.rand(count, dtype=torch.float64, generator=rng).tolist():
            letter = min(bisect(rows[state], u), last)
            letters.append(letter)
            state = (state * self.symbols + letter) % states
        return (torch.tensor(letters) + self.first).to(smallest(self.symbols + self.first))

    def splits(self) -> dict[str, Source]:
        sizes = {"train": self.size, "val": self.size // 4, "test": self.size // 4}
        return {
            name: Windows(self._draw(count, name), self.length, stride=self.length - 1) for name, count in sizes.items()
        }
