"""LARS (You et al. 2017, arXiv:1708.03888): momentum whose rate is set for each layer by the size of its weights.

In large batches one rate suits no two layers: where |w| / |gradient| is small it diverges. LARS makes each step of a
layer the same share of its weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from dlx.config import checks


class LARS(Optimizer):
    """v = momentum v + lr local (g + weight_decay w), w = w - v, with local = trust |w| / (|g| + weight_decay |w|) for
    each tensor (algorithm 1). Vectors and scalars (biases, normalization) have local = 1, as in SimCLR.

    lr: step size. momentum: how much of the last step is kept. weight_decay: as a penalty's factor. trust: share of
    the weights' length that a step has at lr 1 (eta, the trust coefficient).
    """

    def __init__(
        self,
        params: ParamsT,
        *,
        lr: float = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 1e-3,
    ) -> None:
        checks.at_least(0, lr=lr, weight_decay=weight_decay)
        checks.between("[0, 1)", momentum=momentum)
        checks.above(0, trust=trust)
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            own = [p for p in group["params"] if p.grad is not None]
            for params, adapted in ([p for p in own if p.dim() > 1], True), ([p for p in own if p.dim() < 2], False):
                if params:
                    self._step(group, params, adapted)
        return loss

    def _step(self, group: dict[str, Any], params: list[torch.Tensor], adapted: bool) -> None:
        lr, decay = group["lr"], group["weight_decay"]
        grads = [p.grad for p in params if p.grad is not None]
        steps = list(torch._foreach_add(grads, params, alpha=decay))
        if adapted:
            lengths = zip(torch._foreach_norm(params), torch._foreach_norm(grads), strict=True)
            # Weights or gradients of 0 take a plain step, as in SimCLR's code: nothing else would move them.
            rates = [
                torch.where((w > 0) & (g > 0), group["trust"] * w / (g + decay * w), torch.ones_like(w))
                for w, g in lengths
            ]
            torch._foreach_mul_(steps, rates)
        torch._foreach_mul_(steps, lr)
        for p in params:
            if not self.state[p]:
                self.state[p] = {"momentum_buffer": torch.zeros_like(p)}
        last = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_mul_(last, group["momentum"])
        torch._foreach_add_(last, steps)
        torch._foreach_sub_(params, last)
