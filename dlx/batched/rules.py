"""Update rules for M networks at once: parameters stacked on a leading axis, and settings that differ by member.

A rule is the step of one optimizer class, the same to rounding, without a loop over members:

    rule = RULES["torch.optim.Adam"]
    hyper = rule.stack_settings([{"lr": 1e-3}, {"lr": 1e-2, "betas": (0.5, 0.999)}])   # of two optimizer blocks
    state = rule.init(params, hyper)                                          # params: {name: [M, ...]}
    params, state = rule.update(params, grads, state, hyper, mask)            # nothing that was given is changed

`hyper` has the constructor's argument names; a value is a number where the members agree and a float64 tensor [M] where
they differ (`betas`: a pair, or [M, 2]). A schedule sets `hyper | {"lr": hyper["lr"] * factor}`. Parameters without
decay are a second call with `hyper | {"weight_decay": 0.0}`. Inside, M members with P numbers each are one matrix MP.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adadelta, Adagrad, Adam, AdamW, Optimizer, RAdam, RMSprop

from dlx.optim.adamp import SGDP, AdamP, project

Stacked = Mapping[str, Tensor]
State = dict[str, Tensor]
"""`step` [M] and, under the names that the optimizer gives them, running means and sums [M, P]."""
Number = float | Tensor

# How a step is computed, not which step it is.
_IGNORED = ("foreach", "fused", "capturable")
_REFUSED = ("maximize", "amsgrad", "differentiable")


def flatten(tensors: Stacked) -> Tensor:
    """[M, P]: each member's numbers in a row, in the order of the names."""
    return torch.cat([tensor.reshape(len(tensor), -1) for tensor in tensors.values()], 1)


def split(x_MP: Tensor, like: Stacked) -> dict[str, Tensor]:
    """Views of the matrix with the names and shapes of `like`: of parameters, or of a slot of the state."""
    parts = x_MP.split([tensor[0].numel() for tensor in like.values()], 1)
    return {name: part.view(tensor.shape) for (name, tensor), part in zip(like.items(), parts, strict=True)}


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

    def betas(self) -> tuple[Number, Number]:
        beta1, beta2 = self.h["betas"].T if isinstance(self.h["betas"], Tensor) else self.h["betas"]
        return beta1, beta2


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

    slots: names of what its state holds, with the setting that a slot is for (None: always there). fixed: settings
    that the class has without an argument.
    """

    optimizer: type[Optimizer]
    step: Callable[[Step], tuple[Tensor, State]]
    slots: Mapping[str, str | None]
    fixed: Mapping[str, Any] | None = None

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """The class's settings, all but the parameters."""
        arguments = list(inspect.signature(self.optimizer).parameters.values())[1:]
        return {argument.name: argument.default for argument in arguments}

    def _complete(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        defaults = self.defaults
        for name, value in settings.items():
            if name not in defaults:
                raise ValueError(f"{name} is no setting of {self.optimizer.__name__}; it has {', '.join(defaults)}")
            if name in _REFUSED and value != defaults[name]:
                raise ValueError(f"{name} is not supported when members train together, got {value!r}")
        left_out = (*_IGNORED, *_REFUSED)
        return {name: value for name, value in {**defaults, **settings}.items() if name not in left_out}

    def stack_settings(
        self, members: Sequence[Mapping[str, Any]], device: torch.device | str = "cpu"
    ) -> dict[str, Any]:
        """The members' settings, stacked. Raises ValueError, beginning with its name, for one that no rule follows."""
        stacked = {}
        complete = [self._complete({k: v for k, v in member.items() if k != "_target_"}) for member in members]
        for name in complete[0]:
            first, *rest = (tuple(value) if isinstance(value, list) else value for value in (m[name] for m in complete))
            same = all(value == first for value in rest)
            stacked[name] = first if same else torch.tensor([first, *rest], dtype=torch.float64, device=device)
        return stacked

    def init(self, params: Stacked, hyper: Mapping[str, Any]) -> State:
        """The state before the first step. A momentum of 0, of all members, needs no buffer."""
        h = self._complete(hyper)
        first = next(iter(params.values()))
        size = sum(tensor[0].numel() for tensor in params.values())
        state = {"step": torch.zeros(len(first), dtype=torch.float64, device=first.device)}
        for slot, needs in self.slots.items():
            if needs is None or not _is_zero(h[needs]):
                state[slot] = first.new_zeros(len(first), size, requires_grad=False)
        start = h.get("initial_accumulator_value", 0.0)
        if not _is_zero(start):
            state["sum"] += start.to(first.dtype).unsqueeze(1) if isinstance(start, Tensor) else start
        return state

    @torch.no_grad()
    def update(
        self,
        params: Stacked,
        grads: Stacked,
        state: State,
        hyper: Mapping[str, Any],
        mask: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], State]:
        """Parameters and state after one step of the members in `mask` (bool [M], None: all).

        The others keep theirs, also where their gradients are not finite. The parameters returned are views of one
        matrix [M, P].
        """
        h = {**self._complete(hyper), **(self.fixed or {})}
        w, g, t = flatten(params), flatten({name: grads[name] for name in params}), state["step"] + 1
        new_w, new = self.step(Step(w, g, state, h, t, params))
        new = {"step": t, **new}
        if mask is not None:
            new_w = torch.where(mask.unsqueeze(1), new_w, w)
            new = {
                slot: torch.where(mask if x.dim() == 1 else mask.unsqueeze(1), x, state[slot])
                for slot, x in new.items()
            }
        return split(new_w, params), new


_MOMENTS = {"exp_avg": None, "exp_avg_sq": None}

RULES: dict[str, Rule] = {
    "torch.optim.SGD": Rule(SGD, _sgd, {"momentum_buffer": "momentum"}),
    "torch.optim.Adagrad": Rule(Adagrad, _adagrad, {"sum": None}),
    "torch.optim.Adadelta": Rule(Adadelta, _adadelta, {"square_avg": None, "acc_delta": None}),
    "torch.optim.RMSprop": Rule(
        RMSprop, _rmsprop, {"square_avg": None, "grad_avg": "centered", "momentum_buffer": "momentum"}
    ),
    "torch.optim.Adam": Rule(Adam, _adam, _MOMENTS),
    "torch.optim.AdamW": Rule(AdamW, _adam, _MOMENTS, {"decoupled_weight_decay": True}),
    "torch.optim.RAdam": Rule(RAdam, _radam, _MOMENTS),
    "dlx.optim.adamp.AdamP": Rule(AdamP, _adamp, _MOMENTS),
    "dlx.optim.adamp.SGDP": Rule(SGDP, _sgdp, {"momentum_buffer": None}),
}
"""By the class's path, as a configuration's `_target_` names it."""
