"""The copying problem (Hochreiter & Schmidhuber 1997; as Arjovsky et al. 2016, arXiv:1511.06464): symbols are to be
written again after a long time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlx.config import checks
from dlx.data.dataset import Dataset, Source, TensorSource
from dlx.random import generator
from dlx.tasks.spec import TaggedTokens, TokenLabels, Tokens
from dlx.tasks.tokenizer import Characters

SYMBOLS, COPIED = 8, 10
BLANK, GO = 0, SYMBOLS + 1


class CopyMemory(Dataset):
    """Ten symbols, of eight kinds, then `delay` - 1 blanks, the mark to go, ten blanks: [B, delay + 20].

    The labels are blank but for the last ten, which are the symbols again. All positions count, as in the literature:
    who knows where the symbols go, but none of them, has the loss `baseline`. samples: to train on; a tenth of that
    validates and another tests. data_seed: draws them, whatever the run's seed.
    """

    def __init__(self, *, delay: int = 50, samples: int = 20_000, data_seed: int = 0) -> None:
        checks.at_least(1, delay=delay)
        checks.at_least(10, samples=samples)
        self.delay, self.samples, self.data_seed = delay, samples, data_seed
        length = delay + 2 * COPIED
        names = [str(number) for number in range(1, SYMBOLS + 1)]
        tokenizer = Characters("".join(["_", *names, ">"]))
        self.spec: TaggedTokens = TaggedTokens(
            tokens=Tokens(vocabulary=tokenizer.size, length=length, tokenizer=tokenizer.to_json()),
            labels=TokenLabels(classes=("_", *names), length=length),
        )

    @property
    def baseline(self) -> float:
        """10 ln 8 / (delay + 20), in nats."""
        return COPIED * math.log(SYMBOLS) / (self.delay + 2 * COPIED)

    def _source(self, count: int, name: str) -> Source:
        rng = generator(self.data_seed, f"copy {name}")
        symbols_NS = torch.randint(1, SYMBOLS + 1, (count, COPIED), generator=rng)
        tokens_NL = torch.full((count, self.delay + 2 * COPIED), BLANK)
        labels_NL: Tensor = tokens_NL.clone()
        tokens_NL[:, :COPIED] = symbols_NS
        tokens_NL[:, COPIED + self.delay - 1] = GO
        labels_NL[:, -COPIED:] = symbols_NS
        return TensorSource(tokens=tokens_NL.to(torch.uint8), labels=labels_NL.to(torch.uint8))

    def splits(self) -> dict[str, Source]:
        held = max(1, self.samples // 10)
        return {name: self._source(n, name) for name, n in {"train": self.samples, "val": held, "test": held}.items()}
