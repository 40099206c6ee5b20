"""Noise as a regularizer: on the inputs, or on the weights while the gradient is taken."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from dlx.config import checks
from dlx.regularization.regularizer import Regularizer
from dlx.tasks.spec import Attributes, Entry, Image, Label, Proposals, Reals, Tokens
from dlx.tasks.system import Batch, System


class InputNoise(Regularizer):
    """x + std e, with e standard normal, in units of the normalized input. For linear regression this is ridge: the
    expected loss is the loss plus std^2 |w|^2 (Bishop 1995)."""

    order = 1
    needs = (Image, Reals)
    keeps_inputs = (Image, Reals, Label, Attributes, Tokens, Proposals)
    keeps_targets = (Entry,)  # what it answers to does not change

    def __init__(self, *, std: float = 0.1) -> None:
        checks.at_least(0, std=std)
        self.std = std

    def on_batch(self, batch: Batch, system: System) -> Batch:
        names = [name for name, entry in system.spec.inputs.items() if isinstance(entry, (Image, Reals))]
        return {**batch, **{name: batch[name] + self.std * torch.randn_like(batch[name]) for name in names}}


class WeightNoise(Regularizer):
    """The gradient is taken at w + std e, and the update is made at w. For squared loss and small std it adds
    std^2 / 2 times the squared gradient of the output: flat minima are preferred."""

    def __init__(self, *, std: float = 0.01) -> None:
        checks.at_least(0, std=std)
        self.std = std

    @contextmanager
    def around_loss(self, system: System) -> Iterator[None]:
        weights: list[Tensor] = [p for p in system.parameters() if p.requires_grad]
        with torch.no_grad():
            own = [w.clone() for w in weights]
            torch._foreach_add_(weights, [torch.randn_like(w) for w in weights], alpha=self.std)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(weights, own)  # not a subtraction: the bits come back
