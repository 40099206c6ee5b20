"""The screen of a command: lines on stderr, above the progress bars."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

from dlx.config.errors import plain

T = TypeVar("T")


@cache
def console() -> Any:
    """The rich console of all progress bars: the bar of a plan and that of its run then stand below each other."""
    from rich.console import Console

    return Console(stderr=True)


def track(items: Iterable[T], what: str, total: int) -> Iterable[T]:
    """The items, with a progress bar on a terminal while they are taken."""
    from rich.progress import track as rich_track

    screen = console()
    return rich_track(items, what, total, console=screen, transient=True, disable=not screen.is_terminal)


def note(text: str) -> None:
    """Prints a line on stderr, above the progress bars."""
    text = plain(text)
    with suppress(OSError, ValueError):  # a terminal or a pipe that is gone ends no training
        if sys.stderr.isatty():
            console().print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr)  # noqa: T201 (this is the screen's one home)
