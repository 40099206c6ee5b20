"""Range checks of constructor arguments. Each takes arguments by name and raises ValueError that begins with the name.

A value of None is not set, and passes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any


def at_least(least: float, /, **values: float | None) -> None:
    """`checks.at_least(1, epochs=epochs)`."""
    for name, value in values.items():
        if value is not None and not value >= least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def above(bound: float, /, **values: float | None) -> None:
    """`checks.above(0, width=width)`."""
    for name, value in values.items():
        if value is not None and not value > bound:
            raise ValueError(f"{name} must be above {bound}, got {value}")


def between(interval: str, **values: float | None) -> None:
    """`checks.between("[0, 1)", dropout=dropout)`: a round bracket leaves its end out."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    for name, value in values.items():
        if value is None:
            continue
        is_inside = low <= value <= high
        is_open_end = (value == low and interval[0] == "(") or (value == high and interval[-1] == ")")
        if not is_inside or is_open_end:
            raise ValueError(f"{name} must be in {interval}, got {value}")


def rising(count: int, **values: Sequence[float]) -> None:
    """`checks.rising(2, widths=widths)`: numbers above 0, each larger than the one before, `count` or more."""
    for name, numbers in values.items():
        if len(numbers) < count or list(numbers) != sorted(set(numbers)) or numbers[0] <= 0:
            raise ValueError(f"{name} must be at least {count}, rising and above 0, got {list(numbers)}")


def one_of(options: Collection[Any], **values: Any) -> None:
    """`checks.one_of(("paper", "small"), stem=stem)`."""
    *first, last = known = [str(option) for option in options]
    for name, value in values.items():
        if value is not None and value not in options:
            text = f"one of {', '.join(known)}" if len(known) > 3 else f"{', '.join(first)} or {last}"
            raise ValueError(f"{name} must be {text}, got {value!r}")
