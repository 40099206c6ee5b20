"""Searches: points that Optuna chooses, each when a member can start, from the results so far.

Beside the plan, a search's folder has

    search.yaml      the settings: sampler, trials, pruner, metric, storage, study, overrides
    from.yaml        the configuration of `--from RUN`, if given
    study.journal    the trials, unless --storage names another storage
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dlx.config import Config
from dlx.config.errors import UserError
from dlx.config.screen import note
from dlx.runs.files import inside, write_atomic
from dlx.runs.folder import RunFolder, load_frozen
from dlx.sweeps.check import check_start
from dlx.sweeps.executors.execution import Execution
from dlx.sweeps.grid import value_of
from dlx.sweeps.plan import Ending, Plan, environment
from dlx.sweeps.points import Point, Points, check_metric
from dlx.sweeps.search.plot import plot_search
from dlx.sweeps.search.settings import STORAGE, Settings
from dlx.sweeps.search.space import Space
from dlx.sweeps.search.storage import NoStudy, StudyError, absolute, redacted, repair_journal, storage_path
from dlx.sweeps.search.study import Study
from dlx.sweeps.sweep import SweepResult, make_folder, run_sweep

BASE = "from.yaml"


@dataclass(frozen=True)
class Draft:
    """A checked search; nothing is written yet. first: a configuration of the space."""

    settings: Settings
    space: Space
    first: Config
    storage: str | None = None
    base: Config | None = None


def draft_search(
    arguments: Sequence[str],
    settings: Settings,
    execution: Execution,
    *,
    conf_dirs: Sequence[Path | str] = (),
    base: Config | None = None,
) -> Draft:
    """Checks each key at its bounds and choices, builds the models without weights, and tries the storage.

    settings: without a metric, the search optimizes what the models monitor.
    """
    settings.check()
    space = Space(arguments, conf_dirs=conf_dirs, trust=execution.trust, base=base)
    check_trials(settings.trials, space)
    configs = space.check()
    if any("experiment" in config.values for config in configs):
        raise UserError("experiment: a claim is run by `dlx train experiment=NAME`, not searched")
    methods = [str(config.choices["method"]) for config in configs if "method" in config.values]
    if methods and settings.pruner != "none":
        raise UserError(f"--pruner {settings.pruner}: the runs of method={methods[0]} are not pruned; leave it out")
    points = [Point("", config, {}) for config in configs]
    checked = check_start(points, execution)
    metrics = [names for names in checked.metrics if names]
    if settings.metric and metrics:
        check_metric(settings.metric, set.intersection(*metrics))
    if not settings.metric:
        if len(checked.monitors) > 1 or None in checked.monitors:
            names = ", ".join(sorted(text or "nothing" for text in checked.monitors))
            raise UserError(f"--metric: must be given, such as val/loss:min; the models monitor {names}")
        settings = replace(settings, metric=checked.monitors.pop() or "")
        settings.check()
    storage = settings.storage or os.environ.get(STORAGE)
    if storage is not None:
        storage = absolute(storage)
        shown = replace(settings, storage=f"--storage {redacted(storage)}")
        path = storage_path(storage)
        if path is not None and not path.parent.is_dir():
            raise StudyError(f"{shown.storage}: there is no folder {path.parent}")
        if path is None or path.exists():
            with contextlib.suppress(NoStudy):
                Study.load(shown, storage, Path()).check(space.dimensions, settings.metric)
    settings = replace(
        settings,
        storage=redacted(storage) if storage else None,
        seed=configs[0]["seed"],
        overrides=list(arguments),
        conf_dirs=[str(Path(folder).absolute()) for folder in conf_dirs],
    )
    return Draft(settings, space, configs[0], storage, base)


def check_trials(trials: int, space: Space) -> None:
    """Raises UserError for more trials than the space has points."""
    if (points := math.prod(dimension.count for dimension in space.dimensions)) < trials:
        raise UserError(f"--trials {trials}: there are {points:g} points; without --search each is trained once")


def start_search(draft: Draft, execution: Execution) -> SweepResult:
    """Writes the settings, creates the study and runs the search."""
    command = sys.argv
    if draft.storage:  # the password is written nowhere
        command = [word.replace(draft.storage, redacted(draft.storage)) for word in command]
    folder = make_folder(draft.first, [draft.first], command)
    with folder.whole_or_gone():
        settings = replace(draft.settings, study=draft.settings.study or folder.name)
        storage = draft.storage or settings.storage_url(folder.path)
        study = Study.create(settings, storage, folder.path)
        if draft.base:
            write_atomic(folder.path / BASE, draft.base.to_yaml())
        settings.write(folder.path)
        search = Search(settings, draft.space, study, storage)
        plan = Plan.write(folder.path, {}, {}, settings.metric)
    with search.storage_env():
        return run_sweep(folder, plan, search, execution)


def open_search(
    folder: RunFolder,
    settings: Settings,
    known: Sequence[Point],
    *,
    trust: Sequence[str],
    given: str | None,
    trials: int | None = None,
) -> Search:
    """Opens a search that is resumed.

    known: its points so far. given: --storage, for a storage that is not in the folder. trials: the new total. Raises
    UserError if it has more points already.
    """
    path = folder.path
    storage = settings.storage_url(path, given)
    if trials is not None and trials < len(known):
        raise UserError(f"--trials {trials}: {len(known)} are there already; --trials is how many there are in all")
    if settings.storage is not None:
        settings = replace(settings, storage=redacted(storage))
        settings.write(path)
    else:
        repair_journal(inside(path, Path(storage).name))
    base = load_frozen(path / BASE, trust=trust) if (path / BASE).is_file() else None
    space = Space(settings.overrides, conf_dirs=settings.conf_dirs, trust=trust, base=base)
    study = Study.load(settings, storage, path)
    study.check(space.dimensions, settings.metric)
    if trials is not None and trials != settings.trials:
        settings = replace(settings, trials=trials)
        settings.check()
        check_trials(trials, space)
        settings.write(path)
    return Search(settings, space, study, storage, known)


class Search(Points):
    """The points of a search. known: the points that a resumed search has already; unfinished ones go on first."""

    def __init__(
        self, settings: Settings, space: Space, study: Study, storage: str, known: Sequence[Point] = ()
    ) -> None:
        super().__init__(known, settings.metric)
        study.fail_lost()
        self.settings, self.space, self.study, self.storage = settings, space, study, storage
        self._running: dict[str, int] = {}  # trial numbers by point
        self._importance: dict[str, float] | None = None  # None: the storage failed

    @property
    def total(self) -> int:
        return self.settings.trials

    def __iter__(self) -> Iterator[Point]:
        for point in list(self.points):
            number = self.study.again(point.name)
            if number is not None:
                self._running[point.name] = number
            yield point
        while len(self.points) < self.settings.trials:
            yield self._ask()

    def _ask(self) -> Point:
        number, values = self.study.ask(self.space.dimensions, self.settings.sampler, self.settings.seed)
        name = self.space.name(len(self.points), values)
        self._running[name] = number
        self.study.name(number, name)
        config = self.space.compose(values)
        self.points.append(Point(name, config, {key: value_of(config, key) for key in values}))
        return self.points[-1]

    def on_point_end(self, point: Point, status: str, metrics: Mapping[str, float]) -> None:
        """Raises UserError if a finished point lacks the metric: no other point will have it either."""
        number = self._running.pop(point.name, None)
        if number is None:
            return
        self.study.tell(number, status, metrics.get(self.settings.metric_name))
        if status == "finished":
            check_metric(self.settings.metric, metrics, point.name)

    def findings(self) -> dict[str, Any]:
        """The importance of each key."""
        try:
            self._importance = self.study.importance()
        except StudyError as error:  # the members' results do not depend on it
            note(f"warning: {error}")
            self._importance = None
        return {"importance": self._importance} if self._importance else {}

    def draw(self, ending: Ending) -> None:
        """media/search.png"""
        if (importance := self._importance) is not None:
            own, metric = self.study.owner["sweep"], self.settings.metric
            ending.draw("search", lambda: plot_search(self.study.trials(), metric, importance, own))

    @contextlib.contextmanager
    def storage_env(self) -> Iterator[None]:
        """Sets DLX_STORAGE for the members' processes; at the end, no trial of this sweep stays "running"."""
        try:
            with environment(STORAGE, self.storage) if self.settings.storage else contextlib.nullcontext():
                yield
        except StudyError as error:
            error.exit_code = 1  # a failure in the run, not a wrong request
            raise
        finally:
            with contextlib.suppress(StudyError):
                for number in self._running.values():
                    self.study.tell(number, "interrupted", None)
