"""dlx list: what can be chosen."""

from __future__ import annotations

from typing import Annotated

import typer

from dlx.cli.options import ConfDirs, Json


def complete_group(incomplete: str) -> list[str]:
    from dlx.config.groups import GROUPS

    return [name for name in GROUPS if name.startswith(incomplete)]


def list_options(
    group: Annotated[
        str | None, typer.Argument(help="model, dataset, optimizer, ...", autocompletion=complete_group)
    ] = None,
    conf_dir: ConfDirs = None,
    json: Json = False,
) -> None:
    """List the groups, or the options of one of them."""
    from dlx.cli.output import print_json, say, table
    from dlx.config.groups import GROUPS, group_name, options

    if group is None:
        found = {name: ", ".join(options(name, conf_dir or ())) for name in GROUPS}
        heading = "group"
    else:
        found = options(group_name(group), conf_dir or ())
        heading = "option"
    if json:
        print_json(found)
    else:
        say(table([[name, text] for name, text in found.items()], [heading, ""]))
