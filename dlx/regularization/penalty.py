"""Parameter norm penalties: L2 (ridge, Tikhonov) and L1 (lasso), on the loss or decoupled from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from dlx.config import checks
from dlx.regularization.regularizer import Regularizer
from dlx.tasks.parameters import check_kinds, params_of_kind
from dlx.tasks.system import System


class NormPenalty(Regularizer):
    """Base of L2 and L1: the strength, the form, and the parameters that are penalized.

    form: `loss` adds the penalty to the loss, so that the optimizer sees its gradient; `decoupled` changes the weights
    after the optimizer's step, by lr times its gradient (L2) or by a proximal step (L1), with any optimizer. spare:
    kinds of parameters that are not penalized: norm, bias.
    """

    def __init__(
        self,
        *,
        strength: float,
        form: Literal["loss", "decoupled"] = "loss",
        spare: Sequence[str] = ("norm", "bias"),
    ) -> None:
        checks.at_least(0, strength=strength)
        checks.one_of(("loss", "decoupled"), form=form)
        self.strength, self.form, self.spare = strength, form, check_kinds("spare", spare)
        self._system: System | None = None
        self._found: list[tuple[nn.Module, str]] = []

    def defines(self, hook: str) -> bool:
        """The form says which of its two hooks is called."""
        unused = "after_step" if self.form == "loss" else "penalty"
        return hook != unused and super().defines(hook)

    def weights(self, system: System) -> list[Tensor]:
        """The penalized parameters. They are searched once: a system makes all of its parameters in its constructor."""
        if self._system is not system:
            spared = params_of_kind(system, self.spare)
            self._found = [
                (module, name)
                for module in system.modules()
                for name, p in module.named_parameters(recurse=False)
                if p.requires_grad and p not in spared
            ]
            self._system = system
        # By name: several members that train as one put other tensors there.
        return list(dict.fromkeys(getattr(module, name) for module, name in self._found))


class L2(NormPenalty):
    """strength / 2 times the squared norm. For SGD both forms are one; for adaptive optimizers they are not
    (Loshchilov and Hutter 2017, arXiv:1711.05101)."""

    def penalty(self, system: System) -> Tensor:
        return 0.5 * self.strength * torch.stack([w.square().sum() for w in self.weights(system)]).sum()

    @torch.no_grad()
    def after_step(self, system: System, lr: float) -> None:
        torch._foreach_mul_(self.weights(system), 1 - lr * self.strength)


class L1(NormPenalty):
    """strength times the sum of absolute values. Only the decoupled form, soft thresholding, makes exact zeros; the
    gradient's sign on the loss steps over them."""

    def penalty(self, system: System) -> Tensor:
        return self.strength * torch.stack([w.abs().sum() for w in self.weights(system)]).sum()

    @torch.no_grad()
    def after_step(self, system: System, lr: float) -> None:
        for w in self.weights(system):
            w.copy_(torch.nn.functional.softshrink(w, lr * self.strength))
