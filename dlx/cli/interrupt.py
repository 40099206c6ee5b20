"""Signals to a command that trains, while there is no run yet that could say `interrupted`."""

from __future__ import annotations

import functools
from collections.abc import Callable

import typer


def interruptible(command: Callable[..., None]) -> Callable[..., None]:
    """The command with signals handled from its first line to its last: composing, checking and building, too."""

    @functools.wraps(command)
    def run(*arguments: object, **options: object) -> None:
        from dlx.training.signals import Signals, exit_code, signal_of

        try:
            with Signals(raises=True):
                command(*arguments, **options)
        except KeyboardInterrupt as stop:
            signum = signal_of(stop)
            typer.echo(f"interrupted (signal {signum:d}) before anything was trained: start it again", err=True)
            raise typer.Exit(exit_code(signum)) from None

    return run
