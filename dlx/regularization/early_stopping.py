"""Early stopping: ends the training when validation no longer improves, and keeps the best weights."""

from __future__ import annotations

import math

from dlx.config import checks
from dlx.config.monitor import Monitor
from dlx.regularization.regularizer import Regularizer


class EarlyStopping(Regularizer):
    """For a linear model trained by gradient descent from zero it is ridge with strength about 1 / (lr steps) (Bishop).

    monitor: such as val/loss:min; None is what the trainer or the system monitors. The weights kept are the best by it.
    patience: validations without an improvement of more than `min_delta` after which the training ends.
    target: ends the training as soon as the metric is reached; None: never.
    """

    needs_monitor = True

    def __init__(
        self,
        *,
        monitor: str | None = None,
        patience: int = 10,
        min_delta: float = 0.0,
        target: float | None = None,
    ) -> None:
        checks.at_least(1, patience=patience)
        checks.at_least(0, min_delta=min_delta)
        if monitor is not None:
            Monitor.parse(monitor)
        self.monitor, self.patience, self.min_delta, self.target = monitor, patience, min_delta, target

    def on_validation(self, history: list[dict[str, float]], monitor: tuple[str, str] | None) -> bool:
        assert monitor is not None
        name, goal = monitor
        sign = 1 if goal == "min" else -1
        costs = [sign * row[name] for row in history if name in row]
        if self.target is not None and costs[-1] <= sign * self.target:
            return True
        best, waited = math.inf, 0
        for cost in costs:
            best, waited = (cost, 0) if cost < best - self.min_delta else (best, waited + 1)
        return waited >= self.patience
