"""Exponential moving average of weights (Polyak averaging)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """Follows parameters; buffers are the module's own.

    The decay starts small, min(decay, (1 + t) / (10 + t)), so that a short run is not an average with its start.
    """

    def __init__(self, params: Sequence[nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.params: list[Tensor] = list(params)
        self.shadow: list[Tensor] = [p.detach().clone() for p in self.params]

    @torch.no_grad()
    def update(self, step: int) -> None:
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.shadow, [p.detach() for p in self.params], weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module has the averaged weights inside."""
        own = [p.detach().clone() for p in self.params]
        with torch.no_grad():
            torch._foreach_copy_(self.params, self.shadow)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.params, own)
