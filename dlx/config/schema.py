"""A JSON schema of configurations (draft 2020-12), made from the same signatures that the check reads."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlx.config.check import TOP_LEVEL, is_allowed
from dlx.config.groups import GROUPS, Group, option_file, options, params_of
from dlx.config.parts import part_of
from dlx.config.signature import COMPUTED, REQUIRED, Param, read
from dlx.config.types import MAPPINGS, SEQUENCES, choices, members, type_name
from dlx.config.yaml import read_yaml

_TYPES = {"int": "integer", "float": "number", "str": "string", "Path": "string", "bool": "boolean", "None": "null"}


def json_schema(conf_dirs: Sequence[Path | str] = (), trust: Sequence[str] = ()) -> dict[str, Any]:
    """Validates what `dlx config` prints and what run folders hold."""
    properties: dict[str, Any] = {name: _property(param) for name, param in TOP_LEVEL.items()}
    properties["choices"] = {"type": "object"}
    properties["format"] = {"type": "integer"}
    for name, group in GROUPS.items():
        blocks = _blocks(name, group, conf_dirs, trust)
        if group.many:
            properties[name] = {
                "type": "object",
                "properties": blocks,
                "additionalProperties": False,
            }
        else:
            unique = {block["properties"]["_target_"]["const"]: block for block in blocks.values()}
            properties[name] = {"anyOf": list(unique.values())}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "dlx configuration",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _blocks(
    name: str, group: Group, conf_dirs: Sequence[Path | str], trust: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """A schema for each option of a group that names a class."""
    blocks = {}
    for option, description in options(name, conf_dirs).items():
        path = option_file(name, option, conf_dirs)
        content = (read_yaml(path) if path else None) or {}
        block = content.get(option if group.many else name) or content
        target = block.get("_target_") if isinstance(block, dict) else None
        if not isinstance(target, str) or not is_allowed(target, trust) or (signature := read(target)) is None:
            continue
        params = params_of(group, signature)
        blocks[option] = {
            "type": "object",
            "title": target.rpartition(".")[2],
            "description": description,
            "properties": {
                "_target_": {"const": target},
                **{key: _property(param) for key, param in params.items()},
            },
            "required": ["_target_", *(key for key, param in params.items() if param.required)],
            "additionalProperties": False,
        }
    return blocks


def _property(param: Param) -> dict[str, Any]:
    if part_of(param) is not None:  # an option of another group, or its block
        return {}
    schema = _of(param.annotation)
    if param.default not in (REQUIRED, COMPUTED, None):
        schema["default"] = list(param.default) if isinstance(param.default, tuple) else param.default
    return schema


def _of(annotation: ast.expr | None) -> dict[str, Any]:
    if annotation is None:
        return {}
    alternatives: list[dict[str, Any]] = []
    for member in members(annotation):
        name = type_name(member)
        if fixed := choices(member):
            alternatives.append({"enum": fixed})
        elif name in _TYPES:
            alternatives.append({"type": _TYPES[name]})
        elif name in SEQUENCES:
            alternatives.append({"type": "array"})
        elif name in MAPPINGS:
            alternatives.append({"type": "object"})
        elif len(members(annotation)) == 1:
            return {}
    return alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives} if alternatives else {}
