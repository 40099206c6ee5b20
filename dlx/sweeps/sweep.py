"""Sweeps: runs the points of a grid, a search or a method with an executor, and ranks them.

If a method makes several runs of each point, the folder has beside the plan (dlx/sweeps/plan.py)

    points.yaml                  the points by name, with the values that differ between them
    points/NAME/point.yaml       a point's configuration, with the method
    points/NAME/                 what the method writes: figures in media/, an ensemble

The only point of `dlx train method=...` has no name, and uses the sweep's folder. A search (dlx/sweeps/search) begins
without points.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dlx.config import Config
from dlx.config.diff import changes
from dlx.config.errors import LOST, UserError
from dlx.config.monitor import Monitor
from dlx.config.yaml import dump_yaml, read_yaml
from dlx.runs.files import inside, write_atomic
from dlx.runs.folder import RunFolder, load_frozen, slug
from dlx.sweeps.check import check_sweep, sweep_name
from dlx.sweeps.executors.execution import Execution, make_executor
from dlx.sweeps.method import Method, MethodResult
from dlx.sweeps.plan import SEARCH, Ending, Interrupted, Plan, read_overrides, track_status
from dlx.sweeps.points import Point, Points
from dlx.sweeps.search.settings import Settings
from dlx.training.prepare import prepare
from dlx.training.progress import PlanProgress
from dlx.training.session import Result

POINTS = "points.yaml"


@dataclass(frozen=True)
class Row:
    """A point in the summary. differs: its values that differ between points. details: its method's further results."""

    name: str
    differs: dict[str, Any]
    status: str
    reason: str | None
    metrics: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepResult:
    """rows: the best first, those without the metric last. code: 0, 1 (a member failed), 5 (something was lost) or 130.

    findings: further results, such as the importance of a search's keys. lost: what was lost on the way.
    """

    path: Path
    status: str
    code: int
    metric: str = ""
    rows: list[Row] = field(default_factory=list)
    findings: dict[str, Any] = field(default_factory=dict)
    lost: tuple[str, ...] = ()

    @property
    def best(self) -> Row | None:
        """The best row that was not pruned: the final metric of a pruned run is not known."""
        finite = (row for row in self.rows if not math.isnan(row.metrics.get(self.metric, math.nan)))
        return next((row for row in finite if row.status != "pruned"), None)

    @property
    def summary(self) -> dict[str, Any]:
        """The entries that summary.json and --json share."""
        return {
            "metric": self.metric,
            "best": self.best.name if self.best else None,
            **self.findings,
            "members": [vars(row) for row in self.rows],
        }


def start_sweep(points: Sequence[Point], execution: Execution, *, metric: str | None = None) -> SweepResult:
    """Writes a plan of composed points and runs it. metric: such as val/accuracy:max; None is what they monitor."""
    made = check_sweep(points, execution, metric).members
    folder = make_folder(points[0].config, [point.config for point in points], sys.argv)
    with folder.whole_or_gone():
        if any(point.group for point in points):
            _write_points(folder, points)
        for point in points:
            if (method := point.method) and method.is_chain:  # its members read files of this folder
                made[point] = point.first_members(point_dir(folder, point))
        members, overrides = expand(made)
        plan = Plan.write(folder.path, members, overrides, metric)
    return run_sweep(folder, plan, Points(points, metric), execution, made)


def resume_sweep(
    folder: RunFolder, execution: Execution, *, storage: str | None = None, trials: int | None = None
) -> SweepResult:
    """Runs the members that are not finished, and the remaining trials of a search. Raises RunInUse if another process
    runs the sweep.

    storage: of a search whose storage has a password, which is not in the folder. trials: a search's new total.
    """
    settings = Settings.read(folder.path) if (folder.path / SEARCH).is_file() else None
    for option, value in {"--storage": storage, "--trials": trials}.items():
        if value is not None and settings is None:
            raise UserError(f"{option}: {folder.path} is no search")
    plan = Plan.load(folder.path, trust=execution.trust)
    folder.take()
    with folder.released_on_error():
        known = _read_points(folder, plan, execution.trust)
        for point in known:
            if (home := point_dir(folder, point)).is_dir():
                RunFolder(home).check_own()
    if settings is None:
        return run_sweep(folder, plan, Points(known, plan.metric), execution)
    from dlx.sweeps.search.search import open_search

    with folder.released_on_error():
        search = open_search(folder, settings, known, trust=execution.trust, given=storage, trials=trials)
    with search.storage_env():
        return run_sweep(folder, plan, search, execution)


