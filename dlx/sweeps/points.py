"""Points: what a sweep is over. Each is one configuration, and one run, or the several runs of a method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from dlx.config import Config, build

if TYPE_CHECKING:
    from dlx.methods.method import Method


@dataclass(frozen=True, eq=False)
class Point:
    """name: of its folder, empty for the only point of a method. differs: what sets it apart from the other points."""

    name: str
    config: Config
    differs: dict[str, Any]

    @property
    def method(self) -> Method | None:
        """What makes several runs of it; None: it is one run."""
        return build(self.config, "method") if "method" in self.config.values else None

    @property
    def base(self) -> Config:
        """What its runs have in common."""
        return self.config.without("method")

    def member(self, short: str) -> str:
        """The plan's name for what a method calls `short`."""
        return "-".join(part for part in (self.name, short) if part)


class Points(Protocol):
    """Where a sweep's points come from: a grid has them, a search decides on one when it is asked."""

    @property
    def total(self) -> int:
        """How many there will be."""

    def __iter__(self) -> Iterator[Point]: ...

    def told(self, point: Point, status: str, figures: Mapping[str, float]) -> None:
        """How a point ended: as a run does, and its figures."""

    def findings(self) -> dict[str, Any]:
        """What the summary says beside the points, once all of them ended."""


class FixedPoints:
    """Points that are known from the start."""

    def __init__(self, points: Iterable[Point]) -> None:
        self.points = list(points)

    @property
    def total(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[Point]:
        return iter(self.points)

    def told(self, point: Point, status: str, figures: Mapping[str, float]) -> None:
        """Nothing depends on it."""

    def findings(self) -> dict[str, Any]:
        return {}
