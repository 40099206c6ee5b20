"""Monitor: the metric that says what "best" means, and whether it is to be small or large."""

from __future__ import annotations

from typing import Literal, NamedTuple

Goal = Literal["min", "max"]


class Monitor(NamedTuple):
    """Equal to a pair such as ("val/accuracy", "max"), which a system's `monitor` may also be."""

    name: str
    goal: Goal

    @classmethod
    def find(cls, text: object) -> Monitor | None:
        """From a text such as `val/accuracy:max`; None for anything else."""
        name, _, goal = str(text).rpartition(":")
        return cls(name, "min" if goal == "min" else "max") if name and goal in ("min", "max") else None

    @classmethod
    def parse(cls, text: str) -> Monitor:
        """As `find`. Raises ValueError that begins with `monitor`."""
        if (found := cls.find(text)) is None:
            raise ValueError(f"monitor must be such as val/loss:min or val/accuracy:max, got {text!r}")
        return found

    @property
    def sign(self) -> int:
        """1 or -1: `sign * value` is a cost, which is best where it is lowest."""
        return 1 if self.goal == "min" else -1

    def __str__(self) -> str:
        return f"{self.name}:{self.goal}"
