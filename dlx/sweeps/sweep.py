"""A sweep: its folder, its points and their runs by an executor, its table and its best point.

Where a method makes several runs of a point, its folder holds beside the plan (dlx/sweeps/plan.py)

    points.yaml                  the points by name, each with what sets it apart
    points/NAME/point.yaml       a point's configuration, with the method
    points/NAME/                 what the method leaves: pictures in media/, an ensemble

The only point of `dlx train method=...` has no name, and the sweep's folder is its own. A search (dlx/sweeps/search.py)
begins with no points.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx.config import Config
from dlx.config.changes import changes
from dlx.config.errors import UserError
from dlx.config.yaml import dump_yaml, read_yaml
from dlx.runs.files import inside, write_atomic
from dlx.runs.folder import RunFolder, load_frozen, slug
from dlx.sweeps.check import check_members, check_points
from dlx.sweeps.draft import SEARCH
from dlx.sweeps.executors import make_executor
from dlx.sweeps.method import Method, MethodResult
from dlx.sweeps.plan import LOST, Interrupted, Plan, check_alone, is_member_name, told
from dlx.sweeps.points import FixedPoints, Point
from dlx.sweeps.search import begin_search, open_search
from dlx.sweeps.storage import redacted
from dlx.training.preflight import check_folder
from dlx.training.progress import PlanProgress
from dlx.training.run import prepare

if TYPE_CHECKING:
    from dlx.sweeps.draft import Draft
    from dlx.sweeps.executors import Execution
    from dlx.sweeps.plan import Ending
    from dlx.sweeps.points import Points
    from dlx.training.session import Result

POINTS = "points.yaml"


@dataclass(frozen=True)
class Row:
    """A point in the summary: what sets it apart, how it ended, its figures, and what its method says beside them."""

    name: str
    differs: dict[str, Any]
    status: str
    reason: str | None
    metrics: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Swept:
    """What a sweep left. rows: the best first, those without the metric last. code: 0, 1 (a member failed), 5
    (something was lost) or 130.

    findings: what else it found, such as the importance of a search's keys. lost: what was lost on the way.
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
        """Of those that were not pruned: what those would have come to is not known."""
        judged = (row for row in self.rows if not math.isnan(row.metrics.get(self.metric, math.nan)))
        return next((row for row in judged if row.status != "pruned"), None)


def check_sweep(
    points: Sequence[Point], execution: Execution, metric: str | None = None
) -> dict[Point, dict[str, Config]]:
    """The first members of each point (`check_points`). Raises UserError for what a sweep refuses before it begins."""
    check_alone()
    _check_chains(points, execution)
    made = check_points(points, metric, here=execution.here)
    check_folder(points[0].config, name_of(points[0].config))
    return made


def check_search(draft: Draft, execution: Execution) -> None:
    """Raises UserError for what a search refuses before it begins, beside what its draft found."""
    check_alone()
    point = Point("", draft.first, {})
    _check_chains([point], execution)
    if point.method:
        check_points([point], here=execution.here)
    else:
        check_members({"": draft.first}, here=execution.here)
    check_folder(draft.first, name_of(draft.first))


def start_sweep(
    points: Sequence[Point],
    execution: Execution,
    *,
    metric: str | None = None,
    command: list[str] | None = None,
) -> Swept:
    """Writes the plan of composed points and runs it. metric: such as val/accuracy:max; None is what they monitor."""
    made = check_sweep(points, execution, metric)
    folder = make_folder(points[0].config, [point.config for point in points], command)
    with folder.whole_or_gone():
        if any("method" in point.config.values for point in points):
            _write_points(folder, points)
        for point in points:
            if (method := point.method) and method.is_chain:  # what its members read lies in the folder
                made[point] = point.first_members(home_of(folder, point))
        members, differs = expand(made)
        plan = Plan.write(folder.path, members, points[0].base, differs, metric)
    return run_sweep(folder, plan, FixedPoints(points, metric), execution, made)


