"""dlx predict: a trained run on files of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlx.cli.options import DEFAULT_ROOT, Json, Root, Run, Trust, trusted
from dlx.cli.output import print_json, save_medium, say
from dlx.config.errors import LOST, UserError

if TYPE_CHECKING:
    from dlx.runs.folder import RunFolder
    from dlx.tasks.system import Answer, Batch, System

AT_ONCE = 64  # samples


def predict(
    run: Run,
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Images, .csv or .npy rows, texts: what the run reads; or folders."),
    ],
    pictures: Annotated[
        bool, typer.Option(help="For each answer that has one, a picture, into the run's media/.")
    ] = True,
    trust: Trust = None,
    json: Json = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Predict what a run was trained for: classes of images, values for rows, boxes, texts."""
    from dlx.runs.find import find_trained

    folder = find_trained(run, root)

    from dlx.tasks.spec import Reals
    from dlx.training.load import load_system

    system = load_system(folder, trust=trusted(trust))
    name = _input_of(system)
    is_rows = isinstance(system.spec.entries[name], Reals)
    sources = _sources(files, system, name)
    found: list[dict[str, Any]] = []
    lost = False
    bad: list[UserError] = []
    means: list[Any] = []
    for source, batch, answers in _answered(system, name, sources, bad):
        lost |= _report(folder, source, answers, found, json, pictures, is_rows=is_rows)
        if batch[name].dim() == 4:
            means.append(batch[name].mean((1, 2, 3), keepdim=True))
    _warn_of_brightness(folder, name, means)
    if bad and not found:
        raise UserError("\n".join(map(str, bad)))
    for error in bad:
        say(f"warning: {error}", json=True)
    if json:
        print_json({"run": str(folder.path), "predictions": found})
    if lost or bad:
        raise typer.Exit(LOST)


def _warn_of_brightness(folder: RunFolder, name: str, means: Sequence[Any]) -> None:
    """Warns of images much brighter or darker than those of the training, such as black digits on white for white ones
    on black: their predictions are mostly wrong."""
    import torch

    from dlx.data.fingerprint import is_far

    if means and is_far(torch.cat(list(means)), (folder.data().get("brightness") or {}).get(name)):
        say("warning: these images are far brighter or darker than those of the training (inverted?)", json=True)


def _input_of(system: System) -> str:
    """The entry that files are read as. Raises UserError for a system without predictions, or with several inputs."""
    from dlx.tasks.spec import Size

    name = type(system).__name__
    if not system.defines("predict") or not system.defines("answer"):
        remedy = "; dlx sample shows what it makes" if system.defines("sample") else ""
        raise UserError(f"dlx predict: {name} has no answers to inputs{remedy}")
    inputs = [key for key, entry in system.spec.inputs.items() if not isinstance(entry, Size)]
    if len(inputs) != 1:
        raise UserError(f"dlx predict: {name} reads {', '.join(inputs)}; predict gives it one input")
    return inputs[0]


def _sources(words: Sequence[str], system: System, name: str) -> list[Path | str]:
    """The files, and those in folders. A system of tokens takes a word that is not a file as a text."""
    from dlx.tasks.spec import Tokens

    found: list[Path | str] = []
    missing = []
    for word in words:
        path = Path(word).expanduser()
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
            if not inside:
                raise UserError(f"{word}: the folder holds no files")
            found += inside
        elif path.is_file():
            found.append(path)
        elif isinstance(system.spec.entries[name], Tokens):
            found.append(word)
        else:
            missing.append(word)
    if missing:
        raise UserError(f"no such file: {', '.join(missing)}")
    return found


def _answered(
    system: System, name: str, sources: Sequence[Path | str], bad: list[Any]
) -> Iterator[tuple[Path | str, Batch, list[Answer]]]:
    """Each source with its answers, predicted in batches. Errors of sources that cannot be read go to `bad`."""
    import torch

    waiting: list[tuple[Path | str, Batch]] = []

    def flush() -> Iterator[tuple[Path | str, Batch, list[Answer]]]:
        batch = {key: torch.cat([own[key] for _, own in waiting]) for key in waiting[0][1]}
        batch["index"] = torch.arange(len(batch[name]))
        with torch.no_grad():
            predicted = system.predict(batch)
        answers = system.answer(batch, predicted)
        for source, own in waiting:
            count = len(own[name])
            yield source, own, answers[:count]
            del answers[:count]
        waiting.clear()

    for source in sources:
        try:
            own = system.spec.read(name, source)
        except UserError as error:
            bad.append(error)
            continue
        alike = not waiting or own[name].shape[1:] == waiting[0][1][name].shape[1:]
        if waiting and (not alike or sum(len(b[name]) for _, b in waiting) >= AT_ONCE):
            yield from flush()
        waiting.append((source, own))
    if waiting:
        yield from flush()


def _report(
    folder: RunFolder,
    source: Path | str,
    answers: Sequence[Answer],
    found: list[dict[str, Any]],
    json: bool,
    pictures: bool,
    *,
    is_rows: bool,
) -> bool:
    """Prints a source's answers and adds them to `found`. Returns True if a picture could not be written."""
    if is_rows:
        keys = list(answers[0].json)
        found.append({"file": str(source), **{key: [answer.json[key] for answer in answers] for key in keys}})
        for answer in answers:
            say(f"{source}: {answer.line}", json)
        return False
    lost = False
    for answer in answers:
        entry = {"file": str(source), **answer.json}
        found.append(entry)
        say(f"{source}: {answer.line}", json)
        if pictures and answer.picture is not None:
            title = source.name if isinstance(source, Path) else source
            path = save_medium(folder, _picture_name(source, found), answer.picture(title), json)
            entry["picture"] = path
            lost |= path is None
    return lost


def _picture_name(source: Path | str, found: Sequence[dict[str, Any]]) -> str:
    """A name for a source's picture; sources with the same stem are numbered."""
    from dlx.runs.folder import slug

    stem = f"predict-{slug(Path(source).stem)}"
    taken = {Path(entry["picture"]).name.partition(".")[0] for entry in found if entry.get("picture")}
    return next(name for name in (stem, *(f"{stem}-{n}" for n in range(2, len(taken) + 3))) if name not in taken)
