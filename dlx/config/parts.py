"""Parts: objects that another one is built of, each with the keys of the class that it names.

A part is named by option, `model.encoder={name: resnet, depth: 18}`: the block of that option's file, without what the
file picks for other groups, with these keys over it. In a frozen configuration it has its `_target_` beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlx.config.errors import ConfigError, Problem
from dlx.config.groups import GROUPS, Group, nearest, option_file, option_names, shown
from dlx.config.signature import Param, read
from dlx.config.yaml import read_yaml

PARTS = {"proposals": Group("dlx.data.proposals.Proposer", many=True)}
"""Folders of conf/ with options that are parts only: the command line cannot choose them by themselves."""

TRUNK = "dlx.tasks.system.Trunk"
GROUPS_OF_PARTS = {**{name: GROUPS[name] for name in ("model", "regularization")}, **PARTS}


@dataclass(frozen=True)
class Part:
    """group: the group of its options. base: the class that it must inherit. trunk: a model without its head."""

    group: str
    base: str
    trunk: bool = False


def part_of(param: Param) -> Part | None:
    """The part that an argument takes, by the class in its annotation; None for other arguments."""
    for path in param.classes:
        if path == TRUNK:
            return Part("model", GROUPS["model"].base, trunk=True)
        signature = read(path)
        for name, group in GROUPS_OF_PARTS.items():
            if signature and group.base in signature.ancestors:
                return Part(name, signature.path)
    return None


def option_block(part: Part, option: str, key: str, conf_dirs: Sequence[Path | str]) -> tuple[dict[str, Any], str]:
    """The block of an option's file, and how messages name the file. Raises ConfigError."""
    path = option_file(part.group, option, conf_dirs)
    if path is None:
        known = option_names(part.group, conf_dirs)
        message = f"unknown {part.group} {option!r}{nearest(option, known) or ';'} options: {', '.join(known)}"
        raise ConfigError([Problem(f"{key}.name", message)])
    content = read_yaml(path) or {}
    block = content.get(option if part.group == "regularization" else part.group)
    if not isinstance(block, dict) or "_target_" not in block:
        raise ConfigError([Problem(f"{key}.name", f"{option} has no class of its own", shown(path))])
    return dict(block), shown(path)
