"""dlx eval: the best weights of a run on a split of its data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dlx.cli.options import Json, Root, Run, Trust, trusted

FIGURES = ("precision", "recall", "f1")
SHOWN_CLASSES = 20


def evaluate(
    run: Run,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Which samples.")] = "test",
    sharpness: Annotated[
        bool, typer.Option("--sharpness", help="How flat the minimum is (Keskar), on the training samples.")
    ] = False,
    epsilon: Annotated[float, typer.Option(help="Size of the box that sharpness looks into.")] = 1e-3,
    trust: Trust = None,
    json: Json = False,
    root: Root = Path("outputs"),
) -> None:
    """Evaluate a run's best weights: figures, of classifiers also each class's and the worst mistakes, and pictures."""
    from dlx.cli.output import LOST, print_json, save_picture, say
    from dlx.config.errors import UserError
    from dlx.runs.find import find_trained
    from dlx.training.report import report_run
    from dlx.training.run import open_run

    if epsilon <= 0:
        raise UserError(f"--epsilon: must be above 0, got {epsilon:g}")
    folder = find_trained(run, root)
    report = report_run(folder, split, trust=trusted(trust))
    figures = report.metrics
    drawn = {name if split == "test" else f"{name}-{split}": figure for name, figure in report.pictures.items()}
    if sharpness:
        from dlx.training import sharpness as flatness

        landscape = flatness.Landscape(*open_run(folder, "train", trust=trusted(trust)))
        figures["train/sharpness"] = flatness.sharpness(landscape, epsilon=epsilon)
        drawn["landscape"] = flatness.draw(flatness.slices(landscape), folder.name)
    for name, value in figures.items():
        say(f"{name:<16}{value:.4f}", json)
    if report.per_class:
        say(_class_table(report.per_class), json)
    pictures = [path for name, figure in drawn.items() if (path := save_picture(folder, name, figure))]
    for picture in pictures:
        say(f"{'picture':<16}{picture}", json)
    if json:
        classes = {"per_class": report.per_class, "confusion": report.confusion} if report.per_class else {}
        print_json({"run": str(folder.path), "metrics": figures, **classes, "pictures": pictures})
    raise typer.Exit(0 if len(pictures) == len(drawn) else LOST)


def _class_table(per_class: list[dict[str, Any]]) -> str:
    """The classes in their order; of more than 20 the worst by F1, the worst first."""
    from dlx.cli.output import table

    shown = per_class
    if len(per_class) > SHOWN_CLASSES:
        there = [row for row in per_class if not math.isnan(row["f1"])]
        shown = sorted(there, key=lambda row: row["f1"])[:SHOWN_CLASSES]
    rows = [
        [row["class"], *("-" if math.isnan(row[k]) else f"{row[k]:.4f}" for k in FIGURES), f"{row['count']:,}"]
        for row in shown
    ]
    heading = "class" if shown is per_class else f"worst {len(shown)} of {len(per_class)}"
    return table(rows, [heading, *FIGURES, "count"])
