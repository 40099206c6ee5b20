"""Arguments that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlx.config import Config


def complete_override(ctx: typer.Context, incomplete: str) -> list[str]:
    """Groups, options and keys for the shell."""
    from dlx.config.complete import complete

    return complete(incomplete, ctx.params.get("overrides") or [], ctx.params.get("conf_dir") or ())


def complete_run(incomplete: str) -> list[str]:
    from dlx.runs.find import all_runs

    return [name for name in ("@last", *(run.name for run in all_runs())) if name.startswith(incomplete)]


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
Root = Annotated[Path, typer.Option("--root", help="Where runs are.")]


def frozen(run: str | None, trust: tuple[str, ...]) -> Config | None:
    """The configuration of `--from RUN`."""
    if run is None:
        return None
    from dlx.config import Config
    from dlx.runs.find import find_run

    return Config.load(find_run(run).config_path, trust=trust)


Given = Annotated[
    list[str] | None, typer.Option("--given", metavar="NAME=VALUE", help="An argument, such as label=7 (repeatable).")
]


def pairs(words: Sequence[str] | None, option: str) -> dict[str, str]:
    """NAME=VALUE words by name."""
    from dlx.config.errors import UserError

    found: dict[str, str] = {}
    for word in words or ():
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UserError(f"{option} {word}: must be NAME=VALUE")
        if name in found:
            raise UserError(f"{option} {name}: is given twice")
        found[name] = value
    return found


def trusted(trust: list[str] | None) -> tuple[str, ...]:
    """--trust and DLX_TRUST (separated by commas)."""
    from_environment = [name for name in os.environ.get("DLX_TRUST", "").split(",") if name]
    return (*(trust or ()), *from_environment)


def again(trust: Sequence[str] | None) -> str:
    """What a command must be given that loads a run of this one: what configurations name is not trusted for ever."""
    return "".join(f" --trust {name}" for name in trust or ())
