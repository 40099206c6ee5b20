"""Searches: points that Optuna decides on, each when there is a place for it, by how those before it ended.

A search's folder has beside the plan

    search.yaml      the search as it was asked for: sampler, trials, pruner, metric, storage, study, overrides
    from.yaml        the configuration of `--from RUN`, where there was one
    study.journal    the trials, unless they are in a storage of the person's own
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx.config.errors import UserError
from dlx.config.monitor import Monitor
from dlx.config.screen import note
from dlx.runs.files import inside, write_atomic
from dlx.runs.folder import load_frozen
from dlx.sweeps.check import check_metric
from dlx.sweeps.draft import SEARCH, STORAGE, Draft, Settings, check_trials
from dlx.sweeps.grid import value_of
from dlx.sweeps.points import Point
from dlx.sweeps.samplers import check_pickles
from dlx.sweeps.space import Space
from dlx.sweeps.storage import StudyError, mend_journal, redacted
from dlx.sweeps.study import Study

if TYPE_CHECKING:
    from dlx.runs.folder import RunFolder
    from dlx.sweeps.plan import Ending
    from dlx.training.job import Watch

BASE = "from.yaml"


def begin_search(draft: Draft, folder: RunFolder) -> Search:
    """Writes what the search is, and its study."""
    settings, path = draft.settings, folder.path
    settings = replace(settings, study=settings.study or folder.name)
    storage = draft.storage or settings.address(path)
    study = Study.create(
        storage, settings.where, settings.study or "", path, metric=settings.metric, pruner=settings.pruner
    )
    if draft.base:
        write_atomic(path / BASE, draft.base.to_yaml())
    settings.write(path)
    return Search(folder, settings, draft.space, study, storage)


def open_search(
    folder: RunFolder, known: Sequence[Point], *, trust: Sequence[str], given: str | None, trials: int | None = None
) -> Search:
    """A search that goes on. known: its points so far. given: the storage, where the folder may not have it. trials:
    how many points it has now in all. Raises UserError where it has more already."""
    path, settings = folder.path, Settings.read(folder.path)
    storage = settings.address(path, given)
    if trials is not None and trials < len(known):
        raise UserError(f"--trials {trials}: {len(known)} are there already; --trials is how many there are in all")
    if settings.storage is not None:
        settings = replace(settings, storage=redacted(storage))
        settings.write(path)
    else:
        mend_journal(inside(path, Path(storage).name))
    base = load_frozen(path / BASE, trust=trust) if (path / BASE).is_file() else None
    space = Space(settings.overrides, conf_dirs=settings.conf_dirs, trust=trust, base=base)
    study = Study.load(storage, settings.where, settings.study or "", path, pruner=settings.pruner)
    study.check(space.dimensions, settings.metric)
    if trials is not None and trials != settings.trials:
        check_trials(trials, space)
        settings = replace(settings, trials=trials)
        settings.write(path)
    return Search(folder, settings, space, study, storage, known)


class Search:
    """The points of a search. known: those that it had before it was cut off; they go first, to their ends."""

    def __init__(
        self,
        folder: RunFolder,
        settings: Settings,
        space: Space,
        study: Study,
        storage: str,
        known: Sequence[Point] = (),
    ) -> None:
        if settings.sampler == "cmaes":
            check_pickles(study.trials(), study.where)
        study.fail_lost()
        self.folder, self.settings, self.space, self.study, self.storage = folder, settings, space, study, storage
        self.points = list(known)
        self._running: dict[str, int] = {}  # trials, by point
        self._importance: dict[str, float] | None = None  # None: the storage does not answer

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

    def told(self, point: Point, status: str, figures: Mapping[str, float]) -> None:
        """Raises UserError where a point that finished has no such figure: none will have it."""
        number = self._running.pop(point.name, None)
        if number is None:
            return
        self.study.tell(number, status, figures.get(Monitor.parse(self.settings.metric).name))
        if status == "finished":
            check_metric(self.settings.metric, figures, point.name)

    def findings(self) -> dict[str, Any]:
        """What of the result each key accounts for."""
        try:
            self._importance = self.study.importance()
        except StudyError as error:  # what the members found stands without it
            note(f"warning: {error}")
            self._importance = None
        return {"importance": self._importance} if self._importance else {}

    def draw(self, ending: Ending) -> None:
        """media/search.png"""
        from dlx.sweeps.history import history

        if (importance := self._importance) is not None:
            own, metric = self.study.owner["sweep"], self.settings.metric
            ending.draw("search", lambda: history(self.study.trials(), metric, importance, own))

    @contextlib.contextmanager
    def under_way(self) -> Iterator[None]:
        """Inside, members find the storage; after it no trial of this sweep stays "running"."""
        before = os.environ.get(STORAGE)
        if self.settings.storage is not None:
            os.environ[STORAGE] = self.storage
        try:
            yield
        except StudyError as error:
            error.exit_code = 1  # nothing was wrong with the request
            raise
        finally:
            with contextlib.suppress(StudyError):
                for number in self._running.values():
                    self.study.tell(number, "interrupted", None)
            os.environ.pop(STORAGE, None)
            if before is not None:
                os.environ[STORAGE] = before


def watch_of(path: Path, member: str) -> Watch | None:
    """What tells the study of a running member, and the member whether to go on. path: of the plan.

    A storage that does not answer ends no training: it is said once.
    """
    if not (path / SEARCH).is_file():
        return None
    settings = Settings.read(path)
    if settings.pruner == "none":
        return None
    name = Monitor.parse(settings.metric).name
    opened: list[Study | None] = []

    def watch(history: list[dict[str, float]]) -> bool:
        values = {number: row[name] for number, row in enumerate(history, 1) if name in row}
        try:
            if not opened:
                study_name, storage = settings.study or "", settings.address(path)
                opened.append(Study.load(storage, settings.where, study_name, path, pruner=settings.pruner))
            return opened[0].report(member, values) if opened[0] else False
        except UserError as error:
            note(f"warning: {error}")
            opened[:] = [None]
            return False

    return watch
