"""Centered RMSprop as DQN uses it (Mnih et al. 2015, after Graves 2013, arXiv:1308.0850): eps is inside the root.

The gradient is divided by its running standard deviation sqrt(v - m^2 + eps). torch's centered RMSprop adds eps to the
root instead: with eps = 0.01 that is a step of up to 100 times the gradient there, and of up to 10 times here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from dlx.config import checks


class CenteredRMSprop(Optimizer):
    """lr: step size. alpha: how much of the running means of gradients (m) and of their squares (v) is kept. eps: added
    to the variance."""

    def __init__(self, params: ParamsT, *, lr: float = 2.5e-4, alpha: float = 0.95, eps: float = 0.01) -> None:
        checks.at_least(0, lr=lr)
        checks.above(0, eps=eps)
        checks.between("[0, 1)", alpha=alpha)
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            grads = [p.grad for p in params]
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p] = {"mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
            means, squares = ([self.state[p][name] for p in params] for name in ("mean", "square"))
            torch._foreach_lerp_(means, grads, 1 - group["alpha"])
            torch._foreach_mul_(squares, group["alpha"])
            torch._foreach_addcmul_(squares, grads, grads, value=1 - group["alpha"])
            spread = torch._foreach_addcmul(squares, means, means, value=-1)
            torch._foreach_clamp_min_(spread, 0)  # rounding may leave less
            torch._foreach_add_(spread, group["eps"])
            torch._foreach_sqrt_(spread)
            torch._foreach_addcdiv_(params, grads, spread, value=-group["lr"])
        return loss
