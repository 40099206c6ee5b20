"""Learning-rate schedules: what the base learning rate is multiplied with at each step.

A schedule is a function of the step, so a resumed run needs nothing of it; only `Plateau` remembers what it saw.
Fractions are of the whole training, so that a recipe keeps its shape when its length changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dlx.config import checks


class Schedule:
    """Base of all schedules."""

    def factor(self, step: int, total: int) -> float:
        """The factor for step `step` (from 0) of `total`."""
        raise NotImplementedError(f"{type(self).__name__} defines no factor")

    def on_validation(self, value: float, mode: str) -> None:
        """Called with the monitored metric after each validation; mode is "min" or "max"."""

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores the output of `state`."""


class Constant(Schedule):
    def factor(self, step: int, total: int) -> float:
        return 1.0


class Step(Schedule):
    """`gamma` to the power of the number of milestones passed."""

    def __init__(self, *, milestones: Sequence[float] = (0.5, 0.75), gamma: float = 0.1) -> None:
        for milestone in milestones:
            checks.between("[0, 1]", milestones=milestone)
        checks.between("[0, 1]", gamma=gamma)
        self.milestones = sorted(milestones)
        self.gamma = gamma

    def factor(self, step: int, total: int) -> float:
        return self.gamma ** sum(step >= milestone * total for milestone in self.milestones)


class WarmupStep(Schedule):
    """Linear from 1/W to 1 over the first W = warmup * total steps, and `Step` with fractions of the whole training."""

    def __init__(self, *, warmup: float = 0.01, milestones: Sequence[float] = (0.5, 0.75), gamma: float = 0.1) -> None:
        checks.between("[0, 1]", warmup=warmup)
        self.warmup = warmup
        self.step = Step(milestones=milestones, gamma=gamma)

    def factor(self, step: int, total: int) -> float:
        rise = round(self.warmup * total)
        return min((step + 1) / max(rise, 1), 1.0) * self.step.factor(step, total)


class Cosine(Schedule):
    """final + (1 - final) (1 + cos(pi t / T)) / 2 (Loshchilov and Hutter 2016, equation 5, one period)."""

    def __init__(self, *, final: float = 0.0) -> None:
        checks.between("[0, 1]", final=final)
        self.final = final

    def factor(self, step: int, total: int) -> float:
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(step / max(total, 1), 1.0)))


class Linear(Schedule):
    """1 up to `start`, a share of the training, then linear to `final` (Zhu et al. 2017, arXiv:1703.10593: half of the
    training, then to 0)."""

    def __init__(self, *, start: float = 0.5, final: float = 0.0) -> None:
        checks.between("[0, 1)", start=start)
        checks.between("[0, 1]", final=final)
        self.start, self.final = start, final

    def factor(self, step: int, total: int) -> float:
        first = self.start * total
        return 1 - (1 - self.final) * min(max(step - first, 0.0) / max(total - first, 1), 1.0)


class WarmupCosine(Schedule):
    """Linear from 1/W to 1 over the first W = warmup * total steps, then `Cosine` over the rest."""

    def __init__(self, *, warmup: float = 0.05, final: float = 0.0) -> None:
        checks.between("[0, 1]", warmup=warmup)
        self.warmup = warmup
        self.cosine = Cosine(final=final)

    def factor(self, step: int, total: int) -> float:
        rise = round(self.warmup * total)
        if step < rise:
            return (step + 1) / rise
        return self.cosine.factor(step - rise, total - rise)


class WarmupLinear(Schedule):
    """Linear from 1/W to 1 over the first W = warmup * total steps, then linear to `final` (Devlin et al. 2018)."""

    def __init__(self, *, warmup: float = 0.1, final: float = 0.0) -> None:
        checks.between("[0, 1]", warmup=warmup, final=final)
        self.warmup, self.final = warmup, final

    def factor(self, step: int, total: int) -> float:
        rise = round(self.warmup * total)
        if step < rise:
            return (step + 1) / rise
        return 1 - (1 - self.final) * min((step - rise) / max(total - rise, 1), 1.0)


class WarmupInverseSqrt(Schedule):
    """min(s / W, sqrt(W / s)) for step s from 1 and W = warmup * total steps (Vaswani et al. 2017, equation 3): linear
    to 1 at step W, then down with the square root of the step. The paper's lr, the highest, is (D W)^-0.5."""

    def __init__(self, *, warmup: float = 0.04) -> None:
        checks.between("(0, 1]", warmup=warmup)
        self.warmup = warmup

    def factor(self, step: int, total: int) -> float:
        rise = max(1.0, self.warmup * total)
        return min((step + 1) / rise, math.sqrt(rise / (step + 1)))


class Plateau(Schedule):
    """Multiplies by `gamma` after more than `patience` validations without an improvement of at least `min_delta`."""

    def __init__(self, *, gamma: float = 0.1, patience: int = 5, min_delta: float = 0.0) -> None:
        checks.between("[0, 1]", gamma=gamma)
        checks.at_least(0, patience=patience)
        self.gamma, self.patience, self.min_delta = gamma, patience, min_delta
        self.falls, self.waited, self.best = 0, 0, math.inf

    def factor(self, step: int, total: int) -> float:
        return self.gamma**self.falls

    def on_validation(self, value: float, mode: str) -> None:
        cost = value if mode == "min" else -value
        if cost < self.best - self.min_delta:
            self.best, self.waited = cost, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.falls, self.waited = self.falls + 1, 0

    def state(self) -> dict[str, Any]:
        return {"falls": self.falls, "waited": self.waited, "best": self.best}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.falls, self.waited, self.best = state["falls"], state["waited"], state["best"]
