"""Arguments that several commands share."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlx.config.complete import complete
from dlx.config.errors import UserError
from dlx.config.overrides import parse, quoted
from dlx.config.root import ROOT, ROOT_VARIABLE, default_root, runs_root

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlx.config import Config


def complete_override(ctx: typer.Context, incomplete: str) -> list[str]:
    """Groups, options and keys for the shell."""
    return complete(incomplete, ctx.params.get("overrides") or [], ctx.params.get("conf_dir") or ())


def complete_run(ctx: typer.Context, incomplete: str) -> list[str]:
    from dlx.runs.find import all_runs

    runs = all_runs(ctx.params.get("root"))
    return [name for name in ("@last", *(run.name for run in runs)) if name.startswith(incomplete)]


def complete_run_or_override(ctx: typer.Context, incomplete: str) -> list[str]:
    runs = [] if "=" in incomplete or ctx.params.get("overrides") else complete_run(ctx, incomplete)
    return [*runs, *complete_override(ctx, incomplete)]


Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[OVERRIDES]...",
        help="Choices and values: model=resnet optim=adam optim.lr=1e-3 reg=[mixup]",
        autocompletion=complete_override,
    ),
]
Run = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A path, a run's name or a part of it, or @last", autocompletion=complete_run),
]
ConfDirs = Annotated[list[Path] | None, typer.Option("--conf-dir", help="A folder of your own options, like conf/.")]
Trust = Annotated[
    list[str] | None,
    typer.Option("--trust", help="A package of yours whose classes configurations may name (also DLX_TRUST)."),
]
From = Annotated[str | None, typer.Option("--from", metavar="RUN", help="Begin with the configuration of this run.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object; all else goes to stderr.")]
Root = Annotated[Path, typer.Option("--root", envvar=ROOT_VARIABLE, help="Where runs are.")]
DEFAULT_ROOT = Path(ROOT)
OutputRoot = Annotated[
    Path | None, typer.Option("--root", help=f"Where runs are: the same as output_root= (also {ROOT_VARIABLE}).")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; results and warnings are printed.")]


def begin(
    overrides: Sequence[str] | None, root: Path | None, from_run: str | None, trust: tuple[str, ...]
) -> tuple[list[str], Config | None]:
    """The overrides with --root among them, and the configuration of `--from RUN`, which is looked for where the new
    run goes."""
    from dlx.runs.find import find_run

    words = list(overrides or ())
    typed = [value for value in parse(words)[0].values if value.key == "output_root"]
    if root is not None:
        if typed and typed[0].value != str(root):
            raise UserError(f"--root {root}: {typed[0].argument} says another folder; give one of them")
        words += [] if typed else [f"output_root={quoted(str(root))}"]
    if from_run is None:
        return words, None
    where = str(typed[0].value or typed[0].raw) if typed else root
    base = find_run(from_run, where).load_config(trust=trust)
    if not typed and root is None and ROOT_VARIABLE in os.environ:
        words.append(f"output_root={quoted(default_root())}")
    return words, base


Given = Annotated[
    list[str] | None, typer.Option("--given", metavar="NAME=VALUE", help="An argument, such as label=7 (repeatable).")
]


def pairs(words: Sequence[str] | None, option: str) -> dict[str, str]:
    """NAME=VALUE words by name."""
    found: dict[str, str] = {}
    for word in words or ():
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UserError(f"{option} {word}: must be NAME=VALUE")
        if name in found:
            raise UserError(f"{option} {name}: is given twice")
        found[name] = value
    return found


def address(run: Path) -> str:
    """How a suggested command names a run: by its name below the default root, else by its path."""
    is_below = run.absolute().is_relative_to(runs_root().absolute())
    return run.name if is_below else shlex.quote(str(run))


def trusted(trust: list[str] | None) -> tuple[str, ...]:
    """--trust and DLX_TRUST (separated by commas)."""
    from_environment = [name for name in os.environ.get("DLX_TRUST", "").split(",") if name]
    return (*(trust or ()), *from_environment)


def again(trust: Sequence[str] | None) -> str:
    """--trust flags for the suggested next command (trust is never stored)."""
    return "".join(f" --trust {name}" for name in trust or ())


def existing_path(word: str) -> Path | None:
    """The file or folder of that name; None for a text, however long, and for `~` of nobody."""
    try:
        path = Path(word).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None
