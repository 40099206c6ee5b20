"""Handles signals before a run exists, and while Python shuts down after the command."""

from __future__ import annotations

import atexit
import functools
import signal
from collections.abc import Callable

import typer


def interruptible(command: Callable[..., None]) -> Callable[..., None]:
    """The command with signals handled from its first line to its last: composing, checking and building, too."""

    @functools.wraps(command)
    def run(*arguments: object, **options: object) -> None:
        from dlx.training.signals import Signals, exit_code, signal_of

        _stay_to_the_end()
        try:
            with Signals(raises=True):
                command(*arguments, **options)
        except KeyboardInterrupt as stop:
            signum = signal_of(stop)
            typer.echo(f"interrupted (signal {signum:d}) before anything was trained: start it again", err=True)
            raise typer.Exit(exit_code(signum)) from None

    return run


@functools.cache
def _stay_to_the_end() -> None:
    """Ignores SIGTERM and SIGUSR while Python shuts down (1 s): a finished run would otherwise exit as killed. Python
    removes its own handlers before that, but keeps ignored signals ignored. Ctrl-C still ends it."""

    def ignore() -> None:
        for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(signum, signal.SIG_IGN)

    atexit.register(ignore)
