"""The screen of a command: lines on stderr, above the progress bars."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

from dlx.config.errors import plain

T = TypeVar("T")
LINE_EVERY = 20.0  # seconds


@cache
def console() -> Any:
    """The rich console of all progress bars: the bar of a plan and that of its run then stand below each other."""
    from rich.console import Console

    return Console(stderr=True)


def track(items: Iterable[T], what: str, total: int) -> Iterable[T]:
    """The items; while they are taken, a progress bar on a terminal, elsewhere a line from time to time."""
    from rich.progress import track as rich_track

    screen = console()
    if not screen.is_terminal:
        return _with_lines(items, what, total)
    return rich_track(items, what, total, console=screen, transient=True)


def _with_lines(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    began = last = time.monotonic()
    for number, item in enumerate(items):
        now = time.monotonic()
        if now - last > LINE_EVERY and number:
            last = now
            left = (now - began) / number * (total - number)
            about = f"{left / 60:.0f} min" if left > 90 else f"{left:.0f} s"
            note(f"{what}: {100 * number // total} %, about {about} left")
        yield item


def note(text: str) -> None:
    """Prints a line on stderr, above the progress bars."""
    text = plain(text)
    with suppress(OSError, ValueError):  # a terminal or a pipe that is gone ends no training
        if sys.stderr.isatty():
            console().print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr)  # noqa: T201 (this is the screen's one home)
