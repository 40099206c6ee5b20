"""dlx compare: a table of runs, and their curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dlx.cli.options import DEFAULT_ROOT, Json, Root, complete_run
from dlx.cli.output import print_json, say, write_output
from dlx.cli.tables import STATUS_STYLES, Cell, console, printable, show_table
from dlx.config.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dlx.runs.compare import Comparison
    from dlx.runs.tables import Column

Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...",
        help="Runs, or sweeps and methods, which stand for their members: paths, (parts of) names, or @last",
        autocompletion=complete_run,
    ),
]
Metrics = Annotated[str | None, typer.Option("--metric", help="Which, such as val/loss,test/accuracy.")]
COLOURS = ("blue", "red", "green", "magenta", "cyan", "yellow", "white")
Axis = Literal["step", "epoch", "time", "relative"]


def compare(
    runs: Runs,
    metric: Metrics = None,
    everything: Annotated[bool, typer.Option("--all", help="A row for every run: repeats are not grouped.")] = False,
    curves: Annotated[
        bool | None, typer.Option("--curves/--no-curves", help="Curves as characters. [default: in a terminal]")
    ] = None,
    x: Annotated[Axis, typer.Option(help="What curves are over; relative: seconds since the run began.")] = "step",
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="Write the table for programs (- is stdout).")] = None,
    md: Annotated[str | None, typer.Option(metavar="FILE", help="Write it as Markdown.")] = None,
    latex: Annotated[str | None, typer.Option(metavar="FILE", help="Write it for LaTeX's booktabs.")] = None,
    plot: Annotated[str | None, typer.Option(metavar="FILE", help="Draw the curves, as .png, .svg or .pdf.")] = None,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write one page that opens without a network.")
    ] = None,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Compare runs: the keys that differ and the metrics, as mean ± std over seeds and folds.

    dlx compare @last --plot curves.png --html report.html
    """
    from dlx.runs.compare import compare as compare_runs
    from dlx.runs.compare import select
    from dlx.runs.tables import as_csv, as_data, as_latex, as_markdown

    files = {"--csv": csv, "--md": md, "--latex": latex, "--plot": plot, "--html": html}
    on_stdout = [*(option for option, file in files.items() if file == "-"), *(["--json"] if json else [])]
    if len(on_stdout) > 1:
        raise UserError(f"{' and '.join(on_stdout)}: only one of them can be on stdout")
    metrics = [name.strip() for name in metric.split(",") if name.strip()] if metric else []
    comparison = compare_runs(select(runs, root), metrics, grouped=not everything)
    writers: dict[str, Callable[[str], str | bytes]] = {
        "--csv": lambda file: as_csv(comparison),
        "--md": lambda file: as_markdown(comparison),
        "--latex": lambda file: as_latex(comparison),
        "--plot": lambda file: _picture(comparison, file, x),
        "--html": lambda file: _page(comparison, runs, root, x),
    }
    for option, file in files.items():
        if file:
            write_output(option, file, writers[option](file))
            if file != "-":
                say(f"{option[2:]:<16}{file}", json=True)
    if json:
        print_json(as_data(comparison))
    elif not on_stdout:
        if comparison.rows:
            _show(comparison, x, curves)
        else:
            say(f"{', '.join(runs)}: none of its runs has started yet")


def _page(comparison: Comparison, runs: Sequence[str], root: Path, axis: str) -> str:
    from dlx.runs.compare_page import comparison_page
    from dlx.runs.find import find_run

    return comparison_page(comparison, f"Comparison of {', '.join(find_run(run, root).name for run in runs)}", axis)


def _picture(comparison: Comparison, file: str, axis: str) -> bytes:
    from dlx.runs.compare import curve_panels
    from dlx.runs.draw import draw_curves, picture, style

    kind = "png" if file == "-" else Path(file).suffix[1:].lower()
    if kind not in ("png", "svg", "pdf"):
        raise UserError(f"--plot {file}: must end in .png, .svg or .pdf")
    panels = curve_panels(comparison, comparison.curve_metrics, axis)
    if not panels:
        raise UserError(f"--plot: no run has a curve of {', '.join(comparison.curve_metrics)} with two points yet")
    with style():
        return picture(draw_curves(panels, axis, [row.label for row in comparison.rows]), kind)


def _show(comparison: Comparison, axis: str, curves: bool | None) -> None:
    from dlx.runs.tables import columns_of, summary_rows

    screen = console()
    if len(comparison.rows) == 1:
        row = comparison.rows[0]
        show_table([[Cell(name), Cell(text)] for name, text in summary_rows(comparison)], [row.label, ""])
    else:
        columns = columns_of(comparison)
        star = "" if screen.is_terminal else "*"  # marks the best where there is no bold

        def cell(column: Column, number: int) -> Cell:
            text = str(column.cells[number])
            if number in column.best:
                return Cell(text + star, "bold green")
            return Cell(text, STATUS_STYLES.get(text, "") if column.kind == "status" else "")

        rows = [[cell(column, number) for column in columns] for number in range(len(comparison.rows))]
        keys, metrics = ([i for i, c in enumerate(columns) if c.kind == kind] for kind in ("config", "metric"))
        show_table(rows, [column.name for column in columns], [*keys[2:], *metrics[1:]])
    if curves or (curves is None and screen.is_terminal):
        _show_curves(comparison, axis)


def _show_curves(comparison: Comparison, axis: str) -> None:
    """Prints the curves of the first metric that has any."""
    from itertools import groupby

    from rich.text import Text

    from dlx.runs.compare import curve_panels
    from dlx.runs.plot_text import LETTERS, plot_text

    screen = console()
    for name, panel in curve_panels(comparison, comparison.curve_metrics, axis).items():
        means = {printable(label): (band.x, band.mean) for label, band in panel.items()}
        if not (lines := plot_text(means, width=min(screen.width, 100), unit=axis)):
            continue
        screen.print()
        more = f" (the first {len(LETTERS)} of {len(comparison.rows)})" if len(means) > len(LETTERS) else ""
        screen.print(Text(printable(name) + more, "bold"))
        for line in lines:
            text = Text()
            for number, parts in groupby(line, key=lambda part: part[1]):
                style = "dim" if number is None else COLOURS[number % len(COLOURS)]
                text.append("".join(part for part, _ in parts), style)
            text.rstrip()
            screen.print(text, no_wrap=True, overflow="ignore", crop=False)
        return