def start_search(draft: Draft, execution: Execution, *, command: list[str] | None = None) -> Swept:
    """Begins a search that was found good, and runs it."""
    check_search(draft, execution)
    first = draft.first
    command = command or sys.argv
    if draft.storage:  # its password is written nowhere
        command = [word.replace(draft.storage, redacted(draft.storage)) for word in command]
    folder = make_folder(first, [first], command)
    with folder.whole_or_gone():
        search = begin_search(draft, folder)
        plan = Plan.write(folder.path, {}, first.without("method"), metric=search.settings.metric)
    with search.under_way():
        return run_sweep(folder, plan, search, execution)


def resume_sweep(
    folder: RunFolder,
    execution: Execution,
    *,
    storage: str | None = None,
    trials: int | None = None,
) -> Swept:
    """Goes on with the members that are not finished, of a search also with those that are not there yet. Raises
    RunInUse where another process is at it.

    storage: of a search, where its folder may not keep it. trials: of a search, how many it has now in all.
    """
    for option, value in {"--storage": storage, "--trials": trials}.items():
        if value is not None and not (folder.path / SEARCH).is_file():
            raise UserError(f"{option}: {folder.path} is no search")
    plan = Plan.load(folder.path, trust=execution.trust)
    folder.take()
    with folder.released_on_error():
        known = _read_points(folder, plan, execution.trust)
        for point in known:
            if (home := home_of(folder, point)).is_dir():
                RunFolder(home).check_own()
    if not (folder.path / SEARCH).is_file():
        return run_sweep(folder, plan, FixedPoints(known, plan.metric), execution)
    with folder.released_on_error():
        search = open_search(folder, known, trust=execution.trust, given=storage, trials=trials)
    with search.under_way():
        return run_sweep(folder, plan, search, execution)


def _kind(first: Config) -> str:
    group = Point("", first, {}).group
    return str(first.choices.get(group, group) or "sweep")


def name_of(first: Config) -> str:
    """Of the folder that a sweep's own is in."""
    return str(first["name"] or _kind(first))


def place_of(first: Config) -> str:
    """Where a sweep's folder is made."""
    return f"{first['output_root']}/{slug(name_of(first))}"


def make_folder(first: Config, configs: Sequence[Config], command: list[str] | None) -> RunFolder:
    """A new folder, named after the method and the models, or the claim."""
    models = "-".join(sorted({str(config.choices["model"]) for config in configs}))[:40]
    title = _kind(first) if "experiment" in first.values else f"{_kind(first)}-{models}"
    folder = RunFolder.create(first["output_root"], name_of(first), title)
    with folder.whole_or_gone():
        folder.write_config(first.to_yaml())
        folder.write_environment(command or sys.argv)
    return folder


def run_sweep(
    folder: RunFolder,
    plan: Plan,
    points: Points,
    execution: Execution,
    made: Mapping[Point, Mapping[str, Config]] | None = None,
) -> Swept:
    """Runs what the points ask for, beginning with the plan's members; leaves summary.json and the status.

    made: members of points, where they were made already.
    """
    started = time.perf_counter()
    try:
        with told(folder) as ending:
            with PlanProgress(max(len(plan.members), points.total), execution.quiet) as progress:
                running = _Running(folder, plan, points, progress, made or {})
                make_executor(execution)(plan, running.names(), running.tell)
            name, rows = rank(running.rows, plan.metric or monitored(plan))
            bad = sum(row.status not in ("finished", "pruned") for row in rows)
            findings: dict[str, Any] = {}
            ending.attempt("not all was found out", lambda: findings.update(points.findings()))
            swept = Swept(folder.path, "finished", 1 if bad else 0, name, rows, findings)
            best = swept.best.name if swept.best else None
            seconds = round(time.perf_counter() - started, 3)
            members = [vars(row) for row in rows]
            summary = {"metric": name, "best": best, **findings, "members": members, "seconds": seconds}
            if rows and "verdict" in rows[0].details:
                summary = {**rows[0].details, "seconds": seconds}
            ending.finish(summary, _reason_of(folder, rows, bad) if bad else None)
            running.draw(ending)
            points.draw(ending)
        return replace(swept, code=swept.code or (LOST if ending.lost else 0), lost=tuple(ending.lost))
    except Interrupted as error:
        return Swept(folder.path, "interrupted", error.code)


