"""Reading YAML that may come from anywhere: plain data only, bounded, no duplicate keys, floats as in YAML 1.2."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from dlx.config.errors import UserError

FORMAT = 1  # of config.yaml and spec.json
MAX_BYTES = 1 << 20
MAX_DEPTH = 50


class _Loader(yaml.SafeLoader):
    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.constructor.ConstructorError(None, None, "aliases are not used here", event.start_mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.constructor.ConstructorError(None, None, "nested too deep", self.peek_event().start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, "a key must be text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is there twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that the loader would read as a number, and writes a list that two blocks share twice: the loader
    refuses aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # Line breaks other than \n are lost unless they are escaped.
    style = '"' if any(mark in text for mark in "\r\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _represent_text)


class _FastLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Of libyaml, ten times faster; for lists of many runs, whose configurations dlx checked and wrote."""


for _class in (_Loader, _Dumper, _FastLoader):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(
            r"(?:[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+|[-+]?(?:\d+\.\d*|\.\d+)|[-+]?\.inf|\.nan)$", re.IGNORECASE
        ),
        list("-+0123456789."),
    )


def dump_yaml(values: Any) -> str:
    """YAML that `read_yaml` reads back as the same values."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> Any:
    """Raises UserError with the file and line of what is wrong."""
    return _read(path, _Loader)


def read_frozen(path: Path) -> Any:
    """As read_yaml, of a configuration that dlx wrote: to look at, not to build from."""
    return _read(path, _FastLoader)


def _read(path: Path, loader: Any) -> Any:
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path}: larger than {MAX_BYTES // 1024} KiB, which no configuration is")
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise broken(error, path) from None


def broken(error: Exception, path: Path | str) -> UserError:
    """What is wrong with a file, with its line where that is known."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        return UserError(f"{path}{line}: broken YAML: {error.problem}")
    return UserError(f"{path}: broken YAML: {error}".splitlines()[0])
