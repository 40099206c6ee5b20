"""Points of a sweep: each is one configuration, which is one run or the runs of a method."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlx.config import Config, build
from dlx.config.errors import UserError
from dlx.config.groups import nearest
from dlx.config.monitor import Monitor
from dlx.sweeps.method import Method
from dlx.sweeps.plan import Ending


@dataclass(frozen=True, eq=False)
class Point:
    """name: of its folder; empty for the only point of a method. overrides: the values that differ between points."""

    name: str
    config: Config
    overrides: dict[str, Any]

    @property
    def group(self) -> str:
        """`experiment` (a claim) or `method` if it is several runs; empty if it is one."""
        return next((group for group in ("experiment", "method") if group in self.config.values), "")

    @property
    def method(self) -> Method | None:
        """The method, or the claim, that makes several runs of it; None: it is one run."""
        return build(self.config, self.group) if self.group else None

    @property
    def kind(self) -> str:
        """The option of its method or claim, or `sweep`."""
        return str(self.config.choices.get(self.group) or "sweep")

    @property
    def base(self) -> Config:
        """The configuration that the point's runs share."""
        return self.config.without(self.group)

    def member(self, short: str) -> str:
        """The plan's name for the run that the method calls `short`."""
        return "-".join(part for part in (self.name, short) if part)

    def first_members(self, home: Path) -> dict[str, Config]:
        """The runs that can start at once, by the method's short names; {"": config} without a method.

        home: the folder where a method may write files that its runs read.
        """
        method = self.method
        return method.members(self.base, {}, home) if method else {"": self.config}


class Points:
    """The points of a grid, known from the start. metric: ranks them, such as val/loss:min; None: not given."""

    def __init__(self, points: Iterable[Point], metric: str | None = None) -> None:
        self.points, self.metric = list(points), metric
        groups = ("model", "dataset", "method")
        kinds = {tuple(str(point.config.choices.get(group)) for group in groups) for point in self.points}
        self.are_alike = len(kinds) == 1  # they have the same metrics

    @property
    def total(self) -> int:
        """The number of points at the end of the sweep."""
        return len(self.points)

    def __iter__(self) -> Iterator[Point]:
        return iter(self.points)

    def on_point_end(self, point: Point, status: str, metrics: Mapping[str, float]) -> None:
        """Raises UserError if a finished point lacks the metric and so will all others: they are of the same kind."""
        if self.metric and status == "finished" and self.are_alike:
            check_metric(self.metric, metrics, point.name)

    def findings(self) -> dict[str, Any]:
        """Entries of the summary beside the points, once all points ended."""
        return {}

    def draw(self, ending: Ending) -> None:
        """Draws the figures of all points, once the summary is written."""


def check_metric(metric: str, known: Collection[str], point: str = "") -> None:
    """Raises UserError if `known` lacks the metric. metric: such as val/loss:min. point: the point that has `known`."""
    name = Monitor.parse(metric).name
    if name not in known:
        names = sorted(name for name in known if not name.endswith("_std"))
        problem = f"{point} has no such metric" if point else "no such metric"
        raise UserError(f"--metric {name}: {problem}{nearest(name, names) or ';'} metrics: {', '.join(names)}")
