"""Runs a tracker in its own thread, so that its errors and delays never reach the training."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlx.tracking.tracker import Tracker

FINISH_SECONDS = 60.0
POLL_SECONDS = 0.1


class Guard:
    """Passes calls to a tracker in order, from a queue. The first exception ends the tracker, not the run."""

    def __init__(self, name: str, tracker: Tracker, warn: Callable[[str], None], lose: Callable[[str], None]) -> None:
        self.name, self.tracker, self.lose = name, tracker, lose
        tracker.warn = warn  # type: ignore[method-assign, assignment]
        self.failed: str | None = None
        self._calls: queue.SimpleQueue[tuple[str, tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True, name=f"tracker-{name}")
        self._thread.start()

    def call(self, method: str, *arguments: Any) -> None:
        """Returns at once."""
        if self.failed is None:
            self._calls.put((method, arguments))

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            method, arguments = item
            if self.failed is not None:
                continue
            try:
                getattr(self.tracker, method)(*arguments)
            except Exception as error:  # whatever a tracker raises, the run goes on and says so
                self._fail(f"{method} failed: {type(error).__name__}: {error}".splitlines()[0])

    def _fail(self, reason: str) -> None:
        self.failed = f"tracker {self.name}: {reason}; the local files are complete"
        self.lose(self.failed)

    def close(self, seconds: float = FINISH_SECONDS, gives_up: Callable[[], bool] = lambda: False) -> None:
        """Waits until all calls are done, for at most `seconds`, or until `gives_up` returns True."""
        self._calls.put(None)
        begun = time.monotonic()
        while self._thread.is_alive() and not gives_up() and time.monotonic() - begun < seconds:
            self._thread.join(max(0.0, min(POLL_SECONDS, begun + seconds - time.monotonic())))
        if self._thread.is_alive() and self.failed is None:
            cut = "cut off by a signal before it was finished" if gives_up() else f"not finished after {seconds:.0f} s"
            self._fail(cut)
