"""Completion of overrides for the shell: groups, options, keys and fixed values. Imports neither torch nor hydra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlx.config.groups import GROUPS, SHORT_NAMES, option_file, options
from dlx.config.overrides import long_name
from dlx.config.signature import Param, read
from dlx.config.types import choices, members
from dlx.config.yaml import read_yaml

DEFAULTS = {"model": "mlp", "dataset": "digits", "optimizer": "adam", "scheduler": "constant", "trainer": "default"}


def complete(word: str, earlier: Sequence[str] = (), conf_dirs: Sequence[Path | str] = ()) -> list[str]:
    """What `word` may become, given the overrides before it."""
    key, equals, value = word.partition("=")
    if not equals:
        return _complete_key(word, earlier, conf_dirs)
    group = long_name(key)
    if group in GROUPS:
        head, bracket, last = value.rpartition("," if "," in value else "[")
        names = [name for name in options(group, conf_dirs) if name.startswith(last if bracket or not head else value)]
        return [f"{key}={head}{bracket}{name}" for name in names]
    group, _, name = group.partition(".")
    param = _params(group, earlier, conf_dirs).get(name)
    if param is None or param.annotation is None:
        return []
    fixed = [str(choice) for member in members(param.annotation) for choice in choices(member)]
    return [f"{key}={choice}" for choice in fixed if choice.startswith(value)]


def _complete_key(word: str, earlier: Sequence[str], conf_dirs: Sequence[Path | str]) -> list[str]:
    first, dot, _ = word.partition(".")
    if not dot:
        names = [*GROUPS, *SHORT_NAMES]
        return [f"{name}=" for name in (*names, "seed", "name", "output_root") if name.startswith(word)]
    group = long_name(first)
    return [f"{first}.{name}=" for name in _params(group, earlier, conf_dirs) if f"{first}.{name}".startswith(word)]


def _params(group: str, earlier: Sequence[str], conf_dirs: Sequence[Path | str]) -> dict[str, Param]:
    """The keys of a group's block under the option that was typed, or the usual one."""
    if group not in GROUPS or GROUPS[group].many:
        return {}
    chosen = DEFAULTS.get(group)
    for word in earlier:
        key, _, value = word.partition("=")
        if long_name(key) == group:
            chosen = value
    path = option_file(group, str(chosen), conf_dirs)
    if path is None:
        return {}
    content = read_yaml(path) or {}
    target = (content.get(group) or content).get("_target_")
    signature = read(target) if isinstance(target, str) else None
    shared = read(GROUPS[group].shared or "")
    params = {**(signature.params if signature else {}), **(shared.params if shared else {})}
    return {name: param for name, param in params.items() if name not in GROUPS[group].given}
