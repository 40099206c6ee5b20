"""dlx report: a run or sweep as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlx.cli.options import Json, Root, Run


def report(
    run: Run,
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="Where (- is stdout). [default: report-RUN.html]")
    ] = None,
    root: Root = Path("outputs"),
    json: Json = False,
) -> None:
    """Write a page of a run, sweep, method or experiment: command, configuration, results, curves, pictures.

    One file that opens without a network, in light and dark, and prints.
    """
    from dlx.cli.output import print_json, say, write_output
    from dlx.config.errors import UserError
    from dlx.runs.find import find_run
    from dlx.runs.report import report as report_of

    if json and out == "-":
        raise UserError("--out - and --json: only one of them can be on stdout")
    folder = find_run(run, root)
    file = out or f"report-{folder.name}.html"
    write_output("--out", file, report_of(folder))
    if json:
        print_json({"run": str(folder.path), "report": file})
    elif file != "-":
        say(f"report          {file}")
