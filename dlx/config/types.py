"""Converts values to their annotated types, or says what the type expects."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

from dlx.config.groups import nearest


class Mismatch(Exception):
    """A value does not fit its annotation. The text says what is expected."""


SEQUENCES = {"list", "List", "tuple", "Tuple", "Sequence", "Iterable"}
MAPPINGS = {"dict", "Dict", "Mapping"}
_KNOWN = {"int", "float", "str", "bool", "None", "Any", "Literal", "Path", *SEQUENCES, *MAPPINGS}


def members(annotation: ast.expr) -> list[ast.expr]:
    """The alternatives of a union; an annotation that is none is its own only member."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return members(ast.parse(annotation.value, mode="eval").body)
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return [*members(annotation.left), *members(annotation.right)]
    if isinstance(annotation, ast.Subscript):
        name = type_name(annotation)
        inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        if name == "Union":
            return [m for part in inner for m in members(part)]
        if name == "Optional":
            return [*members(inner[0]), ast.Constant(None)]
    return [annotation]


_WORDS = {
    "int": "an integer", "float": "a number", "str": "a string", "bool": "true or false", "None": "null",
    "Path": "a path",
}  # fmt: skip
_PLURALS = {"an integer": "integers", "a number": "numbers", "a string": "strings", "true or false": "booleans"}


def _describe_sequence(member: ast.Subscript) -> str:
    inner = member.slice.elts if isinstance(member.slice, ast.Tuple) else [member.slice]
    is_tuple = type_name(member) in ("tuple", "Tuple")
    count = f"{len(inner)} " if is_tuple and ast.unparse(inner[-1]) != "..." else ""
    item = describe(inner[0])
    return f"a list of {count}{_PLURALS[item]}" if item in _PLURALS else "a list"


def describe(annotation: ast.expr) -> str:
    """The annotation in words: `a number`, `one of relu, tanh`, `a list of 2 numbers`."""
    texts = []
    for member in members(annotation):
        name = ast.unparse(member)
        if name.rpartition(".")[2].startswith("Literal["):
            texts.append("one of " + ", ".join(str(choice) for choice in choices(member)))
        elif name in _WORDS:
            texts.append(_WORDS[name])
        elif isinstance(member, ast.Subscript):
            texts.append(_describe_sequence(member) if type_name(member) in SEQUENCES else "a mapping")
    return " or ".join(texts) or ast.unparse(annotation)


def choices(member: ast.expr) -> list[Any]:
    """The values of a Literal; empty for any other annotation."""
    if isinstance(member, ast.Subscript) and type_name(member) == "Literal":
        inner = member.slice.elts if isinstance(member.slice, ast.Tuple) else [member.slice]
        return [ast.literal_eval(part) for part in inner]
    return []


def convert(value: Any, annotation: ast.expr | None, raw: str | None = None) -> Any:
    """The value as its annotated type. Raises Mismatch. raw: the text that the user typed; it is the value of a `str`.

    Types that YAML cannot express are ignored in a union; an annotation of only such types is not checked.
    """
    if annotation is None:
        return value
    alternatives = members(annotation)
    known = [member for member in alternatives if type_name(member) in _KNOWN]
    if not known:
        return value
    for member in known:
        fits, converted = _convert_one(value, member)
        if fits:
            return converted
    names = [ast.unparse(member) for member in known]
    if raw is not None and value is not None and "str" in names:
        return raw
    if raw and value is not None and "Path" in names:
        return _convert_one(raw, ast.Name("Path"))[1]
    allowed = [str(choice) for member in known for choice in choices(member)]
    hint = nearest(str(value), allowed) if allowed else ""
    raise Mismatch(f"must be {describe(annotation)}, got {value!r}{hint}")


def type_name(member: ast.expr) -> str:
    """The last part of a type's name, without its arguments."""
    return ast.unparse(member.value if isinstance(member, ast.Subscript) else member).rpartition(".")[2]


def _convert_one(value: Any, member: ast.expr) -> tuple[bool, Any]:
    subscript = member if isinstance(member, ast.Subscript) else None
    name = type_name(member)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name == "Any":
        return True, value
    if name == "None":
        return value is None, None
    if name == "bool":
        return isinstance(value, bool), value
    if name == "int":
        return number and isinstance(value, int), value
    if name == "float":
        return (True, float(value)) if number and math.isfinite(value) else (False, None)
    if name == "str":
        return isinstance(value, str), value
    if name == "Path":  # absolute: a run goes on from wherever it is resumed
        return isinstance(value, str) and bool(value), str(Path(str(value)).expanduser().absolute())
    if name == "Literal":
        return any(value == c and type(value) is type(c) for c in choices(member)), value
    if name in MAPPINGS:
        return isinstance(value, dict), value
    return _convert_sequence(value, subscript, is_tuple=name in ("tuple", "Tuple"))


def _convert_sequence(value: Any, subscript: ast.Subscript | None, is_tuple: bool) -> tuple[bool, Any]:
    if not isinstance(value, list | tuple):
        return False, None
    if subscript is None:
        return True, list(value)
    inner = subscript.slice.elts if isinstance(subscript.slice, ast.Tuple) else [subscript.slice]
    if is_tuple and ast.unparse(inner[-1]) != "...":
        if len(inner) != len(value):
            return False, None
        types = inner
    else:
        types = [inner[0]] * len(value)
    try:
        return True, [convert(item, kind) for item, kind in zip(value, types, strict=True)]
    except Mismatch:
        return False, None
