"""Checks the points of a sweep before anything is written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from dlx.config import Config
from dlx.config.errors import UserError
from dlx.sweeps.executors.execution import Execution
from dlx.sweeps.plan import is_member_name, refuse_torchrun
from dlx.sweeps.points import Point, check_metric
from dlx.training.preflight import check_folder, check_member
from dlx.training.prepare import Prepared, Preparer

MAX_LINES = 4  # of an error
HARMLESS = ("seed", "name")  # keys that no mistake depends on


@dataclass(frozen=True)
class Checked:
    """members: the first members of each point, by short names. metrics: those of each kind of run; empty if they are
    not known before it ran. monitors: what the models monitor, such as val/loss:min; None: nothing."""

    members: dict[Point, dict[str, Config]]
    metrics: list[set[str]]
    monitors: set[str | None]


def check_sweep(points: Sequence[Point], execution: Execution, metric: str | None = None) -> Checked:
    """Raises UserError for anything that would stop the sweep before its members run, and for a metric, such as
    val/accuracy:max, that no point will have. Nothing is written."""
    checked = check_start(points, execution)
    names = Counter(point.member(short) for point, members in checked.members.items() for short in members)
    for name, count in names.items():
        if count > 1 or not (is_member_name(name) or name == ""):  # an only point has no name
            raise UserError(f"{name}: {'two members have this name' if count > 1 else 'is not a folder name'}")
    _check_seeds(checked.members)
    if metric and all(checked.metrics):
        check_metric(metric, set().union(*checked.metrics))
    return checked


def check_start(points: Sequence[Point], execution: Execution) -> Checked:
    """The checks that grids and searches share: processes, executor, points, folder."""
    refuse_torchrun()
    for point in points if execution.executor != "inprocess" and execution.jobs != 1 else ():
        if (method := point.method) and method.is_chain:
            raise UserError(
                f"--executor {execution.executor}: {point.config.choices['method']} trains one member after another; "
                "it takes inprocess, or --jobs 1"
            )
    checked = check_points(points, here=execution.executor not in ("ray", "slurm"))
    check_folder(points[0].config, sweep_name(points[0].config))
    return checked


def check_points(points: Sequence[Point], *, here: bool = True) -> Checked:
    """Builds the first member of each point, without weights, which finds data and networks that do not fit.

    Raises UserError naming the points. Data that members share are opened once. here: members run on this machine,
    which must have their device.
    """
    prepare = Preparer()
    good: dict[str, Prepared] = {}
    checked = Checked({}, [], set())
    wrong: dict[str, tuple[UserError, list[str]]] = {}
    with TemporaryDirectory() as nowhere:
        for point in points:
            try:
                checked.members[point] = point.first_members(Path(nowhere))
                if (method := point.method) and method.check_all:
                    runs = [Point(name, config, {}) for name, config in checked.members[point].items()]
                    check_points(runs, here=here)
                    checked.metrics.append(set())
                    continue
                first = next(iter(checked.members[point].values()))
                key = identity(first, HARMLESS)
                if key not in good:
                    good[key] = prepare(first)
                    check_member(good[key], here=here)
                    names = () if method else good[key].system.metric_names
                    checked.metrics.append({f"{split}/{name}" for split in ("val", "test") for name in names})
                    monitor = good[key].trainer.monitored_of(good[key].system, good[key].regularizers)
                    checked.monitors.add(str(monitor) if monitor else None)
                if method:
                    method.check(point.base, good[key].system)
            except UserError as error:
                wrong.setdefault(str(error), (error, []))[1].append(point.name)
    if wrong:
        raise _named(wrong)
    return checked


def sweep_name(first: Config) -> str:
    """The name of the folder that contains the sweep's folder."""
    return str(first["name"] or Point("", first, {}).kind)


def identity(config: Config, without: Collection[str] = ("name",)) -> str:
    """A text that is equal for configurations that differ in these keys only."""
    values = {**config.values, "choices": config.choices}
    return json.dumps({key: v for key, v in values.items() if key not in without}, sort_keys=True, default=str)


def _check_seeds(made: Mapping[Point, Mapping[str, Config]]) -> None:
    """Raises UserError for points that differ in their seeds but share a member: their metrics are not independent.
    (Points that differ otherwise, such as in the vote, may share members.)"""
    trained: dict[tuple[str, str], str] = {}
    for point, members in made.items():
        kind = identity(point.config, HARMLESS) if "method" in point.config.values else ""
        for short, config in members.items() if kind else ():
            other = trained.setdefault((kind, identity(config)), point.name)
            if other != point.name:
                method = point.config.choices["method"]
                raise UserError(
                    f"seed: {other} and {point.name} both train {short}; method={method} has seeds of its own, from "
                    "the given one on: give one seed, or seeds that are further apart"
                )


def _named(wrong: dict[str, tuple[UserError, list[str]]]) -> UserError:
    """One error that lists each mistake and the points that cause it."""
    (first, names), *_ = wrong.values()
    if not any(names):
        return first
    lines = []
    for message, (_, names) in wrong.items():
        others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        lines += [f"{names[0]}{others}: {line}" for line in message.splitlines()]
    more = len(lines) - MAX_LINES
    return UserError("\n".join([*lines[:MAX_LINES], *([f"and {more} more"] if more > 0 else [])]))
