"""Clock: measures step time and time spent waiting for data, without validation and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlx.tasks.system import Batch


@dataclass(frozen=True)
class Times:
    """Since the last reading: seconds, milliseconds a step, and the share of the time that steps waited for data."""

    seconds: float
    step_ms: float
    data_wait: float


class Clock:
    """Starts when it is made."""

    def __init__(self, step: int) -> None:
        self._step, self._waited, self._start = step, 0.0, time.perf_counter()

    def next(self, batches: Iterator[Batch]) -> Batch:
        """Returns the next batch and counts its time as waiting for data."""
        asked = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - asked
        return batch

    @contextmanager
    def stopped(self) -> Iterator[float]:
        """Pauses the clock. Yields the seconds since the last reading."""
        outside = time.perf_counter()
        yield outside - self._start
        self._start += time.perf_counter() - outside

    def read(self, step: int) -> Times:
        """The times since the last reading, with `step` steps done; restarts the clock."""
        now = time.perf_counter()
        seconds, steps = now - self._start, max(step - self._step, 1)
        times = Times(seconds, 1e3 * seconds / steps, self._waited / max(seconds, 1e-9))
        self._step, self._waited, self._start = step, 0.0, now
        return times
