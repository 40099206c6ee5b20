"""Update rules for M networks at once: their parameters are rows of one matrix MP, and their settings may differ.

A rule is the step of one optimizer class, the same to rounding, without a loop over members:

    rule, hyper = RULES[Adam], stack_settings([optimizer.param_groups[0] for optimizer in optimizers])
    state = rule.init(w_MP, hyper)
    w_MP, state = rule.update(w_MP, g_MP, state, hyper, like, mask)            # nothing that was given is changed

In `hyper` a value is a number where the members agree and a float64 tensor [M] where they differ (`betas`: a pair, or
[M, 2]). A schedule sets `hyper | {"lr": lr}`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adadelta, Adagrad, Adam, AdamW, Optimizer, RAdam, RMSprop

from dlx.optim.adamp import SGDP, AdamP, project

Stacked = Mapping[str, Tensor]
State = dict[str, Tensor]
"""`step` [M] and, under the names that the optimizer gives them, running means and sums [M, P]."""
Number = float | Tensor

_IGNORED = ("params", "foreach", "fused", "capturable")  # how a step is computed, not which step it is
_REFUSED = ("maximize", "amsgrad", "differentiable")


def flatten(tensors: Stacked) -> Tensor:
    """[M, P]: each member's numbers in a row, in the order of the names."""
    return torch.cat([tensor.reshape(len(tensor), -1) for tensor in tensors.values()], 1)


def split(x_MP: Tensor, like: Stacked) -> dict[str, Tensor]:
    """Views of the matrix with the names and shapes of `like`: of parameters, or of a slot of the state."""
    parts = x_MP.split([tensor[0].numel() for tensor in like.values()], 1)
    return {name: part.view(tensor.shape) for (name, tensor), part in zip(like.items(), parts, strict=True)}


def stack_settings(groups: Sequence[Mapping[str, Any]], device: torch.device | str = "cpu") -> dict[str, Any]:
    """The settings of the members' parameter groups, stacked. Raises ValueError, beginning with its name, for one that
    no rule follows."""
    stacked = {}
    for name in groups[0].keys() - _IGNORED:
        first, *rest = (tuple(value) if isinstance(value, list) else value for value in (g[name] for g in groups))
        if name in _REFUSED and any((first, *rest)):
            raise ValueError(f"{name} is not supported when members train together")
        same = all(value == first for value in rest)
        stacked[name] = first if same else torch.tensor([first, *rest], dtype=torch.float64, device=device)
    return stacked


@dataclass
class Step:
    """What one step computes with: weights `w`, gradients `g` (both [M, P]), old state `s`, settings `h`.

    t: number of this step, [M]. like: the stacked parameters, for their shapes.
    """

    w: Tensor
    g: Tensor
    s: State
    h: dict[str, Any]
    t: Tensor
    like: Stacked

    def k(self, value: Number) -> Number:
        """A coefficient, computed in float64, for use with [M, P]."""
        return value.to(self.w.dtype).unsqueeze(1) if isinstance(value, Tensor) else value

    def mean(self, slot: str, x: Tensor, keep: Number) -> Tensor:
        """The running mean keep * old + (1 - keep) * x."""
        return torch.lerp(self.s[slot], x, self.k(1 - keep))

    def betas(self) -> Iterable[Any]:
        """Both betas, each a number or [M]."""
        return self.h["betas"].T if isinstance(self.h["betas"], Tensor) else self.h["betas"]


def _is_zero(value: Any) -> bool:
    return not isinstance(value, Tensor) and not value