def home_of(folder: RunFolder, point: Point) -> Path:
    """Where a method leaves what it has for a point."""
    return folder.path / "points" / point.name if point.name else folder.path


def expand(members: Mapping[Point, Mapping[str, Config]]) -> tuple[dict[str, Config], dict[str, dict[str, Any]]]:
    """The plan's members, and what sets each apart."""
    configs, differs = {}, {}
    for point, made in members.items():
        for short, config in made.items():
            name = point.member(short)
            configs[name] = config
            differs[name] = {**point.differs, **(changes(point.base, config) if short else {})}
    return configs, differs


class _Running:
    """A sweep under way: hands out members, hears how they ended, makes a row of each point whose members all ended."""

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
        self._answers: list[tuple[RunFolder, MethodResult]] = []
        self._waiting: dict[str, tuple[Point, Method | None, list[str]]] = {}  # by point: all of its members are known

    def names(self) -> Iterator[str]:
        for point in self.points:
            method = point.method
            if method is not None:
                _write_points(self.folder, [point])
            if method is not None and method.is_chain:
                yield from self._chain(point, method)
                continue
            members = self.made.get(point) or point.first_members(home_of(self.folder, point))
            names = self._add(point, members)
            self._waiting[point.name] = point, method, names
            self._answer(point.name)  # of a claim that trains nothing
            yield from names

    def _chain(self, point: Point, method: Method) -> Iterator[str]:
        done: dict[str, RunFolder] = {}
        names: list[str] = []
        while members := method.members(point.base, done, home_of(self.folder, point)):
            added = self._add(point, members)
            names += added
            yield from added
            done |= {short: self.plan.run(point.member(short)) for short in members}
            if any(self._results[name].status != "finished" for name in added):
                break  # what comes after would be built on it
        self._waiting[point.name] = point, method, names
        self._answer(point.name)

    def _add(self, point: Point, made: Mapping[str, Config]) -> list[str]:
        """Freezes the members that are not in the plan yet."""
        configs, differs = expand({point: made})
        if new := {name: config for name, config in configs.items() if name not in self.plan.members}:
            self.plan.add(new, differs)
            self.progress.expect(len(self.plan.members))
        return list(configs)

    def tell(self, name: str, result: Result) -> None:
        self._results[name] = result
        self.progress.done(name, result)
        for waiting, (_, _, names) in list(self._waiting.items()):
            if name in names:
                self._answer(waiting)

    def _answer(self, waiting: str) -> None:
        """The point's row, once all of its members ended."""
        point, method, names = self._waiting[waiting]
        if not all(name in self._results for name in names):
            return
        del self._waiting[waiting]
        results = {name: self._results[name] for name in names}
        row = _row_of_run(point, results) if method is None else self._row_of_method(point, method, results)
        self.rows.append(row)
        self.points.told(point, row.status, row.metrics)

    def _row_of_method(self, point: Point, method: Method, results: Mapping[str, Result]) -> Row:
        home = RunFolder(home_of(self.folder, point))
        ended = {name.removeprefix(f"{point.name}-" if point.name else ""): name for name in results}
        runs = {short: self.plan.run(name) for short, name in ended.items()}
        of_runs = {short: results[name] for short, name in ended.items()}
        found = method.conclude(point.base, runs, of_runs, home.path)
        self._answers.append((home, found))
        status = "failed" if found.failure else "finished"
        return Row(point.name, point.differs, status, found.failure, found.metrics, found.details)

    def draw(self, ending: Ending) -> None:
        """What the methods' answers look like: after the summary, so that no picture can lose it."""
        for home, answer in self._answers:
            for name, draw in answer.figures.items():
                ending.draw(name, draw, home)


