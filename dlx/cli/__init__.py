"""The command line: one file per command, each thin. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

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

app = typer.Typer(
    name="dlx",
    help="Every classic deep-learning system, one command each. Start with: dlx train model=resnet optim=adam",
    no_args_is_help=True,
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
for name, command in COMMANDS.items():
    app.command(name)(command)


def main() -> None:
    """Runs the command; a person's mistake costs a few lines and exit code 2, no traceback (`--debug` shows it)."""
    from dlx.config.errors import UserError

    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        app(args=arguments, prog_name="dlx")
    except UserError as error:
        if debug:
            raise
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except Exception as error:
        if debug:
            raise
        print(f"failed: {type(error).__name__}: {error} (--debug shows where)", file=sys.stderr)  # noqa: T201
        sys.exit(1)
