"""One optimizer step for M members at once: their parameters are rows of one matrix, their settings their own.

All begins in the members' ordinary optimizers and can be written back to them, so that a member's checkpoint is a usual
one, and any executor goes on with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.adam import adam

from dlx.batched.rules import RULES, State, flatten, split, stack_settings
from dlx.optim.adamp import SGDP


@dataclass
class Group:
    """One parameter group of all members: weights [M, P], which the members' parameters are views of."""

    params: list[list[nn.Parameter]]  # by member
    weights: Tensor
    views: dict[str, Tensor]  # the weights as [M, ...], by the parameter's name
    hyper: dict[str, Any]
    state: State


class StackedOptimizer:
    """optimizers: of the members, of one class, with groups of equally shaped parameters. names: of the first member's
    parameters. step: how many they took.

    Raises ValueError where there is no batched rule, or a setting that it does not follow.
    """

    def __init__(self, optimizers: Sequence[Optimizer], names: Mapping[nn.Parameter, str], step: int) -> None:
        self.optimizers, self.kind = list(optimizers), type(optimizers[0])
        if self.kind not in RULES:
            raise ValueError(f"optimizer {self.kind.__name__} has no update rule for several members")
        self.rule = RULES[self.kind]
        self.groups = [self._stack(number, names, step) for number in range(len(optimizers[0].param_groups))]

    def _stack(self, number: int, names: Mapping[nn.Parameter, str], step: int) -> Group:
        groups = [optimizer.param_groups[number] for optimizer in self.optimizers]
        params = [list(group["params"]) for group in groups]
        with torch.no_grad():
            like = {names[first]: torch.stack([first, *rest]) for first, *rest in zip(*params, strict=True)}
        weights = flatten(like)
        hyper = stack_settings(groups, weights.device)
        state = self.rule.init(weights, hyper)
        state["step"] += step
        for slot in state.keys() - {"step"}:
            for row, (optimizer, own) in enumerate(zip(self.optimizers, params, strict=True)):
                kept = [optimizer.state[p].get(slot) for p in own if p in optimizer.state]
                if len(kept) == len(own) and all(tensor is not None for tensor in kept):
                    state[slot][row] = torch.cat([tensor.flatten() for tensor in kept])
        group = Group(params, weights, split(weights, like), hyper, state)
        for row, own in enumerate(params):
            for p, view in zip(own, group.views.values(), strict=True):
                p.data = view[row]
        return group

    def step(self, grads: Sequence[Tensor], mask: Tensor | None = None) -> None:
        """grads: of each group, [M, P]. mask: bool [M], the members that take the step; None: all.

        The learning rates are those of the members' optimizers now.
        """
        for number, (group, grad) in enumerate(zip(self.groups, grads, strict=True)):
            lrs = [optimizer.param_groups[number]["lr"] for optimizer in self.optimizers]
            if mask is None and self.kind in (Adam, AdamW) and grad.device.type == "cpu":
                self._adam(group, grad, lrs, number)
                continue
            same = all(lr == lrs[0] for lr in lrs)
            lr = lrs[0] if same else torch.tensor(lrs, dtype=torch.float64, device=grad.device)
            hyper = {**group.hyper, "lr": lr}
            weights, group.state = self.rule.update(group.weights, grad, group.state, hyper, group.views, mask)
            group.weights.copy_(weights)

    def _adam(self, group: Group, grad: Tensor, lrs: Sequence[float], number: int) -> None:
        """torch's one-pass kernel, a call for the members that agree: a fifth of the time of the rule on a CPU."""
        alike: dict[Any, list[int]] = {}
        for row, (optimizer, lr) in enumerate(zip(self.optimizers, lrs, strict=True)):
            own = optimizer.param_groups[number]
            alike.setdefault((lr, own["betas"], own["eps"], own["weight_decay"]), []).append(row)
        matrices = group.weights, grad, group.state["exp_avg"], group.state["exp_avg_sq"]
        steps = group.state["step"]
        for (lr, (beta1, beta2), eps, weight_decay), rows in alike.items():
            if len(alike) == 1:  # all members as one tensor
                weights, grads, means, squares = ([matrix] for matrix in matrices)
                counts = [steps[0].clone()]
                steps += 1
            else:
                weights, grads, means, squares = ([matrix[row] for row in rows] for matrix in matrices)
                counts = [steps[row] for row in rows]
            adam(
                weights, grads, means, squares, [], counts,
                amsgrad=False, beta1=beta1, beta2=beta2, lr=lr, weight_decay=weight_decay, eps=eps, maximize=False,
                fused=True, decoupled_weight_decay=self.kind is AdamW,
            )  # fmt: skip

    def write_back(self, row: int) -> None:
        """The member's optimizer has the state that it would have alone; its parameters are still views."""
        for group in self.groups:
            slots = {slot: x[row] for slot, x in group.state.items() if slot != "step"}
            sizes = [p.numel() for p in group.params[row]]
            counted = self.kind not in (SGD, SGDP)
            for number, p in enumerate(group.params[row]):
                own = {slot: x.split(sizes)[number].view_as(p).clone() for slot, x in slots.items()}
                step = {"step": group.state["step"][row].float()} if counted else {}
                self.optimizers[row].state[p] = {**step, **own}

    def release(self, row: int) -> None:
        """The member's parameters are its own again."""
        for group in self.groups:
            for p in group.params[row]:
                p.data = p.data.clone()
