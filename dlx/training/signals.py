"""Signals that end a run: the handler only sets a flag, and the loop saves at the end of its step."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def exit_code(signum: int) -> int:
    """143 for SIGTERM, 130 for Ctrl-C and for Slurm's warnings."""
    return 143 if signum == signal.SIGTERM else 130


class Signals:
    """While entered, `received` is the first signal's number, or 0. A second signal leaves at once."""

    def __init__(self) -> None:
        self.received = 0
        self._pid = os.getpid()  # workers inherit the handler and must not act on it
        self._before: dict[int, Any] = {}

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return
        if self.received:
            os._exit(exit_code(signum))
        self.received = signum

    def __enter__(self) -> Signals:
        for signum in CAUGHT:
            try:
                self._before[signum] = signal.signal(signum, self._handle)
            except ValueError:  # not the main thread: whoever runs us there handles signals
                break
        return self

    def __exit__(self, *exc: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