def _reason_of(folder: RunFolder, rows: Sequence[Row], bad: int) -> str:
    """What is said of a sweep of which some rows did not finish."""
    if len(rows) == 1 and not rows[0].name:  # the only point, of a method
        return rows[0].reason or rows[0].status
    what = "points" if (folder.path / POINTS).is_file() else "members"
    return f"{bad} of {len(rows)} {what} did not finish"


def _row_of_run(point: Point, results: Mapping[str, Result]) -> Row:
    (result,) = results.values()
    return Row(point.name, point.differs, result.status, result.reason, dict(result.metrics))


def _check_chains(points: Sequence[Point], execution: Execution) -> None:
    alone = execution.executor == "inprocess" or execution.jobs == 1
    for point in points:
        if (method := point.method) and method.is_chain and not alone:
            raise UserError(
                f"--executor {execution.executor}: {point.config.choices['method']} trains one member after another; "
                "it takes inprocess, or --jobs 1"
            )


def _write_points(folder: RunFolder, points: Sequence[Point]) -> None:
    """Freezes those that are not yet."""
    path = folder.inside(POINTS)
    kept = _points_in(path) if path.is_file() else {}
    new = [point for point in points if point.name not in kept]
    for point in new:
        if point.name:
            home = folder.inside("points", point.name)
            home.mkdir(parents=True, exist_ok=True)
            write_atomic(inside(home, "point.yaml"), point.config.to_yaml())
    if new:
        write_atomic(path, dump_yaml({**kept, **{point.name: point.differs for point in new}}))


def _read_points(folder: RunFolder, plan: Plan, trust: Sequence[str]) -> list[Point]:
    path = folder.path / POINTS
    if not path.is_file():  # each member is a point, but for a claim from before it had this file
        only = Point("", load_frozen(folder.config_path, trust=trust), {})
        if only.group == "experiment":
            return [only]
        return [Point(name, config, plan.differs[name]) for name, config in plan.members.items()]
    found = []
    for name, differs in _points_in(path).items():
        config_path = folder.path / "points" / name / "point.yaml" if name else folder.config_path
        found.append(Point(name, load_frozen(config_path, trust=trust), differs))
    return found


def _points_in(path: Path) -> dict[str, dict[str, Any]]:
    """Raises UserError for what is not as dlx writes it: a name that leads out of the folder would be written to."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: not the points of a sweep that dlx wrote")
    for name, differs in content.items():
        if name != "" and not is_member_name(name):
            raise UserError(f"{path}: {name!r} is no point's name")
        if not isinstance(differs, dict):
            raise UserError(f"{path}: {name} does not say what sets it apart")
    return content


def monitored(plan: Plan) -> str:
    """What the members monitor, such as val/accuracy:max: those that ran say it, else the first as it is configured."""
    if not plan.members:  # of a claim that trains nothing
        return ""
    said = (plan.run(name).summary().get("monitor") for name in plan.members)
    if text := next((text for text in said if text), None):
        return text
    try:
        first = prepare(next(iter(plan.members.values())))
    except UserError:  # it was checked, but its data may be gone since
        return "val/loss:min"
    if not first.system.defines("evaluate"):
        return ""
    return ":".join(first.trainer.monitored_of(first.system, first.regularizers) or ("val/loss", "min"))


def rank(rows: Sequence[Row], metric: str) -> tuple[str, list[Row]]:
    """The metric's name, and the rows, best first, the pruned after the others. metric: such as val/accuracy:max."""
    name, _, goal = metric.rpartition(":")
    sign = 1 if goal == "min" else -1

    def place(row: Row) -> tuple[bool, bool, float]:
        value, is_pruned = row.metrics.get(name, math.nan), row.status == "pruned"
        return (True, is_pruned, 0.0) if math.isnan(value) else (False, is_pruned, sign * value)

    return name, sorted(rows, key=place)
