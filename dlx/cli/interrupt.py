"""Signals to a command that trains: while there is no run yet that could say `interrupted`, and when all is done."""

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
    """Python takes a second to end, in which SIGTERM would make of a finished run a process that was killed. It takes
    its own handlers away before that second; what is ignored stays so. Ctrl-C ends it still."""

    def ignore() -> None:
        for signum in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(signum, signal.SIG_IGN)

    atexit.register(ignore)
