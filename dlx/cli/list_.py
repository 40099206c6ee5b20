"""dlx list: the groups and their options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from dlx.cli.options import ConfDirs, Json
from dlx.cli.output import print_json, say
from dlx.config.course import history, lectures
from dlx.config.errors import UserError
from dlx.config.groups import GROUPS, group_name, option_file, option_names, options
from dlx.config.yaml import read_text

LEAST_ROOM = 20  # columns for a description


def complete_group(incomplete: str) -> list[str]:
    return [name for name in GROUPS if name.startswith(incomplete)]


def list_options(
    group: Annotated[
        str | None, typer.Argument(help="model, dataset, optimizer, ...", autocompletion=complete_group)
    ] = None,
    as_history: Annotated[
        bool, typer.Option("--history", help="With `model`: the systems that the course looks back on, by year.")
    ] = False,
    as_lectures: Annotated[
        bool, typer.Option("--lectures", help="Each lecture's systems and claims, with their commands.")
    ] = False,
    conf_dir: ConfDirs = None,
    json: Json = False,
) -> None:
    """List the groups, or the options of one of them; the recipes of papers and models come last."""
    folders = conf_dir or ()
    if as_history or as_lectures:
        _show_course(group, as_history, as_lectures, json)
        return
    if group is None:
        names = {name: option_names(name, folders) for name in GROUPS}
        if json:
            print_json({name: ", ".join(found) for name, found in names.items()})
        else:
            _show("group", {name: _without_recipes(name, found, folders) for name, found in names.items()})
        return
    group = group_name(group)
    texts = options(group, folders)
    if json:
        print_json(texts)
        return
    recipes = _recipes(group, list(texts), folders)
    _show("claim" if group == "experiment" else "option", {n: text for n, text in texts.items() if n not in recipes})
    if recipes:
        _show("\nrecipe", {name: texts[name] for name in recipes})


def _show_course(group: str | None, as_history: bool, as_lectures: bool, json: bool) -> None:
    if as_history and as_lectures:
        raise UserError("--history and --lectures are two lists; give one of them")
    if as_history:
        if group_name(group or "model") != "model":
            raise UserError(f"--history lists models; {group} has none (dlx list model --history)")
        events = history()
        if json:
            print_json([{"year": e.year, "name": e.name, "command": e.shows.command} for e in events])
            return
        names = {event: f"{event.year}  {event.name}" for event in events}
        width = max(map(len, names.values()))
        _show("year  system", {f"{name:<{width}}  {event.shows.command}": "" for event, name in names.items()})
        return
    if group:
        raise UserError(f"--lectures lists all of the course; leave {group} out")
    if json:
        print_json(
            [{"lecture": each.title, "commands": [shown.command for shown in each.shows]} for each in lectures()]
        )
        return
    width = max(len(shown.command) for each in lectures() for shown in each.shows)
    for number, each in enumerate(lectures(), 1):
        texts = {f"{shown.command:<{width}}": shown.text for shown in each.shows}
        _show(f"{chr(10) if number > 1 else ''}{number}. {each.title}", texts)


def _recipes(group: str, names: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """The options that are recipes of a paper or a model; also an experiment that is not a claim."""
    import re

    if group != "experiment":
        return [name for name in names if "/" in name]
    found = []
    for name in names:
        path = option_file(group, name, folders)
        try:
            text = read_text(path) if path else ""
        except UserError:  # its description says what is wrong with it
            continue
        if not re.search(rf"^{group}:", text, re.MULTILINE):
            found.append(name)
    return found


def _without_recipes(group: str, names: Sequence[str], folders: Sequence[Path]) -> str:
    recipes = _recipes(group, names, folders)
    more = f"{'; ' if len(recipes) < len(names) else ''}{len(recipes)} recipes" if recipes else ""
    return ", ".join(name for name in names if name not in recipes) + more


def _show(heading: str, texts: dict[str, str]) -> None:
    """Prints names with their descriptions, wrapped to the terminal; one line each elsewhere."""
    import shutil
    import sys
    import textwrap

    width = max(map(len, texts), default=0)
    room = shutil.get_terminal_size().columns - width - 2 if sys.stdout.isatty() else 0
    say(heading)
    for name, text in texts.items():
        lines = textwrap.wrap(text, room, break_on_hyphens=False) if room >= LEAST_ROOM else [text]
        for number, line in enumerate(lines or [""]):
            say(f"{name if not number else '':<{width}}  {line}".rstrip())
