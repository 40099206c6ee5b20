"""Draws: the random tensors of a forward pass, found out once, then drawn ahead of it for each member of a stack.

Inside `torch.func.vmap` one generator serves all members. So a forward pass is first run once to see which random
tensors it asks for; for each step they are drawn member by member, in the same order and from the same counters as the
member would alone, and the stacked pass is given them in place of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_DROPOUT = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)
_LIKE = (torch.rand_like, torch.randn_like)
_FRESH = (torch.rand, torch.randn, torch.randint, torch.randperm)


@dataclass(frozen=True)
class Draw:
    """One random tensor: a call that is repeated for each member."""

    call: Callable[..., Tensor]
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> Tensor:
        return self.call(*self.arguments, **self.options)


def _rate(arguments: Sequence[Any], options: Mapping[str, Any]) -> float:
    """The rate of a dropout call, 0 where it changes nothing."""
    rate = options.get("p", arguments[1] if len(arguments) > 1 else 0.5)
    training = options.get("training", arguments[2] if len(arguments) > 2 else True)
    return rate if training else 0.0


class _Random(TorchFunctionMode):
    """Hands each random call to `draw`; of dropout it is the mask, which the input is then multiplied with."""

    def draw(self, draw: Draw) -> Tensor:
        raise NotImplementedError

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if func in _DROPOUT:
            x = args[0] if args else options["input"]
            rate = _rate(args, options)
            # Like the input in memory too: the mask is drawn in that order.
            return x * self.draw(Draw(func, (torch.ones_like(x), rate, True))) if rate else x
        if func in _LIKE:
            return self.draw(Draw(func, (torch.empty_like(args[0]), *args[1:]), options))
        if func in _FRESH:
            return self.draw(Draw(func, args, options))
        return func(*args, **options)


class Recording(_Random):
    """`found`: the draws of what runs inside, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Draw] = []

    def draw(self, draw: Draw) -> Tensor:
        self.found.append(draw)
        return draw()


class Given(_Random):
    """What runs inside gets these tensors in place of what it would draw."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        self._next = iter(tensors)

    def draw(self, draw: Draw) -> Tensor:
        return next(self._next)
