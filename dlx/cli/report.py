"""dlx report: a run or sweep as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlx.cli.options import DEFAULT_ROOT, Json, Root, Run
from dlx.cli.output import print_json, say, write_output
from dlx.config.errors import UserError


def report(
    run: Run,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="PATH", help="A file, a folder, or - for stdout. [default: report-RUN.html]"),
    ] = None,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Write a page of a run, sweep, method or experiment: command, configuration, results, curves, pictures.

    One file that opens without a network, in light and dark, and prints. It lies in the current folder unless --out
    says where.
    """
    from dlx.runs.find import find_run
    from dlx.runs.html_report import report as report_of

    if json and out == "-":
        raise UserError("--out - and --json: only one of them can be on stdout")
    folder = find_run(run, root)
    content = report_of(folder)
    file = out or f"report-{folder.name}.html"
    if file != "-" and (file.endswith("/") or Path(file).expanduser().is_dir()):
        file = str(Path(file) / f"report-{folder.name}.html")
        try:
            Path(file).expanduser().parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {file}: cannot be written ({error.strerror})") from None
    write_output("--out", file, content)
    if json:
        print_json({"run": str(folder.path), "report": file})
    elif file != "-":
        say(f"{'report':<16}{Path(file).expanduser().absolute()}")
