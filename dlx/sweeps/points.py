"""Points: what a sweep is over. Each is one configuration, and one run, or the several runs of a method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dlx.config import Config, build
from dlx.sweeps.check import check_metric
from dlx.sweeps.method import Method

if TYPE_CHECKING:
    from dlx.sweeps.plan import Ending


@dataclass(frozen=True, eq=False)
class Point:
    """name: of its folder, empty for the only point of a method. differs: what sets it apart from the other points."""

    name: str
    config: Config
    differs: dict[str, Any]

    @property
    def group(self) -> str:
        """`experiment` (a claim) or `method` if it is several runs; empty if it is one."""
        return next((group for group in ("experiment", "method") if group in self.config.values), "")

    @property
    def method(self) -> Method | None:
        """The method, or the claim, that makes several runs of it; None: it is one run."""
        return build(self.config, self.group) if self.group else None

    @property
    def base(self) -> Config:
        """What its runs have in common."""
        return self.config.without(self.group)

    def member(self, short: str) -> str:
        """The plan's name for what a method calls `short`."""
        return "-".join(part for part in (self.name, short) if part)

    def first_members(self, home: Path) -> dict[str, Config]:
        """By short names, those that can start at once; without a method it is its own only member, with none.

        home: where a method may write what its members read.
        """
        method = self.method
        return method.members(self.base, {}, home) if method else {"": self.config}


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

    def draw(self, ending: Ending) -> None:
        """The pictures of all points, once the summary is written."""


class FixedPoints:
    """Points that are known from the start. metric: what they are ranked by, such as val/loss:min; None: not said."""

    def __init__(self, points: Iterable[Point], metric: str | None = None) -> None:
        self.points, self.metric = list(points), metric

    @property
    def total(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[Point]:
        return iter(self.points)

    def told(self, point: Point, status: str, figures: Mapping[str, float]) -> None:
        """Raises UserError where a point that finished lacks the metric, and the others are of its kind."""
        if self.metric and status == "finished" and len({_kind(other) for other in self.points}) == 1:
            check_metric(self.metric, figures, point.name)

    def findings(self) -> dict[str, Any]:
        return {}

    def draw(self, ending: Ending) -> None:
        return


def _kind(point: Point) -> tuple[str, ...]:
    """Points of one kind have figures of the same names."""
    return tuple(str(point.config.choices.get(group)) for group in ("model", "dataset", "method"))
