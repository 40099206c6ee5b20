"""The keys of a run: its own (status, name, tag, ...), its metrics, and its configuration."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from dlx.config.errors import UserError
from dlx.config.groups import GROUPS, nearest
from dlx.config.keys import long_key

if TYPE_CHECKING:
    from dlx.runs.catalog import Entry, Value

OWN_KEYS = ("status", "reason", "name", "id", "plan", "tag", "note")


def canonical(key: str) -> str:
    """The key with a group's full name: optim.lr is optimizer.lr."""
    return {"tags": "tag", "notes": "note"}.get(key) or long_key(key)


def lookup(entry: Entry, key: str) -> tuple[Value, ...]:
    """The values of a key in a run: one, none, or several (tags, the options of a list group)."""
    if key == "tag":
        return entry.notes.tags
    if key in OWN_KEYS:
        value = entry.notes.notes if key == "note" else getattr(entry, key)
        return (value,) if value else ()
    key = canonical(key)
    if key in entry.metrics:
        return (entry.metrics[key],)
    if key not in entry.config:
        return ()
    value = entry.config[key]
    if key in GROUPS and GROUPS[key].many and isinstance(value, str) and value.startswith("["):
        return tuple(json.loads(value))
    return (value,)


def check_keys(keys: Iterable[str], entries: Collection[Entry]) -> None:
    """Raises UserError for a key that no entry has, with the nearest known key."""
    known = {*OWN_KEYS, *(key for entry in entries for key in (*entry.metrics, *entry.config))}
    for key in sorted(keys):
        if entries and canonical(key) not in known:
            raise UserError(f"{key}: no run has this key{nearest(canonical(key), sorted(known))}")


def text_of(value: Value) -> str:
    """A value as an expression writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def shown_text(value: Any) -> str:
    """A setting as tables and legends show it, numbers with four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return f"[{', '.join(map(shown_text, value))}]"
    return text_of(value)
