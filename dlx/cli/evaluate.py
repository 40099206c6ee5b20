"""dlx eval: the best weights of a run on a split of its data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dlx.cli.options import Json, Root, Run, Trust, trusted


def evaluate(
    run: Run,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Which samples.")] = "test",
    trust: Trust = None,
    json: Json = False,
    root: Root = Path("outputs"),
) -> None:
    """Evaluate a run's best weights."""
    from dlx.cli.output import print_json, say
    from dlx.runs.find import find_run
    from dlx.training.run import evaluate_run

    folder = find_run(run, root)
    figures = evaluate_run(folder, split, trust=trusted(trust))
    for name, value in figures.items():
        say(f"{name:<16}{value:.4f}", json)
    if json:
        print_json({"run": str(folder.path), "metrics": figures})
