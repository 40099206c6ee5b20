"""dlx show: a model's layers, parameters and FLOPs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlx.cli.options import DEFAULT_ROOT, ConfDirs, Json, Root, Trust, complete_run_or_override, trusted
from dlx.cli.output import print_json, say, table
from dlx.config import build, build_shared, compose
from dlx.config.errors import UserError
from dlx.config.groups import option_names, options

if TYPE_CHECKING:
    from dlx.runs.folder import RunFolder
    from dlx.tasks.summary import Summary


Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN] [OVERRIDES]...",
        help="A run whose system is shown, and choices and values: model=resnet model.depth=50",
        autocompletion=complete_run_or_override,
    ),
]


def show(
    overrides: Words = None,
    conf_dir: ConfDirs = None,
    trust: Trust = None,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Show a model layer by layer, of a configuration or a run: dlx show model=resnet model.depth=50"""
    words, allowed = list(overrides or ()), trusted(trust)
    folder = _run_of(words.pop(0), root) if words and "=" not in words[0] and words[0][:1] != "~" else None
    base = folder.load_config(trust=allowed) if folder else None
    config = compose(words, conf_dirs=conf_dir or (), trust=allowed, base=base)

    from dlx.tasks.summary import summarize
    from dlx.training.load import build_meta, load_spec

    is_run = folder is not None and (folder.path / "spec.json").is_file() and not words
    if folder is not None and is_run:
        spec = load_spec(folder, trust=allowed)
    else:
        spec = build_shared(config, "dataset").spec(build(config, "dataset"))
    _, system = build_meta(config, spec)
    description = options("model", conf_dir or ()).get(str(config.choices["model"]), "")
    summary = summarize(system)
    if json:
        print_json(
            {
                "run": str(folder.path) if folder else None,
                "model": config.choices["model"],
                "description": description,
                "parameters": summary.parameters,
                "flops": summary.flops,
                "layers": [{**vars(row), "shape": list(row.shape)} for row in summary.rows],
            }
        )
        return
    if folder:
        say(f"{'run':<16}{folder.path}")
    say(description)
    print_summary(summary)


def _run_of(word: str, root: Path) -> RunFolder:
    from dlx.runs.find import find_trained

    try:
        return find_trained(word, root)
    except UserError as error:
        if word in option_names("model"):
            raise UserError(f"{word}: is no run; did you mean model={word}?") from None
        raise error


def print_summary(summary: Summary, layers: bool = True) -> None:
    """The layer table and the totals; shapes are per sample, a multiply-add counts as 2 FLOPs."""
    if layers and summary.rows:
        rows = [
            [row.name, row.type, "x".join(map(str, row.shape)), f"{row.parameters:,}" if row.parameters else ""]
            for row in summary.rows
        ]
        say(table(rows, ["layer", "type", "output", "parameters"]))
    say(f"parameters      {summary.parameters:,}")
    if summary.flops is not None:
        say(f"FLOPs           {summary.flops:,} per sample")
