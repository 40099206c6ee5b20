"""Method: several trainings with one result, such as cross-validation, an ensemble or the decomposition of an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from dlx.config import Config
from dlx.config.errors import ConfigError, Problem, reason_of
from dlx.runs.draw import Figure
from dlx.runs.folder import RunFolder
from dlx.sweeps.plan import Interrupted
from dlx.tasks.supervised import Supervised
from dlx.tasks.system import System
from dlx.training.session import Result


@dataclass(frozen=True)
class MethodResult:
    """What a method found.

    metrics: named as a run's (`val/accuracy` is then the mean over members), with `NAME_std` beside a mean of several;
    a sweep or search over methods ranks by them. details: plain numbers, texts and lists for summary.json. figures:
    functions that draw, by name; called after the summary is written. failure: why it is not whole; None where it is.
    """

    metrics: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Callable[[], Figure]] = field(default_factory=dict)
    failure: str | None = None


def check_unset(base: Config, *keys: str) -> None:
    """Raises ConfigError if the user set a dataset key that the method sets itself."""
    given = {key: value for key in keys if (value := base["dataset"].get(key)) is not None}
    if given:
        why = "the method sets it for each of its runs"
        raise ConfigError([Problem(f"dataset.{key}", f"must be null, got {v}: {why}") for key, v in given.items()])


def check_supervised(method: str, system: System) -> Supervised:
    """Raises ConfigError for a system that is neither a classifier nor a regressor."""
    if not isinstance(system, Supervised) or not system.answers_once:
        why = f"{method} joins the answers of classifiers and regressors; {type(system).__name__} is neither"
        raise ConfigError([Problem("method", why)])
    return system


class Method:
    """Base of all methods. A subclass has its settings as constructor arguments."""

    is_chain: ClassVar[bool] = False
    """True if a member needs those before it, so that they run one after another."""

    check_all: ClassVar[bool] = False
    """True if each member is checked before the start, not the first alone, which asks the most of the data."""

    def check(self, base: Config, system: System) -> None:
        """Raises ConfigError if the method cannot join members of this system (built on the meta device). Called before
        the first member starts."""

    def members(self, base: Config, done: Mapping[str, RunFolder], folder: Path) -> dict[str, Config]:
        """The members that can start now, made from `base`, by short names that are file names; empty at the end.

        Called once, with nothing done; of a chain again after each member that finished. done: folders of the finished
        members. folder: where the method may write files that its members read.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no members")

    def aggregate(self, base: Config, runs: Mapping[str, RunFolder], folder: Path) -> MethodResult:
        """The result of the finished members (at least one). folder: where the method writes, such as an ensemble."""
        raise NotImplementedError(f"{type(self).__name__} defines no aggregate")

    def conclude(
        self, base: Config, runs: Mapping[str, RunFolder], results: Mapping[str, Result], folder: Path
    ) -> MethodResult:
        """The result once all members ended. runs and results: of each member, by its short name.

        An error in `aggregate` becomes the result's failure: other points of a sweep go on. Raises Interrupted.
        """
        finished = {name: run for name, run in runs.items() if results[name].status == "finished"}
        lost = [f"{name} {result.status}: {result.reason}" for name, result in results.items() if name not in finished]
        if not finished:
            return MethodResult({}, failure=f"no member finished: {lost[0]}")
        try:
            result = self.aggregate(base, finished, folder)
        except Interrupted:
            raise
        except Exception as error:
            return MethodResult({}, failure=f"its members have no answer: {reason_of(error)}")
        failure = f"{len(lost)} of {len(runs)} members did not finish: {lost[0]}" if lost else None
        return replace(result, failure=failure)