def parent_dir(first: Config) -> str:
    """The folder that contains the sweep's folder."""
    return f"{first['output_root']}/{slug(sweep_name(first))}"


def make_folder(first: Config, configs: Sequence[Config], command: list[str]) -> RunFolder:
    """A new folder, named after the claim, or the method and the models."""
    models = "-".join(sorted({str(config.choices["model"]) for config in configs}))[:40]
    point = Point("", first, {})
    title = point.kind if point.group == "experiment" else f"{point.kind}-{models}"
    folder = RunFolder.create(first["output_root"], sweep_name(first), title)
    with folder.whole_or_gone():
        folder.write_config(first.to_yaml())
        folder.write_environment(command)
    return folder


def run_sweep(
    folder: RunFolder,
    plan: Plan,
    points: Points,
    execution: Execution,
    made: Mapping[Point, Mapping[str, Config]] | None = None,
) -> SweepResult:
    """Runs the points' members; writes summary.json and the status. made: first members that are composed already."""
    started = time.perf_counter()
    try:
        with track_status(folder) as ending:
            with PlanProgress(max(len(plan.members), points.total), execution.quiet) as progress:
                running = _Running(folder, plan, points, progress, made or {})
                make_executor(execution)(plan, running.names(), running.on_result)
            name, rows = rank(running.rows, plan.metric or monitored(plan))
            bad = sum(row.status not in ("finished", "pruned") for row in rows)
            findings: dict[str, Any] = {}
            ending.attempt("some findings are missing", lambda: findings.update(points.findings()))
            result = SweepResult(folder.path, "finished", 1 if bad else 0, name, rows, findings)
            is_claim = rows and "verdict" in rows[0].details
            found = rows[0].details if is_claim else result.summary
            summary = {**found, "seconds": round(time.perf_counter() - started, 3)}
            ending.finish(summary, _reason_of(folder, rows, bad) if bad else None)
            running.draw(ending)
            points.draw(ending)
        return replace(result, code=result.code or (LOST if ending.lost else 0), lost=tuple(ending.lost))
    except Interrupted as error:
        return SweepResult(folder.path, "interrupted", error.code)


def point_dir(folder: RunFolder, point: Point) -> Path:
    """The folder of a point, where its method writes."""
    return folder.path / "points" / point.name if point.name else folder.path


def expand(members: Mapping[Point, Mapping[str, Config]]) -> tuple[dict[str, Config], dict[str, dict[str, Any]]]:
    """The plan's members, and each one's values that differ between members."""
    configs, overrides = {}, {}
    for point, made in members.items():
        for short, config in made.items():
            name = point.member(short)
            configs[name] = config
            overrides[name] = {**point.overrides, **(changes(point.base, config) if short else {})}
    return configs, overrides


class _Running:
    """A running sweep: yields members to the executor, collects results, makes a row of each point that ended."""

    def __init__(
        self,
        folder: RunFolder,
        plan: Plan,
        points: Points,
        progress: PlanProgress,
        made: Mapping[Point, Mapping[str, Config]],
    ) -> None:
        self.folder, self.plan, self.points, self.progress, self.made = folder, plan, points, progress, made
        self.rows: list[Row] = []
        self._results: dict[str, Result] = {}
        self._answers: list[tuple[RunFolder, MethodResult]] = []  # of methods, whose figures are drawn last
        # By member, its point, and the names of all of the point's members; those of a chain are not known at first.
        self._points: dict[str, tuple[Point, Method | None, dict[str, str]]] = {}

    def names(self) -> Iterator[str]:
        for point in self.points:
            method = point.method
            if method is not None:
                _write_points(self.folder, [point])
            if method is not None and method.is_chain:
                yield from self._chain(point, method)
                continue
            made = self.made.get(point)
            names = self._add(point, point.first_members(point_dir(self.folder, point)) if made is None else made)
            self._points |= dict.fromkeys(names.values(), (point, method, names))
            if not names:  # a claim that trains nothing
                self._answer(point, method, names)
            yield from names.values()

    def _chain(self, point: Point, method: Method) -> Iterator[str]:
        names: dict[str, str] = {}
        done: dict[str, RunFolder] = {}
        while members := method.members(point.base, done, point_dir(self.folder, point)):
            added = self._add(point, members)
            names |= added
            yield from added.values()
            if any(self._results[name].status != "finished" for name in added.values()):
                break  # later members would be built on it
            done = {short: self.plan.run(name) for short, name in names.items()}
        self._answer(point, method, names)

    def _add(self, point: Point, made: Mapping[str, Config]) -> dict[str, str]:
        """Freezes the members that are not in the plan yet. Returns the names of all by their short names."""
        configs, overrides = expand({point: made})
        if new := {name: config for name, config in configs.items() if name not in self.plan.members}:
            self.plan.add(new, overrides)
            self.progress.expect(len(self.plan.members))
        return dict(zip(made, configs, strict=True))

    def on_result(self, name: str, result: Result) -> None:
        self._results[name] = result
        self.progress.done(name, result)
        if name in self._points:
            self._answer(*self._points[name])

    def _answer(self, point: Point, method: Method | None, names: Mapping[str, str]) -> None:
        """Makes the point's row, once all its members ended."""
        if not all(name in self._results for name in names.values()):
            return
        results = {short: self._results[name] for short, name in names.items()}
        if method is None:
            (result,) = results.values()
            row = Row(point.name, point.overrides, result.status, result.reason, dict(result.metrics))
        else:
            home = RunFolder(point_dir(self.folder, point))
            runs = {short: self.plan.run(name) for short, name in names.items()}
            found = method.conclude(point.base, runs, results, home.path)
            self._answers.append((home, found))
            status = "failed" if found.failure else "finished"
            row = Row(point.name, point.overrides, status, found.failure, found.metrics, found.details)
        self.rows.append(row)
        self.points.on_point_end(point, row.status, row.metrics)

    def draw(self, ending: Ending) -> None:
        """Draws the methods' figures. Called after the summary is written, which a failing figure cannot lose then."""
        for home, answer in self._answers:
            for name, draw in answer.figures.items():
                ending.draw(name, draw, home)


