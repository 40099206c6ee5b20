"""Parses overrides such as `model=resnet optim.lr=1e-3 reg=[mixup] ~model.dropout`, by Hydra's own grammar."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from dlx.config.errors import Problem, UserError
from dlx.config.groups import GROUPS
from dlx.config.habits import is_hydras, own_way_of_key
from dlx.config.keys import long_key, short_key
from dlx.config.types import Mismatch, convert

_FORM = re.compile(r"(?P<sign>\+\+|\+|~)?(?P<key>[^=\s]+?)(?P<rest>=.*)?", re.DOTALL)


@dataclass(frozen=True)
class Value:
    """One dotted key and its value. raw: the text behind `=`. delete: of `~key`. argument: all of it, as typed."""

    key: str
    value: Any = None
    raw: str = ""
    delete: bool = False
    argument: str = field(default="", compare=False)


@dataclass
class Overrides:
    """Group choices and values, in the order of the command line."""

    choices: dict[str, str | list[str] | None] = field(default_factory=dict)
    values: list[Value] = field(default_factory=list)


def quoted(text: str) -> str:
    """The text in quotes, which Hydra's grammar reads as a string."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _plain(value: Any) -> Any:
    """A value of Hydra's parser as plain Python data."""
    from hydra.core.override_parser.types import QuotedString

    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return value


def parse_override(text: str) -> Any:
    """Hydra's `Override` of one word such as `optim.lr=1e-3`. Raises ValueError with the grammar's reason."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ValueError(str(error).splitlines()[0].rpartition("': ")[2]) from None


def _parse_quoting(text: str) -> Any:
    """As `parse_override`; a value that the grammar rejects is quoted. None if that fails too."""
    key, equals, value = text.partition("=")
    can_quote = equals and value[:1] not in "[{'\""
    for attempt in [text, f"{key}={quoted(value)}"] if can_quote else [text]:
        with suppress(ValueError):
            return parse_override(attempt)
    return None


def convert_text(key: str, text: str, annotation: ast.expr | str | None) -> Any:
    """A text that a person typed as its annotated type. key: begins the UserError that this raises."""
    overrides, problems = parse([f"value={text}"])
    if problems:
        raise UserError(f"{key}: cannot be read, got {text!r}")
    expression = ast.parse(annotation, mode="eval").body if isinstance(annotation, str) else annotation
    try:
        return convert(overrides.values[0].value, expression, text)
    except Mismatch as mismatch:
        raise UserError(f"{key}: {mismatch}") from None


def parse(arguments: Sequence[str]) -> tuple[Overrides, list[Problem]]:
    """The overrides that can be read, and a problem for each that cannot."""
    overrides = Overrides()
    problems = [problem for argument in arguments if (problem := _add(argument, overrides))]
    return overrides, problems


def _add(argument: str, overrides: Overrides) -> Problem | None:
    match = _FORM.fullmatch(argument)
    if not match or (match["rest"] is None and match["sign"] != "~"):
        return Problem(argument, "is not of the form key=value, such as model=resnet or optim.lr=1e-3")
    key = long_key(match["key"])
    if is_hydras(key):
        return Problem(argument, f"dlx has no settings of Hydra's; {own_way_of_key(key)}")
    parsed = _parse_quoting((match["sign"] or "") + key + (match["rest"] or ""))
    if parsed is None:
        return Problem(argument, "cannot be read; quote what has special characters: 'key=\"a, b\"'")
    raw = (match["rest"] or "=")[1:]
    if parsed.is_sweep_override():
        from hydra.core.override_parser.types import ChoiceSweep

        is_list = key in GROUPS and GROUPS[key].many and isinstance(parsed.value(), ChoiceSweep)
        remedy = f"; several at once are {short_key(key)}=[{raw}]" if is_list else ""
        return Problem(key, f"takes one value in one run, got {raw}{remedy}")
    if key not in GROUPS:
        if problem := _repeated(key, argument, overrides.values):
            return problem
        value = None if parsed.is_delete() else _plain(parsed.value())
        overrides.values.append(Value(key, value, raw, parsed.is_delete(), argument))
        return None
    if key in overrides.choices:
        return Problem(key, f"is chosen twice: {overrides.choices[key]} and {raw}")
    choice = None if parsed.is_delete() else _plain(parsed.value())
    if GROUPS[key].many:
        names = choice if isinstance(choice, list) else [] if choice is None else [choice]
        overrides.choices[key] = [str(name) for name in names]
    elif isinstance(choice, list | dict):
        return Problem(key, f"takes one option, got {raw}")
    else:
        overrides.choices[key] = None if choice is None else str(choice)
    return None


def _repeated(key: str, argument: str, earlier: Sequence[Value]) -> Problem | None:
    """The problem of a word that would have no effect, or undo an earlier one."""
    for value in earlier:
        if value.key == key:
            return Problem(key, f"is given twice: {value.argument} and {argument}")
        if value.key.startswith(f"{key}."):
            return Problem(key, f"would undo {value.argument}, which is before it; give {argument} first")
    return None
