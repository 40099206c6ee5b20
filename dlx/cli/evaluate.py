"""dlx eval: the best weights of a run on a split of its data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from dlx.cli.options import Json, Root, Run, Trust, trusted


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
    """Evaluate a run's best weights."""
    from dlx.cli.output import print_json, say
    from dlx.runs.find import find_run
    from dlx.training.run import evaluate_run, open_run

    folder = find_run(run, root)
    figures = evaluate_run(folder, split, trust=trusted(trust))
    pictures = []
    if sharpness:
        from dlx.training import sharpness as flatness

        landscape = flatness.Landscape(*open_run(folder, "train", trust=trusted(trust)))
        figures["train/sharpness"] = flatness.sharpness(landscape, epsilon=epsilon)
        pictures.append(folder.media / "landscape.png")
        flatness.draw(flatness.slices(landscape), folder.name).savefig(pictures[-1], dpi=120)
    for name, value in figures.items():
        say(f"{name:<16}{value:.4f}", json)
    for picture in pictures:
        say(f"{'picture':<16}{picture}", json)
    if json:
        print_json({"run": str(folder.path), "metrics": figures, "pictures": [str(picture) for picture in pictures]})
