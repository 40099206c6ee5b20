"""dlx predict: a trained run on files of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlx.cli.options import Json, Root, Run, Trust, trusted

if TYPE_CHECKING:
    from dlx.tasks.spec import Spec


def predict(
    run: Run,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Images; for regression .csv or .npy rows.")],
    trust: Trust = None,
    json: Json = False,
    root: Root = Path("outputs"),
) -> None:
    """Predict classes of image files, or values for rows of a .csv or .npy file."""
    from dlx.cli.output import print_json, say
    from dlx.config.errors import UserError
    from dlx.runs.find import find_run

    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise UserError(f"no such file: {', '.join(missing)}")
    folder = find_run(run, root)

    import torch

    from dlx.data.files import read_inputs
    from dlx.runs.load import load_system

    system = load_system(folder, trust=trusted(trust))
    answers: list[dict[str, Any]] = []
    for file in files:
        inputs = read_inputs(file, system.spec)
        with torch.no_grad():
            predicted = system.predict({system.spec.input_key: inputs})
        answers.append({"file": str(file), **_in_words(predicted, system.spec)})
    for answer in answers:
        if "classes" in answer:
            top = "  ".join(f"{name} {probability:.1%}" for name, probability in answer["classes"].items())
            say(f"{answer['file']}: {top}", json)
        else:
            for row in answer["values"]:
                say(f"{answer['file']}: " + " ".join(f"{value:.6g}" for value in row), json)
    if json:
        print_json({"run": str(folder.path), "predictions": answers})


def _in_words(predicted: dict[str, Any], spec: Spec) -> dict[str, Any]:
    from dlx.tasks.spec import ImageSpec

    if isinstance(spec, ImageSpec):
        probability, label = predicted["probability"][0].topk(min(3, spec.num_outputs))
        names = [spec.classes[index] for index in label.tolist()]
        return {"classes": dict(zip(names, probability.tolist(), strict=True))}
    return {"values": predicted["target"].tolist()}
