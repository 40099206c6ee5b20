"""dlx predict: a trained run on files of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlx.cli.options import Json, Root, Run, Trust, trusted

if TYPE_CHECKING:
    from torch import Tensor

    from dlx.runs.folder import RunFolder
    from dlx.tasks.spec import Spec
    from dlx.tasks.system import System


def predict(
    run: Run,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Images; for regression .csv or .npy rows.")],
    pictures: Annotated[
        bool, typer.Option(help="For each image, one of what the network looked at, into the run's media/.")
    ] = True,
    trust: Trust = None,
    json: Json = False,
    root: Root = Path("outputs"),
) -> None:
    """Predict classes of image files, or values for rows of a .csv or .npy file."""
    from dlx.cli.output import LOST, print_json, say
    from dlx.config.errors import UserError
    from dlx.runs.find import find_trained

    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise UserError(f"no such file: {', '.join(missing)}")
    folder = find_trained(run, root)

    import torch

    from dlx.data.files import read_inputs
    from dlx.runs.load import load_system

    system = load_system(folder, trust=trusted(trust))
    found = []
    for file in files:
        inputs = read_inputs(file, system.spec)
        with torch.no_grad():
            found.append((inputs, system.predict({system.spec.input_key: inputs})))
    names, answers = _picture_names(files), []
    for file, (inputs, predicted) in zip(files, found, strict=True):
        answer = {"file": str(file), **_in_words(predicted, system.spec)}
        answers.append(answer)
        if "classes" in answer:
            top = "  ".join(f"{name} {probability:.1%}" for name, probability in answer["classes"].items())
            say(f"{file}: {top}", json)
            if pictures:
                picture = _picture(folder, names[file], system, inputs, predicted["probability"][0], file)
                answer["picture"] = picture
                if picture:
                    say(f"{'picture':<16}{picture}", json)
        else:
            for row in answer["values"]:
                say(f"{file}: " + " ".join(f"{value:.6g}" for value in row), json)
    if json:
        print_json({"run": str(folder.path), "predictions": answers})
    if any(answer.get("picture", "") is None for answer in answers):
        raise typer.Exit(LOST)


def _picture_names(files: list[Path]) -> dict[Path, str]:
    """A name for each file's picture; files of one stem are told apart by their number."""
    from dlx.runs.folder import slug

    names: dict[Path, str] = {}
    for file in files:
        stem = name = f"predict-{slug(file.stem)}"
        number = 1
        while name in (taken for other, taken in names.items() if other != file):
            number += 1
            name = f"{stem}-{number}"
        names[file] = name
    return names


def _picture(
    folder: RunFolder, name: str, system: System, image_BCHW: Tensor, probability_K: Tensor, file: Path
) -> str | None:
    from dlx.cli.output import save_picture
    from dlx.tasks.explain import draw, explain
    from dlx.tasks.spec import ImageSpec

    assert isinstance(system.spec, ImageSpec)
    seen = explain(system, image_BCHW)
    figure = draw(system.spec, image_BCHW[0], probability_K, (seen[0], seen[1][0]) if seen else None, file.name)
    return save_picture(folder, name, figure)


def _in_words(predicted: dict[str, Any], spec: Spec) -> dict[str, Any]:
    from dlx.tasks.explain import top_classes
    from dlx.tasks.spec import ImageSpec

    if isinstance(spec, ImageSpec):
        return {"classes": top_classes(spec, predicted["probability"][0], 3)}
    return {"values": predicted["target"].tolist()}
