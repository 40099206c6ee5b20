"""AdamP and SGDP (Heo et al. 2020, arXiv:2006.08217): momentum that does not lengthen scale-invariant weights.

A layer before a normalization does not change when its weights are scaled, so its gradient is orthogonal to them, but a
running mean of gradients is not: its radial part lengthens w and shrinks the effective step lr / ||w||^2. Where the
gradient looks orthogonal, the radial part of the step is taken out, and weight decay (which acts on the length alone)
is reduced. Shapes: K tensors of one shape, R rows (output channels) of each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from dlx.config import checks

_LARGE = 2**15
"""Numbers in a tensor that is projected alone: stacking saves calls, and costs copies."""


def project(
    update: Tensor,
    weight: Tensor,
    grad: Tensor,
    *,
    delta: float | Tensor,
    wd_ratio: float | Tensor,
    eps: float | Tensor,
) -> Tensor:
    """Takes the radial part out of `update` in place, of those of K tensors [K, R, ...] that look scale-invariant.

    They do where |cos(grad, weight)| < delta / sqrt(dimensions) holds for all rows; then each row is projected. Else,
    where it holds for the tensor as a whole, that is projected. delta, wd_ratio and eps are numbers or [K, 1]. Returns
    the factors of the weight decay [K]. The choice is a `where`: nothing is read back from the device.
    """
    inner, columns = tuple(range(2, weight.dim())), weight[0, 0].numel()
    dot_KR = torch.linalg.vecdot(weight.flatten(2), grad.flatten(2))
    radial_KR = torch.linalg.vecdot(weight.flatten(2), update.flatten(2))
    weight_KR = torch.linalg.vector_norm(weight, dim=inner)
    grad_KR = torch.linalg.vector_norm(grad, dim=inner)
    cos_KR = dot_KR.abs() / (weight_KR.clamp(min=eps) * grad_KR.clamp(min=eps))
    by_row_K1 = cos_KR.amax(1, keepdim=True) < delta / columns**0.5

    weight_K1, grad_K1 = (torch.linalg.vector_norm(norm_KR, dim=1, keepdim=True) for norm_KR in (weight_KR, grad_KR))
    cos_K1 = dot_KR.sum(1, keepdim=True).abs() / (weight_K1.clamp(min=eps) * grad_K1.clamp(min=eps))
    whole_K1 = cos_K1 < delta / (columns * weight.shape[1]) ** 0.5

    # w / (||w|| + eps) twice: once in the product with the update, once as its direction.
    row_KR = radial_KR / (weight_KR + eps) / (weight_KR + eps)
    tensor_K1 = radial_KR.sum(1, keepdim=True) / (weight_K1 + eps) / (weight_K1 + eps)
    share_KR = torch.where(by_row_K1, row_KR, torch.where(whole_K1, tensor_K1, 0.0))
    update.addcmul_(weight, share_KR.reshape(*share_KR.shape, *(1 for _ in inner)), value=-1)
    return torch.where(by_row_K1 | whole_K1, wd_ratio, torch.ones_like(weight_K1))[:, 0]


def _stack(tensors: list[Tensor]) -> Tensor:
    return torch.stack(tensors) if len(tensors) > 1 else tensors[0].unsqueeze(0)


class _Projected(Optimizer):
    """A step that is projected: matrices and kernels of one shape together, vectors and scalars never."""

    def _updates(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        """New tensors to be added to the parameters."""
        raise NotImplementedError

    def _decay(self, group: dict[str, Any]) -> float:
        """The share of the weights that one step takes away."""
        return group["lr"] * group["weight_decay"]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._step_group(group, params, [p.grad for p in params])
        return loss

    def _step_group(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        if any(grad.is_sparse for grad in grads):
            raise RuntimeError(f"{type(self).__name__} takes no sparse gradients")
        updates, decay = self._updates(group, params, grads), self._decay(group)
        same: dict[Any, list[int]] = {}
        for number, p in enumerate(params):
            kind = None if p.dim() < 2 else number if p.numel() > _LARGE else (p.shape, p.device, p.dtype)
            same.setdefault(kind, []).append(number)
        flat = [params[number] for number in same.pop(None, [])]
        if decay and flat:
            torch._foreach_mul_(flat, 1 - decay)
        for numbers in same.values():
            weights = [params[number] for number in numbers]
            update = _stack([updates[number] for number in numbers])
            factor_K = project(
                update,
                _stack(weights),
                _stack([grads[number] for number in numbers]),
                delta=group["delta"],
                wd_ratio=group["wd_ratio"],
                eps=group["eps"],
            )
            if decay:
                torch._foreach_mul_(weights, (1 - decay * factor_K).unbind())
            for number, projected in zip(numbers, update.unbind(), strict=True):
                updates[number] = projected
        torch._foreach_add_(params, updates)


class AdamP(_Projected):
    """Adam with projected steps and decoupled weight decay.

    lr: step size. betas: how much of the running means of gradients and of their squares is kept. eps: added to the
    root, and the least norm. weight_decay: share of the weights taken away per step, times lr. delta: a cosine below
    delta / sqrt(dimensions) counts as orthogonal. wd_ratio: what is left of the decay of projected weights. nesterov:
    the current gradient enters the running mean once more.
    """

    def __init__(
        self,
        params: ParamsT,
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        nesterov: bool = False,
    ) -> None:
        checks.at_least(0, lr=lr, eps=eps, weight_decay=weight_decay, delta=delta, wd_ratio=wd_ratio)
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be in [0, 1), got {list(betas)}")
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "delta": delta,
                "wd_ratio": wd_ratio,
                "nesterov": nesterov,
            },
        )

    def _updates(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        beta1, beta2 = group["betas"]
        for p in params:
            if not self.state[p]:
                self.state[p] = {
                    "step": torch.tensor(0.0, device="cpu"),  # reading it waits for no device
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
        steps, means, squares = ([self.state[p][name] for p in params] for name in ("step", "exp_avg", "exp_avg_sq"))
        torch._foreach_add_(steps, torch.tensor(1.0, device="cpu"), alpha=1.0)
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, value=1 - beta2)
        counts = [step.item() for step in steps]
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, [(1 - beta2**count) ** 0.5 for count in counts])
        torch._foreach_add_(roots, group["eps"])
        torch._foreach_reciprocal_(roots)
        torch._foreach_mul_(roots, torch._foreach_lerp(means, grads, 1 - beta1) if group["nesterov"] else means)
        torch._foreach_mul_(roots, [-group["lr"] / (1 - beta1**count) for count in counts])
        return list(roots)


class SGDP(_Projected):
    """SGD with momentum, projected steps and decoupled weight decay.

    lr: step size. momentum: how much of the running sum of gradients is kept. dampening: how much of each gradient is
    left out of it. weight_decay: as a penalty's factor, so that a step takes away lr * weight_decay / (1 - momentum).
    nesterov: the gradient at the look-ahead point. eps: the least norm. delta, wd_ratio: as in AdamP.
    """

    def __init__(
        self,
        params: ParamsT,
        *,
        lr: float = 0.1,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        eps: float = 1e-8,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
    ) -> None:
        checks.at_least(0, lr=lr, eps=eps, weight_decay=weight_decay, delta=delta, wd_ratio=wd_ratio)
        checks.between("[0, 1)", momentum=momentum)
        checks.between("[0, 1]", dampening=dampening)
        if nesterov and not momentum:
            raise ValueError("nesterov needs a momentum above 0")
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
                "eps": eps,
                "delta": delta,
                "wd_ratio": wd_ratio,
            },
        )

    def _decay(self, group: dict[str, Any]) -> float:
        return group["lr"] * group["weight_decay"] / (1 - group["momentum"])

    def _updates(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        momentum = group["momentum"]
        for p in params:
            if not self.state[p]:
                self.state[p] = {"momentum_buffer": torch.zeros_like(p)}
        sums = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_mul_(sums, momentum)
        torch._foreach_add_(sums, grads, alpha=1 - group["dampening"])
        if not group["nesterov"]:
            return list(torch._foreach_mul(sums, -group["lr"]))
        updates = list(torch._foreach_add(grads, sums, alpha=momentum))
        torch._foreach_mul_(updates, -group["lr"])
        return updates
