"""Intervals in steps, time or epochs."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlx.training.distributed import Dist

_SECONDS = {"s": 1, "min": 60, "h": 3600}


@dataclass(frozen=True)
class Interval:
    """`500` (steps), `90s`, `5min`, `1h`, `1epoch`, `2epochs`. Exactly one of the fields is set."""

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, value: int | str, steps_per_epoch: int) -> Interval:
        """Raises ValueError for any other form."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h|epochs?|steps?)?", str(value).strip())
        number = float(match[1]) if match else 0
        if not match or number <= 0:
            raise ValueError(f"must be a number of steps, or such as 5min, 1h, 2epochs; got {value!r}")
        unit = match[2] or "step"
        if unit in _SECONDS:
            return cls(seconds=number * _SECONDS[unit])
        return cls(steps=max(1, round(number * (steps_per_epoch if unit.startswith("epoch") else 1))))


class Due:
    """Tells when an interval is over. Step intervals count from step 0, so that a resume keeps them."""

    def __init__(self, interval: Interval) -> None:
        self.interval = interval
        self.last = time.monotonic()

    def at(self, step: int) -> bool:
        """True if the interval is over at `step`; a time interval then restarts."""
        if self.interval.steps is not None:
            return step % self.interval.steps == 0
        assert self.interval.seconds is not None
        if time.monotonic() - self.last < self.interval.seconds:
            return False
        self.last = time.monotonic()
        return True

    def due_on_all_ranks(self, step: int, dist: Dist) -> bool:
        """`at`, with the answer of process 0 for a time interval, since clocks differ."""
        now = self.at(step)
        return dist.broadcast(now) if self.interval.seconds is not None else now
