"""Reading YAML that may come from anywhere: plain data only, bounded, no duplicate keys, scalars as in YAML 1.2.

`yes` and `1:30` are text, as they are on the command line, and so is `010`: of the two numbers that it may mean
neither is guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dlx.config.errors import UserError

FORMAT = 1  # of config.yaml and spec.json
MAX_BYTES = 1 << 20
MAX_DEPTH = 50
MAX_NODES = 100_000

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)$|0o[0-7]+$|0x[0-9a-fA-F]+$")
_FLOAT = re.compile(
    r"(?:[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+|[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)|[-+]?\.inf|\.nan)$",
    re.IGNORECASE,
)
# What a scalar without quotes is, the first that fits: kind, form, and how it may begin.
_SCALARS = (
    ("null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+0123456789.")),
)
_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")  # a date, a set or bytes are no configuration's


class _Loader(yaml.SafeLoader):
    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = self._nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise self._error("aliases are not used here")
        self._depth += 1
        self._nodes += 1
        if self._depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise self._error("nested too deep" if self._depth > MAX_DEPTH else "too many values")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def _error(self, what: str) -> yaml.YAMLError:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        return yaml.constructor.ConstructorError(None, None, what, mark)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a string", key_node.start_mark)
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
    """Of libyaml, ten times faster; for lists of many runs. A folder may come from anywhere: it is bounded alike."""

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        seen: set[int] = set()
        waiting = [(node, 1)] if node is not None else []
        while waiting:
            part, depth = waiting.pop()
            if id(part) in seen or depth > MAX_DEPTH or len(seen) >= MAX_NODES:
                bounds = "nested too deep" if depth > MAX_DEPTH else "too many values"
                what = "aliases are not used here" if id(part) in seen else bounds
                raise yaml.constructor.ConstructorError(None, None, what, part.start_mark)
            seen.add(id(part))
            if isinstance(part, yaml.MappingNode):
                waiting += [(item, depth + 1) for pair in part.value for item in pair]
            elif isinstance(part, yaml.SequenceNode):
                waiting += [(item, depth + 1) for item in part.value]
        return node


def _construct_int(loader: Any, node: yaml.ScalarNode) -> int:
    """Also of what an explicit tag calls one."""
    text = loader.construct_scalar(node)
    if not _INT.match(text):
        raise yaml.constructor.ConstructorError(None, None, f"{text!r} is not an integer", node.start_mark)
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _construct_float(loader: Any, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).lower()
    if not _FLOAT.match(text) and not _INT.match(text):
        raise yaml.constructor.ConstructorError(None, None, f"{text!r} is not a number", node.start_mark)
    if text.endswith(".inf"):
        return -math.inf if text.startswith("-") else math.inf
    return math.nan if text == ".nan" else float(text)


for _class in (_Loader, _FastLoader):
    _class.yaml_implicit_resolvers = {}
    for _kind, _form, _starts in _SCALARS:
        _class.add_implicit_resolver(_TAG + _kind, _form, _starts)
    _class.yaml_constructors = {
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.removeprefix(_TAG) in _PLAIN
    }
    _class.add_constructor(f"{_TAG}int", _construct_int)
    _class.add_constructor(f"{_TAG}float", _construct_float)
# Beside those of YAML 1.1: text that is a number or a truth value to any reader is quoted.
for _kind, _form, _starts in _SCALARS:
    _Dumper.add_implicit_resolver(_TAG + _kind, _form, _starts)


def dump_yaml(values: Any) -> str:
    """YAML that `read_yaml` reads back as the same values."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> Any:
    """Raises UserError with the file and line of what is wrong."""
    return _read(path, _Loader)


def read_frozen(path: Path) -> Any:
    """As read_yaml, faster, for a file of a run folder that is shown and not built from. Refuses links."""
    if path.is_symlink():
        raise UserError(f"{path}: is a link")
    return _read(path, _FastLoader)


def _read(path: Path, loader: Any) -> Any:
    text = read_text(path)
    try:
        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise broken(error, path) from None


def read_text(path: Path) -> str:
    """A file's text, without a byte order mark. Raises UserError naming the file."""
    if not path.is_file():
        raise UserError(f"{path}: {'is no file' if path.exists() else 'there is no such file'}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES // 1024} KiB, which no configuration is")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def line_of(path: Path, keys: Sequence[str]) -> int | None:
    """The line of the value of nested keys in a file; None if it has no such value."""
    try:
        node = yaml.compose(read_text(path), Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError, UserError):
        return None
    for key in keys:
        if isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
            node = node.value[int(key)]
            continue
        found = [value for name, value in node.value if name.value == key] if isinstance(node, yaml.MappingNode) else []
        if not found:
            return None
        node = found[0]
    return node.start_mark.line + 1 if node is not None else None


def broken(error: Exception, path: Path | str) -> UserError:
    """The error for a file that is not valid YAML, with the line if it is known."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        return UserError(f"{path}{line}: broken YAML: {error.problem}")
    return UserError(f"{path}: broken YAML: {error}".splitlines()[0])
