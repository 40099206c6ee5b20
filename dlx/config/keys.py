"""Dotted keys: their short names, and a nested mapping by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SHORT_NAMES = {"optim": "optimizer", "data": "dataset", "reg": "regularization"}


def long_key(key: str) -> str:
    """`optim.lr` -> `optimizer.lr`."""
    first, dot, rest = key.partition(".")
    return SHORT_NAMES.get(first, first) + dot + rest


def short_key(key: str) -> str:
    """`optimizer.lr` -> `optim.lr`."""
    first, dot, rest = key.partition(".")
    return next((short for short, long in SHORT_NAMES.items() if long == first), first) + dot + rest


def flatten(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a nested mapping. A list is a value; an empty mapping has no keys."""
    if not isinstance(value, Mapping):
        yield key, value
        return
    for name, item in value.items():
        yield from flatten(item, f"{key}.{name}" if key else str(name))
