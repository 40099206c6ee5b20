"""dlx predict: a trained run on files of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlx.cli.options import DEFAULT_ROOT, Json, Root, Run, Trust, existing_path, trusted
from dlx.cli.output import print_json, save_file, save_medium, say
from dlx.config.errors import LOST, UserError

if TYPE_CHECKING:
    from dlx.runs.folder import RunFolder
    from dlx.tasks.system import Answer, Batch, System

AT_ONCE = 64  # samples
FEW = 4  # texts that have a picture each unless --pictures asks for more


@dataclass(frozen=True)
class Line:
    """A line of a file, which is a text."""

    file: Path
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.number}"


Given = Path | str | Line


def predict(
    run: Run,
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE...", help="Files that the run reads: images, .csv or .npy rows, texts; or folders."
        ),
    ] = None,
    text: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="A text to answer to (repeatable).")] = None,
    lines: Annotated[
        bool | None,
        typer.Option(
            "--lines/--whole",
            help="A text in each line of a file, or one text; without it, a text file is "
            "read by lines, but by a language model as one text.",
        ),
    ] = None,
    pictures: Annotated[
        bool | None,
        typer.Option(
            help=f"For each answer that has one, a picture, into the run's media/; of texts the first {FEW} "
            "have one by themselves."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where pictures and files of answers go, instead of the run's media/."),
    ] = None,
    trust: Trust = None,
    json: Json = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Predict what a run was trained for: classes of images, values for rows, boxes, texts."""
    from dlx.runs.find import find_trained

    folder = find_trained(run, root)
    into = None if output is None else output.expanduser()
    if into is not None and not into.is_dir() and into.exists():
        raise UserError(f"--output {output}: is no folder")

    from dlx.training.load import load_completion, load_system

    config = folder.load_config(trust=trusted(trust))
    system = load_system(folder, config)
    name = _input_of(system)
    complete = load_completion(config, system.spec)
    entry = system.spec.entries[name]
    is_text = entry.is_text
    if not is_text and (text or lines is not None):
        raise UserError(f"{'--text' if text else '--lines'}: {type(system).__name__} reads no texts; it reads {name}")
    sources: list[Given] = [*(text or ()), *_sources(files or (), is_text)]
    if is_text and (lines if lines is not None else bool(system.spec.targets)):
        sources = [part for source in sources for part in (_lines(source) if isinstance(source, Path) else [source])]
    if not sources:
        raise UserError(
            f"dlx predict: nothing is given; {'--text TEXT or ' if is_text else ''}files that the run reads"
        )
    found: list[dict[str, Any]] = []
    lost = False
    bad: list[UserError] = []
    means: list[Any] = []
    for source, batch, answers in _answered(system, complete, name, sources, bad):
        few = not is_text or len(found) < FEW
        drawn = few if pictures is None else pictures
        lost |= _report(folder, source, answers, found, json, drawn, is_rows=entry.holds_rows, into=into)
        if batch[name].dim() == 4:
            means.append(batch[name].mean((1, 2, 3), keepdim=True))
    _warn_of_brightness(folder, name, means)
    if bad and not found:
        raise UserError("\n".join(map(str, bad)))
    for error in bad:
        say(f"warning: {error}", json=True)
    told: dict[str, Any] = {"run": str(folder.path), "predictions": found}
    if system.defines("results_file"):
        file, content = system.results_file(found)
        told["results"] = save_file(folder, file, content.encode(), json, into=into, word="results")
        lost |= told["results"] is None
    if json:
        print_json(told)
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
    """The entry that files are read as. Raises UserError for a system without predictions, or with several inputs of
    which it names none."""
    name = type(system).__name__
    if not system.defines("predict") or not system.defines("answer"):
        remedy = "; dlx sample shows what it makes" if system.defines("sample") else ""
        raise UserError(f"dlx predict: {name} has no answers to inputs{remedy}")
    if system.asked:
        return system.asked
    given = system.spec.given
    if len(given) != 1:
        raise UserError(f"dlx predict: {name} reads {', '.join(given)}; predict gives it one input")
    return given[0]


