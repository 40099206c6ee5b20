"""Method: several trainings with one answer. Cross-validation, ensembles, the decomposition of an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dlx.config.errors import ConfigError, Problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlx.config import Config
    from dlx.runs.folder import RunFolder
    from dlx.tasks.supervised import Supervised
    from dlx.tasks.system import System


@dataclass(frozen=True)
class Answer:
    """What a method found.

    metrics: figures under the names of a run's (`val/accuracy` is then the mean over members), with `NAME_std` beside
    where there is a spread; a sweep or search over methods ranks by them. details: plain numbers, texts and lists for
    summary.json. figures: what draws pictures, by name: called once the summary is written.
    """

    metrics: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Callable[[], Figure]] = field(default_factory=dict)


def check_unset(base: Config, *keys: str) -> None:
    """Raises ConfigError for keys of the dataset that have a value: the method's own would take its place, unsaid."""
    given = {key: value for key in keys if (value := base["dataset"].get(key)) is not None}
    if given:
        why = "the method sets it for each of its runs"
        raise ConfigError([Problem(f"dataset.{key}", f"must be null, got {v}: {why}") for key, v in given.items()])


def check_supervised(method: str, system: System) -> Supervised:
    """Raises ConfigError for a system that is neither a classifier nor a regressor."""
    from dlx.tasks.supervised import Supervised

    if not isinstance(system, Supervised):
        why = f"{method} joins the answers of classifiers and regressors; {type(system).__name__} is neither"
        raise ConfigError([Problem("method", why)])
    return system


class Method:
    """Base of all methods. A subclass has its settings as constructor arguments."""

    is_chain: ClassVar[bool] = False
    """Whether a member needs those before it, so that they run one after another."""

    def check(self, base: Config, system: System) -> None:
        """Raises ConfigError where the method cannot join the members of such a system (on the meta device): asked
        before the first one starts."""

    def members(self, base: Config, done: Mapping[str, RunFolder], folder: Path) -> dict[str, Config]:
        """The members that can start now, by short names that are file names, made from `base`; empty when there are no
        more.

        Asked once, with nothing done, unless it is a chain: then again after each member that finished. The first of
        them asks the most of the data: it is built before anything is written. done: folders of the finished members.
        folder: where the method may write what its members read.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no members")

    def answer(self, base: Config, runs: Mapping[str, RunFolder], folder: Path) -> Answer:
        """From the finished members (at least one). folder: the method's own, for what it leaves (an ensemble)."""
        raise NotImplementedError(f"{type(self).__name__} defines no answer")
