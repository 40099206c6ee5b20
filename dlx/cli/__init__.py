"""The command line: one file per command, each thin. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer

import dlx
from dlx.cli import (
    compare,
    config,
    dashboard,
    doctor,
    evaluate,
    export,
    list_,
    predict,
    report,
    resume,
    runs,
    sample,
    schema,
    show,
    sweep,
    sync,
    train,
)
from dlx.cli.interrupt import interruptible
from dlx.config.errors import UserError, plain, reason_of

app = typer.Typer(
    name="dlx",
    help="Every classic deep-learning system, one command each. Start with: dlx train model=resnet optim=adam",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

COMMANDS: dict[str, Callable[..., None]] = {
    "train": train.train,
    "sweep": sweep.sweep,
    "resume": resume.resume,
    "eval": evaluate.evaluate,
    "predict": predict.predict,
    "sample": sample.sample,
    "export": export.export,
    "runs": runs.runs,
    "compare": compare.compare,
    "dashboard": dashboard.dashboard,
    "report": report.report,
    "sync": sync.sync,
    "list": list_.list_options,
    "show": show.show,
    "config": config.config,
    "schema": schema.schema,
    "doctor": doctor.doctor,
}
TRAIN = ("train", "sweep", "resume")
for name, command in COMMANDS.items():
    app.command(name)(interruptible(command) if name in TRAIN else command)


@app.callback(invoke_without_command=True)
def start(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"dlx {dlx.__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main() -> None:
    """Runs the command; a person's mistake costs a few lines and exit code 2, no traceback (`--debug` shows it)."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    if not debug:
        warnings.showwarning = _say_warning
    try:
        sys.exit(_run(arguments))
    except UserError as error:
        if debug:
            raise
        for line in plain(str(error)).splitlines():
            print(f"error: {line}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except Exception as error:
        if debug:
            raise
        print(f"failed: {reason_of(error)} (--debug shows where)", file=sys.stderr)  # noqa: T201
        sys.exit(1)


def _say_warning(message: Warning | str, *where: Any, **more: Any) -> None:
    """Prints a warning in one line like an error; `--debug` shows where it comes from."""
    print(f"warning: {' '.join(plain(str(message)).split())}", file=sys.stderr)  # noqa: T201


def _run(arguments: list[str]) -> int:
    """Runs a command and returns its exit code. Raises UserError for an unknown command or option."""
    from dlx.cli.usage import no_command, refused

    first = arguments[0] if arguments and "_DLX_COMPLETE" not in os.environ else "-"
    option, _, shell = first.partition("=")
    if option in ("--show-completion", "--install-completion"):
        from dlx.cli.shells import complete_shell

        return complete_shell(option, shell or (arguments[1] if len(arguments) > 1 else None))
    if not first.startswith("-") and first not in COMMANDS:
        raise UserError(no_command(first, list(COMMANDS)))
    try:
        code: Any = app(args=arguments, prog_name="dlx", standalone_mode=False)
    except typer.Abort:
        print("aborted", file=sys.stderr)  # noqa: T201
        return 1
    except Exception as error:
        if not hasattr(error, "format_message"):  # of Click, which Typer has a copy of
            raise
        raise UserError(refused(error, arguments)) from error
    return code if isinstance(code, int) else 0
