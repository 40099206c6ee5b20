"""A sweep: its folder, its runs by an executor, its table and its best member."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx.runs.folder import RunFolder
from dlx.sweeps.executors import make_executor
from dlx.sweeps.plan import Interrupted, Plan, check_alone, told
from dlx.training.progress import PlanProgress

if TYPE_CHECKING:
    from dlx.sweeps.executors import Execution
    from dlx.sweeps.grid import Grid
    from dlx.training.run import Result


@dataclass(frozen=True)
class Row:
    """A member in the summary: what sets it apart, how it ended, its figures."""

    name: str
    differs: dict[str, Any]
    status: str
    reason: str | None
    metrics: dict[str, float]


@dataclass(frozen=True)
class Swept:
    """What a sweep left. rows: the best first, those without the metric last. code: 0, 1 (a member failed) or 130."""

    path: Path
    status: str
    code: int
    metric: str = ""
    rows: list[Row] = field(default_factory=list)

    @property
    def best(self) -> Row | None:
        return next((row for row in self.rows if not math.isnan(row.metrics.get(self.metric, math.nan))), None)


def start_sweep(
    grid: Grid, execution: Execution, *, metric: str | None = None, command: list[str] | None = None
) -> Swept:
    """Writes the plan of composed members and runs it. metric: such as val/accuracy:max; None is what they monitor."""
    check_alone()
    first = next(iter(grid.members.values()))
    models = sorted({str(config.choices["model"]) for config in grid.members.values()})
    folder = RunFolder.create(first["output_root"], str(first["name"] or "sweep"), "sweep-" + "-".join(models)[:40])
    folder.write_config(first.to_yaml())
    folder.write_environment(command or sys.argv)
    return _run(folder, Plan.write(folder.path, grid.members, first, grid.differs, metric), execution)


def resume_sweep(folder: RunFolder, execution: Execution) -> Swept:
    """Goes on with the members that are not finished. Raises RunInUse where another process is at it."""
    plan = Plan.load(folder.path, trust=execution.trust)
    folder.lock.acquire()
    return _run(folder, plan, execution)


def _run(folder: RunFolder, plan: Plan, execution: Execution) -> Swept:
    started = time.perf_counter()
    try:
        with told(folder) as ending:
            with PlanProgress(len(plan.members)) as progress:
                results = make_executor(execution)(plan, progress.done)
            name, rows = rank(plan, results, plan.metric())
            bad = sum(row.status != "finished" for row in rows)
            swept = Swept(folder.path, "finished", 1 if bad else 0, name, rows)
            best = swept.best.name if swept.best else None
            seconds = round(time.perf_counter() - started, 3)
            members = [vars(row) for row in rows]
            folder.write_summary({"metric": name, "best": best, "members": members, "seconds": seconds})
            ending["reason"] = f"{bad} of {len(rows)} members did not finish" if bad else None
            return swept
    except Interrupted as error:
        return Swept(folder.path, "interrupted", error.code)


def rank(plan: Plan, results: Mapping[str, Result], metric: str | None) -> tuple[str, list[Row]]:
    """The metric's name, and the members, best first. metric: `val/accuracy:max`; None is what the members monitor."""
    if metric is None:
        said = (plan.run(name).summary().get("monitor") for name in plan.members)
        metric = next((text for text in said if text), "val/loss:min")
    name, _, goal = metric.rpartition(":")
    differs = plan.differences()
    rows = [
        Row(key, differs[key], result.status, result.reason, dict(result.metrics)) for key, result in results.items()
    ]
    sign = 1 if goal == "min" else -1

    def place(row: Row) -> tuple[bool, float]:
        value = row.metrics.get(name, math.nan)
        return (True, 0.0) if math.isnan(value) else (False, sign * value)

    rows.sort(key=place)
    return name, rows