def _pick(flag: Any, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(flag.bool().unsqueeze(1), yes, no) if isinstance(flag, Tensor) else yes if flag else no


def _decayed(at: Step) -> tuple[Tensor, Tensor]:
    """Weights and gradients with weight decay: as a penalty's gradient, or apart from it (decoupled)."""
    decay, apart = at.h["weight_decay"], at.h.get("decoupled_weight_decay", False)
    if _is_zero(decay):
        return at.w, at.g
    shrunk, pulled = at.w * at.k(1 - at.h["lr"] * decay), at.g + at.k(decay) * at.w
    return _pick(apart, shrunk, at.w), _pick(apart, at.g, pulled)


def _sgd(at: Step) -> tuple[Tensor, State]:
    h, (w, g) = at.h, _decayed(at)
    if _is_zero(h["momentum"]):
        return w - at.k(h["lr"]) * g, {}
    total = at.k(h["momentum"]) * at.s["momentum_buffer"] + at.k(1 - h["dampening"]) * g
    if not _is_zero(h["dampening"]):  # torch dampens neither the first gradient nor, without momentum, any
        whole = (at.t == 1) | (at.t * h["momentum"] == 0)
        total = torch.where(whole.unsqueeze(1), g, total)
    ahead = _pick(h["nesterov"], g + at.k(h["momentum"]) * total, total)
    return w - at.k(h["lr"]) * ahead, {"momentum_buffer": total}


def _adagrad(at: Step) -> tuple[Tensor, State]:
    h, (w, g) = at.h, _decayed(at)
    total = at.s["sum"] + g * g
    lr = h["lr"] / (1 + (at.t - 1) * h["lr_decay"])
    return w - at.k(lr) * g / (total.sqrt() + at.k(h["eps"])), {"sum": total}


def _adadelta(at: Step) -> tuple[Tensor, State]:
    h, (w, g) = at.h, _decayed(at)
    eps = at.k(h["eps"])
    square = at.mean("square_avg", g * g, h["rho"])
    change = (at.s["acc_delta"] + eps).sqrt() / (square + eps).sqrt() * g
    return w - at.k(h["lr"]) * change, {
        "square_avg": square,
        "acc_delta": at.mean("acc_delta", change * change, h["rho"]),
    }


def _rmsprop(at: Step) -> tuple[Tensor, State]:
    h, (w, g) = at.h, _decayed(at)
    new = {"square_avg": at.mean("square_avg", g * g, h["alpha"])}
    variance = new["square_avg"]
    if not _is_zero(h["centered"]):
        new["grad_avg"] = at.mean("grad_avg", g, h["alpha"])
        variance = _pick(h["centered"], variance - new["grad_avg"] ** 2, variance)
    change = g / (variance.sqrt() + at.k(h["eps"]))
    if not _is_zero(h["momentum"]):
        change = new["momentum_buffer"] = at.k(h["momentum"]) * at.s["momentum_buffer"] + change
    return w - at.k(h["lr"]) * change, new


def _moments(at: Step, g: Tensor) -> State:
    beta1, beta2 = at.betas()
    return {"exp_avg": at.mean("exp_avg", g, beta1), "exp_avg_sq": at.mean("exp_avg_sq", g * g, beta2)}


def _adam(at: Step) -> tuple[Tensor, State]:
    h, (w, g) = at.h, _decayed(at)
    (beta1, beta2), new = at.betas(), _moments(at, g)
    root = new["exp_avg_sq"].sqrt().div_(at.k((1 - beta2**at.t) ** 0.5)).add_(at.k(h["eps"]))
    return torch.addcdiv(w, new["exp_avg"] * at.k(-h["lr"] / (1 - beta1**at.t)), root), new


def _radam(at: Step) -> tuple[Tensor, State]:
    h, (w, g) = at.h, _decayed(at)
    (beta1, beta2), new = at.betas(), _moments(at, g)
    correction = 1 - beta2**at.t
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * at.t * beta2**at.t / correction
    # Below a length of 5 the root may be of a negative number; then `where` does not take it.
    rectified = ((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)) ** 0.5
    factor = at.k(rectified * correction**0.5) / (new["exp_avg_sq"].sqrt() + at.k(h["eps"]))
    factor = torch.where((length > 5).unsqueeze(1), factor, 1.0)
    return w - at.k(h["lr"] / (1 - beta1**at.t)) * new["exp_avg"] * factor, new


def _projected(at: Step, update: Tensor, decay: Number) -> Tensor:
    """Weights after a step of AdamP or SGDP; `update` is changed in place, `decay` is the share that is taken away."""
    weights, grads, updates = (split(x_MP, at.like) for x_MP in (at.w, at.g, update))
    bounds = {name: at.k(at.h[name]) for name in ("delta", "wd_ratio", "eps")}
    lost = []
    for name, weight in weights.items():
        factor: Number = 1.0
        if weight.dim() > 2:
            factor = project(updates[name], weight, grads[name], **bounds)
        if not _is_zero(decay):
            lost.append(weight.reshape(len(weight), -1) * at.k(decay * factor))
    new = at.w + update
    return new - torch.cat(lost, 1) if lost else new


def _adamp(at: Step) -> tuple[Tensor, State]:
    h = at.h
    (beta1, beta2), new = at.betas(), _moments(at, at.g)
    root = new["exp_avg_sq"].sqrt().div_(at.k((1 - beta2**at.t) ** 0.5)).add_(at.k(h["eps"]))
    mean = new["exp_avg"]
    if not _is_zero(h["nesterov"]):
        mean = _pick(h["nesterov"], torch.lerp(mean, at.g, at.k(1 - beta1)), mean)
    update = (mean / root).mul_(at.k(-h["lr"] / (1 - beta1**at.t)))
    return _projected(at, update, h["lr"] * h["weight_decay"]), new


def _sgdp(at: Step) -> tuple[Tensor, State]:
    h = at.h
    total = at.k(h["momentum"]) * at.s["momentum_buffer"] + at.k(1 - h["dampening"]) * at.g
    ahead = _pick(h["nesterov"], at.g + at.k(h["momentum"]) * total, total)
    decay = h["lr"] * h["weight_decay"] / (1 - h["momentum"])
    return _projected(at, ahead * at.k(-h["lr"]), decay), {"momentum_buffer": total}


@dataclass(frozen=True)
class Rule:
    """The step of one optimizer class.

    slots: names of what its state holds, with the setting that a slot is for (None: always there).
    """

    step: Callable[[Step], tuple[Tensor, State]]
    slots: Mapping[str, str | None]

    def init(self, w_MP: Tensor, hyper: Mapping[str, Any]) -> State:
        """The state before the first step. A momentum of 0, of all members, needs no buffer."""
        state = {"step": torch.zeros(len(w_MP), dtype=torch.float64, device=w_MP.device)}
        for slot, needs in self.slots.items():
            if needs is None or not _is_zero(hyper[needs]):
                state[slot] = torch.zeros_like(w_MP)
        start = hyper.get("initial_accumulator_value", 0.0)
        if not _is_zero(start):
            state["sum"] += start.to(w_MP.dtype).unsqueeze(1) if isinstance(start, Tensor) else start
        return state

    @torch.no_grad()
    def update(
        self,
        w_MP: Tensor,
        g_MP: Tensor,
        state: State,
        hyper: Mapping[str, Any],
        like: Stacked,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Weights and state after one step of the members in `mask` (bool [M], None: all).

        The others keep theirs, also where their gradients are not finite. like: the stacked parameters, for their
        shapes.
        """
        t = state["step"] + 1
        new_MP, slots = self.step(Step(w_MP, g_MP, state, dict(hyper), t, like))
        new = {"step": t, **slots}
        if mask is not None:
            new_MP = torch.where(mask.unsqueeze(1), new_MP, w_MP)
            new = {
                slot: torch.where(mask if x.dim() == 1 else mask.unsqueeze(1), x, state[slot])
                for slot, x in new.items()
            }
        return new_MP, new


_MOMENTS = {"exp_avg": None, "exp_avg_sq": None}

RULES: dict[type[Optimizer], Rule] = {
    SGD: Rule(_sgd, {"momentum_buffer": "momentum"}),
    Adagrad: Rule(_adagrad, {"sum": None}),
    Adadelta: Rule(_adadelta, {"square_avg": None, "acc_delta": None}),
    RMSprop: Rule(_rmsprop, {"square_avg": None, "grad_avg": "centered", "momentum_buffer": "momentum"}),
    Adam: Rule(_adam, _MOMENTS),
    AdamW: Rule(_adam, _MOMENTS),
    RAdam: Rule(_radam, _MOMENTS),
    AdamP: Rule(_adamp, _MOMENTS),
    SGDP: Rule(_sgdp, {"momentum_buffer": None}),
}