def _reason_of(folder: RunFolder, rows: Sequence[Row], bad: int) -> str:
    """The status's reason for a sweep of which some rows did not finish."""
    if len(rows) == 1 and not rows[0].name:  # the only point, of a method
        return rows[0].reason or rows[0].status
    what = "points" if (folder.path / POINTS).is_file() else "members"
    return f"{bad} of {len(rows)} {what} did not finish"


def _write_points(folder: RunFolder, points: Sequence[Point]) -> None:
    """Freezes the points that are not frozen yet."""
    path = folder.inside(POINTS)
    kept = read_overrides(path, read_yaml(path), [""]) if path.is_file() else {}
    new = [point for point in points if point.name not in kept]
    for point in new:
        if point.name:
            home = folder.inside("points", point.name)
            home.mkdir(parents=True, exist_ok=True)
            write_atomic(inside(home, "point.yaml"), point.config.to_yaml())
    if new:
        write_atomic(path, dump_yaml({**kept, **{point.name: point.overrides for point in new}}))


def _read_points(folder: RunFolder, plan: Plan, trust: Sequence[str]) -> list[Point]:
    path = folder.path / POINTS
    if not path.is_file():  # each member is a point, but for a claim from before claims had this file
        only = Point("", load_frozen(folder.config_path, trust=trust), {})
        if only.group == "experiment":
            return [only]
        return [Point(name, config, plan.overrides[name]) for name, config in plan.members.items()]
    found = []
    for name, overrides in read_overrides(path, read_yaml(path), [""]).items():
        config_path = folder.path / "points" / name / "point.yaml" if name else folder.config_path
        found.append(Point(name, load_frozen(config_path, trust=trust), overrides))
    return found


def monitored(plan: Plan) -> str:
    """What the members monitor, such as val/accuracy:max: from a run's summary, else by building the first member."""
    if not plan.members:  # a claim that trains nothing
        return ""
    summaries = (plan.run(name).summary() for name in plan.members)
    if text := next((monitor for summary in summaries if (monitor := summary.get("monitor"))), None):
        return str(text)
    try:
        first = prepare(next(iter(plan.members.values())))
    except UserError:  # its data may be gone since it was checked
        return "val/loss:min"
    if not first.system.defines("evaluate"):
        return ""
    return str(first.trainer.monitored_of(first.system, first.regularizers) or "val/loss:min")


def rank(rows: Sequence[Row], metric: str) -> tuple[str, list[Row]]:
    """The metric's name, and the rows, best first, the pruned after the others. metric: such as val/accuracy:max."""
    monitor = Monitor.find(metric)
    name, sign = (monitor.name, monitor.sign) if monitor else ("", 1)

    def rank_key(row: Row) -> tuple[bool, bool, float]:
        value, is_pruned = row.metrics.get(name, math.nan), row.status == "pruned"
        return (True, is_pruned, 0.0) if math.isnan(value) else (False, is_pruned, sign * value)

    return name, sorted(rows, key=rank_key)
