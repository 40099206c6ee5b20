"""Signals that end a run: Ctrl-C, SIGTERM, and SIGUSR1 and SIGUSR2, by which Slurm warns.

A command that trains handles them from its first line to its last. `Signals()` is around what must not be cut: a
signal sets a flag there, and what is inside looks at it (the loop, after each step) or goes on to its end.
`Signals(raises=True)` is around what may be cut anywhere: a signal raises Stopped there, as Ctrl-C raises
KeyboardInterrupt, and one that came before does so at once. They nest; the innermost decides. A second signal leaves
the process at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, ClassVar

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

PATIENCE = 10.0  # seconds that a step which waits for its data may still take after a signal; Slurm gives 30 in all


def exit_code(signum: int) -> int:
    """143 for SIGTERM, 130 for Ctrl-C and for Slurm's warnings."""
    return 143 if signum == signal.SIGTERM else 130


class Stopped(KeyboardInterrupt):
    """A signal arrived inside `Signals(raises=True)`."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"signal {signum:d}")
        self.signum = signum


def signal_of(stop: KeyboardInterrupt) -> int:
    """The signal behind a KeyboardInterrupt; SIGINT if Python raised it."""
    return stop.signum if isinstance(stop, Stopped) else signal.SIGINT


class Signals:
    """While entered, `received` is the first signal's number, or 0. raises: see above. leaves: a second signal leaves
    the process at once; else `count` grows, and whoever entered it ends what would go on without this process."""

    _innermost: ClassVar[Signals | None] = None
    _since: ClassVar[float] = 0.0  # when the first signal came

    def __init__(self, *, raises: bool = False, leaves: bool = True) -> None:
        self.received = self.count = 0
        self._raises, self._leaves = raises, leaves
        self._pid = os.getpid()  # workers inherit the handler and must not act on it
        self._outer: Signals | None = None
        self._before: dict[int, Any] = {}

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return
        count = self.count + 1
        if count == 1:
            Signals._since = time.monotonic()
        if count > 1 and (self._leaves or count > 2):
            _leave(exit_code(self.received or signum))
        each: Signals | None = self
        while each is not None:
            each.count, each.received = count, each.received or signum
            each = each._outer
        if self._raises and count == 1:
            raise Stopped(signum)

    def __enter__(self) -> Signals:
        if threading.current_thread() is not threading.main_thread():  # whoever runs us there handles signals
            return self
        outer = Signals._innermost
        if outer is not None and outer._pid == self._pid:
            if self._raises and outer.received:
                raise Stopped(outer.received)
            self._outer, self.received, self.count = outer, outer.received, outer.count
        for signum in CAUGHT:  # anew in each: libraries such as Ray put their own in between
            self._before[signum] = signal.signal(signum, self._handle)
        Signals._innermost = self
        return self

    @classmethod
    def pending(cls) -> int:
        """The signal received while any context is open, or 0."""
        return cls._innermost.received if cls._innermost is not None else 0

    @classmethod
    def overdue(cls) -> None:
        """Raises Stopped if a signal arrived PATIENCE seconds ago: for loops that wait for data."""
        inner = cls._innermost
        if inner is not None and inner.received and time.monotonic() - cls._since > PATIENCE:
            raise Stopped(inner.received)

    def __exit__(self, *exc: object) -> None:
        if not self._before:
            return
        Signals._innermost = self._outer
        for signum, handler in self._before.items():
            signal.signal(signum, handler)


def _leave(code: int) -> None:
    """Exits at once, and kills child processes (loader workers), which would wait for this one for ever."""
    if "multiprocessing" in sys.modules:
        import multiprocessing

        for child in multiprocessing.active_children():
            child.kill()
    os._exit(code)
