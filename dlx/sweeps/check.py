"""What is wrong with the points of a sweep, found before anything is written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from dlx.config.errors import UserError
from dlx.config.groups import nearest
from dlx.sweeps.plan import is_member_name
from dlx.training.preflight import check_member
from dlx.training.run import Preparer

if TYPE_CHECKING:
    from dlx.config import Config
    from dlx.sweeps.points import Point
    from dlx.training.run import Prepared

SAID = 4  # lines
WITHOUT = ("seed", "name")  # what nothing that can be wrong depends on


def check_points(
    points: Sequence[Point], metric: str | None = None, *, here: bool = True
) -> dict[Point, dict[str, Config]]:
    """The first members of each point, by short names. The first of these is built, without weights: what data and
    network cannot go together, or are asked for more than there is, would otherwise fail when its turn comes.

    Raises UserError naming the points, and for a metric, such as val/accuracy:max, that none of them will have. Data
    that members share are opened once. here: members run on this machine, which must have their device.
    """
    prepare = Preparer()
    good: dict[str, Prepared] = {}
    figures: list[set[str]] = []
    made: dict[Point, dict[str, Config]] = {}
    wrong: dict[str, tuple[UserError, list[str]]] = {}
    with TemporaryDirectory() as nowhere:
        for point in points:
            try:
                made[point] = point.first_members(Path(nowhere))
                if (method := point.method) and method.check_all:
                    check_members(made[point], here=here)
                    continue
                first = next(iter(made[point].values()))
                key = identity(first, WITHOUT)
                if key not in good:
                    good[key] = prepare(first)
                    check_member(good[key], here=here)
                    figures.append(set() if method else metrics_of(good[key]))
                if method:
                    method.check(point.base, good[key].system)
            except UserError as error:
                wrong.setdefault(str(error), (error, []))[1].append(point.name)
    if wrong:
        raise _named(wrong)
    _check_names(made)
    _check_seeds(made)
    if metric and all(figures):
        check_metric(metric, set().union(*figures))
    return made


def metrics_of(prepared: Prepared) -> set[str]:
    """What a run will be evaluated by, such as val/loss; empty where that is not known before it is."""
    return {f"{split}/{name}" for split in ("val", "test") for name in prepared.system.metric_names}


def check_metric(metric: str, known: Collection[str], where: str = "") -> None:
    """Raises UserError where no figure has its name. metric: such as val/loss:min. known: the figures, of `where`."""
    name = metric.rpartition(":")[0]
    if name not in known:
        names = sorted(name for name in known if not name.endswith("_std"))
        said = f"{where} has no such figure" if where else "there is no such figure"
        raise UserError(f"--metric {name}: {said}{nearest(name, names) or ';'} {', '.join(names)} are there")


def identity(config: Config, without: Collection[str] = ("name",)) -> str:
    """The same for configurations that differ in nothing but these keys."""
    values = {**config.values, "choices": config.choices}
    return json.dumps({key: v for key, v in values.items() if key not in without}, sort_keys=True, default=str)


def check_members(members: Mapping[str, Config], *, here: bool = True) -> None:
    """As `check_points`, of configurations that are runs themselves: of a claim."""
    prepare = Preparer()
    good: set[str] = set()
    wrong: dict[str, tuple[UserError, list[str]]] = {}
    for name, config in members.items():
        key = identity(config, WITHOUT)
        try:
            if key not in good:
                check_member(prepare(config), here=here)
                good.add(key)
        except UserError as error:
            wrong.setdefault(str(error), (error, []))[1].append(name)
    if wrong:
        raise _named(wrong)


def _check_names(made: Mapping[Point, Mapping[str, Config]]) -> None:
    """Raises UserError where a member's folder cannot be called as it is."""
    names = Counter(point.member(short) for point, members in made.items() for short in members)
    for name, count in names.items():
        if count > 1 or not is_member_name(name):
            raise UserError(f"{name}: {'two members have this name' if count > 1 else 'is no name for a folder'}")


def _check_seeds(made: Mapping[Point, Mapping[str, Config]]) -> None:
    """Raises UserError where points that differ in their seeds train the same: their figures would be no repeats. (What
    differs otherwise, such as a vote, may well have the same members.)"""
    trained: dict[tuple[str, str], str] = {}
    for point, members in made.items():
        kind = identity(point.config, WITHOUT) if "method" in point.config.values else ""
        for short, config in members.items() if kind else ():
            other = trained.setdefault((kind, identity(config)), point.name)
            if other != point.name:
                method = point.config.choices["method"]
                raise UserError(
                    f"seed: {other} and {point.name} both train {short}; method={method} has seeds of its own, from "
                    "the given one on: give one seed, or seeds that are further apart"
                )


def _named(wrong: dict[str, tuple[UserError, list[str]]]) -> UserError:
    """One error with the mistakes, each with the points that make it; that of an only point is said as it is."""
    (first, names), *_ = wrong.values()
    if names == [""]:
        return first
    lines = []
    for message, (_, names) in wrong.items():
        others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        lines += [f"{names[0]}{others}: {line}" for line in message.splitlines()]
    more = len(lines) - SAID
    return UserError("\n".join([*lines[:SAID], *([f"and {more} more"] if more > 0 else [])]))