def _lines(path: Path) -> list[Given]:
    """The lines of a text file that are not empty. Raises UserError where it cannot be read or holds none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no text that can be read ({error})") from None
    found: list[Given] = [Line(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise UserError(f"{path}: holds no text")
    return found


def _sources(words: Sequence[str], is_text: bool) -> list[Path]:
    """The files, and those in folders. Raises UserError for what is not there: a text is given by --text."""
    found: list[Path] = []
    missing = []
    for word in words:
        path = existing_path(word)
        if path and path.is_file():
            found.append(path)
        elif path and path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
            if not inside:
                raise UserError(f"{word}: the folder holds no files")
            found += inside
        else:
            missing.append(word)
    if missing:
        raise UserError(f"no such file: {', '.join(missing)}{' (a text is given by --text)' if is_text else ''}")
    return found


def _answered(
    system: System, complete: Callable[[Batch], Batch], name: str, sources: Sequence[Given], bad: list[Any]
) -> Iterator[tuple[Given, Batch, list[Answer]]]:
    """Each source with its answers, predicted in batches. complete: adds the inputs that are made from others. Errors
    of sources that cannot be read go to `bad`."""
    import torch

    waiting: list[tuple[Given, Batch]] = []

    def flush() -> Iterator[tuple[Given, Batch, list[Answer]]]:
        batch = {key: torch.cat([own[key] for _, own in waiting]) for key in waiting[0][1]}
        batch["index"] = torch.arange(len(batch[name]))
        batch = complete(batch)
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
            own = system.spec.read(name, source.text if isinstance(source, Line) else source)
        except UserError as error:
            bad.append(UserError(f"{source}: {error}") if isinstance(source, Line) else error)
            continue
        alike = not waiting or own[name].shape[1:] == waiting[0][1][name].shape[1:]
        if waiting and (not alike or sum(len(b[name]) for _, b in waiting) >= AT_ONCE):
            yield from flush()
        waiting.append((source, own))
    if waiting:
        yield from flush()


def _report(
    folder: RunFolder,
    source: Given,
    answers: Sequence[Answer],
    found: list[dict[str, Any]],
    json: bool,
    pictures: bool,
    *,
    is_rows: bool,
    into: Path | None,
) -> bool:
    """Prints a source's answers and adds them to `found`. Returns True if a file could not be written."""
    if is_rows:
        keys = list(answers[0].json)
        found.append({"file": str(source), **{key: [answer.json[key] for answer in answers] for key in keys}})
        for answer in answers:
            say(f"{source}: {answer.line}", json)
        return False
    lost = False
    for answer in answers:
        entry = {"file": str(source.file if isinstance(source, Line) else source), **answer.json}
        if isinstance(source, Line):
            entry |= {"line": source.number, "input": source.text}
        found.append(entry)
        say(f"{source}: {answer.line}", json)
        name = _picture_name(source, found)
        if pictures and answer.picture is not None:
            title = source.name if isinstance(source, Path) else source.text if isinstance(source, Line) else source
            entry["picture"] = save_medium(folder, name, answer.picture(title), json, into=into)
            lost |= entry["picture"] is None
        if answer.labels is not None:
            labels = save_medium(folder, f"{name}-labels", answer.labels(), json, into=into, word="labels")
            entry["labels"] = labels
            lost |= labels is None
    return lost


def _picture_name(source: Given, found: Sequence[dict[str, Any]]) -> str:
    """A name for a source's picture; sources with the same stem are numbered."""
    from dlx.runs.folder import slug

    text = source.text if isinstance(source, Line) else source
    stem = f"predict-{slug(text.stem if isinstance(text, Path) else text)[:40]}"
    paths = [entry.get(key) for entry in found for key in ("picture", "labels")]
    taken = {Path(path).stem for path in paths if path}
    names = (stem, *(f"{stem}-{n}" for n in range(2, len(taken) + 3)))
    return next(name for name in names if not taken & {name, f"{name}-labels"})
