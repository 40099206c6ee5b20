"""dlx eval: the best weights of a run on a split of its data."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import typer

from dlx.cli.options import DEFAULT_ROOT, Json, Root, Run, Trust, pairs, trusted
from dlx.cli.output import print_json, save_medium, say, say_values, table
from dlx.config.errors import LOST, UserError

SHOWN_ROWS = 20


def evaluate(
    run: Run,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=VALUE]...",
            help="Where the data lie now (data.path=DIR); arguments of --analysis (data=NAME, run=NAME, ...).",
        ),
    ] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Which samples.")] = "test",
    analysis: Annotated[
        str | None, typer.Option(help="What else to tell, such as probe: a linear classifier on its features.")
    ] = None,
    sharpness: Annotated[
        bool, typer.Option("--sharpness", help="How flat the minimum is (Keskar), on the training samples.")
    ] = False,
    epsilon: Annotated[float, typer.Option(help="Size of the box that sharpness looks into.")] = 1e-3,
    trust: Trust = None,
    json: Json = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Evaluate a run's best weights: metrics, what else its kind shows (of classifiers each class's), and pictures."""
    from dlx.runs.find import find_trained
    from dlx.training.evaluation_report import analyse_run, report_run
    from dlx.training.trained import open_run

    if epsilon <= 0:
        raise UserError(f"--epsilon: must be above 0, got {epsilon:g}")
    overrides = [word for word in arguments or () if word.startswith(("data.", "dataset."))]
    chosen = [word for word in arguments or () if word.startswith(("data=", "dataset="))]
    others = [word for word in arguments or () if word not in (*overrides, *chosen)]
    if chosen and analysis is None:
        raise UserError(f"{chosen[0]}: dlx eval takes other data with --analysis only, such as --analysis anomaly")
    if others and analysis is None:
        raise UserError(f"{others[0]}: dlx eval takes data.KEY=VALUE, and with --analysis its arguments")
    folder = find_trained(run, root)
    if analysis is not None:
        own, data = ([], [*chosen, *overrides]) if chosen else (overrides, [])
        given = pairs(others, "--analysis")
        other = find_trained(given.pop("run"), root) if "run" in given else None
        report = analyse_run(folder, analysis, given, trust=trusted(trust), overrides=own, data=data, other=other)
    else:
        report = report_run(folder, split, trust=trusted(trust), overrides=overrides)
    metrics = dict(report.metrics)
    drawn = {name if split == "test" else f"{name}-{split}": medium for name, medium in report.media.items()}
    if sharpness:
        from dlx.training import sharpness as flatness

        landscape = flatness.Landscape(*open_run(folder, "train", trust=trusted(trust)))
        metrics["train/sharpness"] = flatness.sharpness(landscape, epsilon=epsilon)
        drawn["landscape"] = flatness.draw(flatness.slices(landscape), folder.name)
    say_values({name: f"{value:.4f}" for name, value in metrics.items()}, json)
    if not metrics and not report.tables:
        say("metrics         none: this system is not evaluated", json)
    for name, rows in report.tables.items():
        say(_table(name, rows), json)
    pictures = [path for name, medium in drawn.items() if (path := save_medium(folder, name, medium, json))]
    if json:
        print_json({"run": str(folder.path), "metrics": metrics, **report.data, "pictures": pictures})
    raise typer.Exit(0 if len(pictures) == len(drawn) else LOST)


def _table(name: str, rows: list[dict[str, Any]]) -> str:
    """The rows in their order; of more than 20 those that are lowest in the last ratio, the lowest first."""
    columns = list(rows[0]) if rows else [name]
    ratios = [column for column in columns if rows and isinstance(rows[0][column], float)]
    shown, heading = rows, columns[0]
    if len(rows) > SHOWN_ROWS and ratios:
        known = [row for row in rows if not math.isnan(row[ratios[-1]])]
        shown = sorted(known, key=lambda row: row[ratios[-1]])[:SHOWN_ROWS]
        heading = f"worst {len(shown)} of {len(rows)}"
    cells = [[_text(row[column]) for column in columns] for row in shown]
    return table(cells, [heading, *columns[1:]])


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
