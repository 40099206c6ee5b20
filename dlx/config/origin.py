"""Finds where a value comes from: the command line, or a line of a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlx.config.errors import UserError
from dlx.config.groups import GROUPS, conf_path, option_file, package_of, shown
from dlx.config.yaml import line_of, read_text, read_yaml

_LATER = ("experiment", "regularization", "model")  # groups whose files set keys of others, the last composed first


def is_typed(key: str, typed: Mapping[str, Any]) -> bool:
    """True if a key, or a block around it, was given on the command line."""
    return any(key == name or key.startswith(f"{name}.") for name in typed if name not in GROUPS)


def origin(key: str, choices: Mapping[str, Any], conf_dirs: Sequence[Path | str] = ()) -> str | None:
    """The file and line of a key's value, as messages name them; None if no option's file sets it."""
    group, _, rest = key.partition(".")
    for owner in dict.fromkeys([*_LATER, group]):
        chosen = choices.get(owner) or []
        for option in chosen if isinstance(chosen, list) else [chosen]:
            for path, is_global in _files(owner, str(option), conf_dirs):
                keys = key.split(".") if is_global else rest.split(".") if owner == group and rest else []
                if keys and (line := line_of(path, keys)):
                    return f"{shown(path)}, line {line}"
    path = conf_path() / "config.yaml"
    line = line_of(path, key.split("."))
    return f"{shown(path)}, line {line}" if line else None


def _files(group: str, option: str, conf_dirs: Sequence[Path | str], depth: int = 5) -> Iterator[tuple[Path, bool]]:
    """An option's file and the files in its defaults list, each with whether it sets keys of all groups."""
    path = option_file(group, option, conf_dirs)
    if path is None or not depth:
        return
    try:
        is_global, content = package_of(read_text(path)) == "_global_", read_yaml(path)
    except UserError:
        return
    yield path, is_global
    entries = content.get("defaults") if isinstance(content, dict) else None
    for entry in reversed(entries if isinstance(entries, list) else []):
        if isinstance(entry, str) and entry != "_self_":
            other = entry.partition("@")[0]
            name = other.removeprefix(f"/{group}/")
            if not name.startswith("/"):
                yield from _files(group, name, conf_dirs, depth - 1)
