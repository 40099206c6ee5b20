"""Records a forward pass's random calls, then draws them per member before the vmapped pass.

Inside `torch.func.vmap` one generator serves all members. So one pass is run to record which random tensors it asks
for. At each step they are drawn member by member, in the order and from the counters of the member's own run, and the
vmapped pass takes them in place of its own calls.
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
_LIKE = (torch.rand_like, torch.randn_like, torch.randint_like)
_FRESH = (torch.rand, torch.randn, torch.randint, torch.randperm)
_IN_PLACE = ("exponential_", "normal_", "uniform_", "random_", "geometric_", "log_normal_", "cauchy_")
_FILLS = {getattr(Tensor, name): name for name in _IN_PLACE}


@dataclass(frozen=True)
class Draw:
    """A random call, which is repeated for each member."""

    call: Callable[..., Tensor]
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> Tensor:
        return self.call(*self.arguments, **self.options)


def _filled(like: Tensor, name: str, *arguments: Any, **options: Any) -> Tensor:
    """A tensor of that shape, filled by a random in-place method."""
    return getattr(torch.empty_like(like), name)(*arguments, **options)


class _Random(TorchFunctionMode):
    """Passes each random call to `draw`. If the result also depends on tensors, `draw` gets the call for the random
    numbers alone, and the result is computed from them as torch does."""

    def draw(self, draw: Draw) -> Tensor:
        raise NotImplementedError

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if func in _DROPOUT:
            return self._dropout(func, *args, **options)
        if func in _LIKE:
            return self.draw(Draw(func, (torch.empty_like(args[0]), *args[1:]), options))
        if func in _FRESH:
            return self.draw(Draw(func, args, options))
        if func in _FILLS:
            return args[0].copy_(
                self.draw(Draw(_filled, (torch.empty_like(args[0]), _FILLS[func], *args[1:]), options))
            )
        special: Any = {
            torch.bernoulli: self._bernoulli,
            torch.normal: self._normal,
            torch.multinomial: self._multinomial,
            F.gumbel_softmax: self._gumbel_softmax,
            F.scaled_dot_product_attention: self._attention,
        }.get(func)
        return func(*args, **options) if special is None else special(*args, **options)

    def _dropout(
        self, call: Any, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        """The mask is drawn in the order in which the input lies in memory."""
        return input * self.draw(Draw(call, (torch.ones_like(input), p, True))) if p and training else input

    def _bernoulli(self, input: Tensor, *more: Any, **options: Any) -> Tensor:
        """1 where a uniform number is below the probability."""
        if more or options:
            return torch.bernoulli(input, *more, **options)
        return (self.draw(Draw(_filled, (torch.empty_like(input), "uniform_"))) < input).to(input.dtype)

    def _normal(self, mean: Any, std: Any = 1.0, *more: Any, **options: Any) -> Tensor:
        tensors = [value for value in (mean, std) if isinstance(value, Tensor)]
        if not tensors:
            return self.draw(Draw(torch.normal, (mean, std, *more), options))
        like = torch.empty_like(torch.broadcast_tensors(*tensors)[0])
        return self.draw(Draw(_filled, (like, "normal_"))) * std + mean

    def _multinomial(self, input: Tensor, num_samples: int, replacement: bool = False, **options: Any) -> Tensor:
        """The largest of p / e with e exponential. With replacement torch uses another algorithm: not replayed."""
        if replacement and num_samples > 1:
            return torch.multinomial(input, num_samples, replacement, **options)
        e = self.draw(Draw(_filled, (torch.empty_like(input), "exponential_")))
        return (input / e).topk(num_samples, dim=-1).indices

    def _gumbel_softmax(
        self, logits: Tensor, tau: float = 1.0, hard: bool = False, eps: float = 1e-10, dim: int = -1
    ) -> Tensor:
        noise = -self.draw(Draw(_filled, (torch.empty_like(logits), "exponential_"))).log()
        soft = ((logits + noise) / tau).softmax(dim)
        if not hard:
            return soft
        index = soft.argmax(dim, keepdim=True)
        return torch.zeros_like(logits).scatter(dim, index, 1.0) - soft.detach() + soft

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        if not dropout_p or enable_gqa:
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, float("-inf"))
        elif attn_mask is not None:
            scores = scores + attn_mask
        weights = scores.softmax(-1)
        return (weights * self.draw(Draw(F.dropout, (torch.ones_like(weights), dropout_p, True)))) @ value


class RecordRandom(_Random):
    """Records the random calls made inside, in order, in `found`."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Draw] = []

    def draw(self, draw: Draw) -> Tensor:
        self.found.append(draw)
        return draw()


class ReplayRandom(_Random):
    """Random calls made inside return these tensors, in order."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        self._next = iter(tensors)

    def draw(self, draw: Draw) -> Tensor:
        return next(self._next)
