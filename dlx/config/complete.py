"""Completion of overrides for the shell: groups, options, keys and fixed values. Imports neither torch nor hydra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlx.config.check import TOP_LEVEL, is_allowed
from dlx.config.errors import UserError
from dlx.config.groups import GROUPS, conf_path, option_file, option_names, params_of, picked
from dlx.config.keys import SHORT_NAMES, long_key
from dlx.config.signature import Param, read
from dlx.config.types import choices, members
from dlx.config.yaml import read_yaml

Folders = Sequence[Path | str]


def complete(word: str, earlier: Sequence[str] = (), conf_dirs: Folders = ()) -> list[str]:
    """What `word` may become, given the overrides before it. A file that cannot be read completes nothing."""
    sign = next((mark for mark in ("++", "+", "~") if word.startswith(mark)), "")
    key, equals, value = word.removeprefix(sign).partition("=")
    try:
        words = _values(key, value, earlier, conf_dirs) if equals else _keys(key, earlier, conf_dirs)
    except (UserError, OSError, SyntaxError):
        return []
    return [sign + (found if equals or sign != "~" else found.removesuffix("=")) for found in words]


def _keys(word: str, earlier: Sequence[str], conf_dirs: Folders) -> list[str]:
    if "." not in word:
        return [f"{name}=" for name in (*GROUPS, *SHORT_NAMES, *TOP_LEVEL) if name.startswith(word)]
    start, _, _ = word.rpartition(".")
    group, _, option = long_key(start).partition(".")
    if group in GROUPS and GROUPS[group].many and not option:
        chosen = _chosen(group, earlier, conf_dirs)
        return [f"{start}.{name}." for name in chosen if f"{start}.{name}".startswith(word)]
    names = _params(long_key(start), earlier, conf_dirs)
    return [f"{start}.{name}=" for name in names if f"{start}.{name}".startswith(word)]


def _values(key: str, value: str, earlier: Sequence[str], conf_dirs: Folders) -> list[str]:
    group = long_key(key)
    if group in GROUPS:
        cut = max(value.rfind(","), value.rfind("[")) + 1
        head, last = value[:cut], value[cut:]
        return [f"{key}={head}{name}" for name in option_names(group, conf_dirs) if name.startswith(last)]
    block, _, name = group.rpartition(".")
    param = _params(block, earlier, conf_dirs).get(name)
    if param is None or param.annotation is None:
        return []
    fixed: list[str] = []
    for member in members(param.annotation):
        fixed += ["true", "false"] if getattr(member, "id", "") == "bool" else map(str, choices(member))
    return [f"{key}={choice}" for choice in fixed if choice.startswith(value)]


def _chosen(group: str, earlier: Sequence[str], conf_dirs: Folders) -> list[str]:
    """The options of a group: the typed ones, else those that the experiment or the model picks, else the defaults."""
    for word in reversed(earlier):
        key, equals, value = word.lstrip("+").partition("=")
        if equals and long_key(key) == group:
            return value.strip("[]").split(",")
    if group not in ("model", "experiment"):
        for picker in ("experiment", "model"):
            for name in _chosen(picker, earlier, conf_dirs):
                if found := picked(option_file(picker, name, conf_dirs), group):
                    return found
    return picked(conf_path() / "config.yaml", group)


def _target(group: str, option: str, conf_dirs: Folders) -> Any:
    """The class of an option; a recipe has that of the option that it begins with (`/optimizer/adam@_here_`)."""
    for _ in range(5):  # recipes upon recipes; a circle ends
        path = option_file(group, option, conf_dirs)
        content = read_yaml(path) if path else None
        if not isinstance(content, dict):
            return None
        inner = content.get(option if GROUPS[group].many else group)
        block = inner if isinstance(inner, dict) else content
        if "_target_" in block:
            return block["_target_"]
        origins = [e for e in content.get("defaults") or () if isinstance(e, str) and e.endswith("@_here_")]
        option = origins[0].removesuffix("@_here_").removeprefix(f"/{group}/") if origins else ""
    return None


def _params(block: str, earlier: Sequence[str], conf_dirs: Folders) -> dict[str, Param]:
    """The keys of a block: `optimizer`, or `regularization.mixup`."""
    group, _, option = block.partition(".")
    if group not in GROUPS or GROUPS[group].many != bool(option):
        return {}
    chosen = [option] if option else _chosen(group, earlier, conf_dirs)
    target = _target(group, chosen[0], conf_dirs) if chosen else None
    signature = read(target) if isinstance(target, str) and is_allowed(target, ()) else None
    return params_of(GROUPS[group], signature)
