"""The space of a search: `optim.lr='tag(log, interval(1e-4, 1e-1))' model=mlp,resnet` as what Optuna draws from.

By Hydra's grammar: interval(a, b) is any number between, int(interval(a, b)) any whole one, tag(log, ...) is even on a
logarithmic scale, range(...) a number in steps; lists and globs, of values or of a group's options, are choices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx.config import Config
from dlx.config.errors import ConfigError, Problem
from dlx.config.groups import GROUPS
from dlx.config.keys import long_key
from dlx.config.overrides import parse_override
from dlx.sweeps.grid import Composer, folder_name, range_values, read_axes

if TYPE_CHECKING:
    from hydra.core.override_parser.types import IntervalSweep, RangeSweep
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Choices:
    """One of several texts. name: the key as it was typed."""

    key: str
    name: str
    texts: tuple[str, ...]

    @property
    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.texts)

    @property
    def tries(self) -> tuple[str, ...]:
        """Values that show whether all can be."""
        return self.texts

    @property
    def count(self) -> float:
        """Of values; infinite between bounds."""
        return len(self.texts)

    def __str__(self) -> str:
        return f"one of {', '.join(self.texts)}"


@dataclass(frozen=True)
class Numbers:
    """A number from low to high, both included. step: 0 is any number between."""

    key: str
    name: str
    low: float
    high: float
    step: float = 0.0
    log: bool = False
    whole: bool = False

    @property
    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step) or 1)
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step or None)

    @property
    def tries(self) -> tuple[float, ...]:
        if self.whole:
            return (int(self.low), int(self.high))
        # One within, for what takes whole numbers only: the bounds may be whole by chance.
        within = math.sqrt(self.low * self.high) if self.log else self.low + (self.high - self.low) / math.pi
        return (self.low, self.high) if self.step else (self.low, self.high, within)

    @property
    def count(self) -> float:
        step = self.step or (1 if self.whole else 0)
        return round((self.high - self.low) / step) + 1 if step else math.inf

    def exact(self, value: float) -> float:
        """The member of the range that Optuna's floating-point steps came close to: that which a grid has."""
        if self.whole or not self.step:
            return value
        low, step = Decimal(repr(self.low)), Decimal(repr(self.step))
        return float(low + round((Decimal(repr(value)) - low) / step) * step)

    def __str__(self) -> str:
        kind = "whole number" if self.whole else "number"
        step = f" in steps of {self.step:g}" if self.step and (self.step != 1 or not self.whole) else ""
        return f"{kind} from {self.low:g} to {self.high:g}{step}{', log scale' if self.log else ''}"


Dimension = Choices | Numbers


def text_of(value: Any, digits: int | None = None) -> str:
    """As an override says it. digits: as a person reads it, with so many."""
    if isinstance(value, float):
        return repr(value) if digits is None else f"{value:.{digits}g}"
    return str(value)


class Space:
    """The searched keys and the fixed overrides beside them, and the configuration of any point in it.

    Raises ConfigError for what cannot be read, and where nothing is searched.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        conf_dirs: Sequence[Path | str] = (),
        trust: Sequence[str] = (),
        base: Config | None = None,
    ) -> None:
        self.fixed: list[str] = []
        self.dimensions: list[Dimension] = []
        problems: list[Problem] = []
        typed: dict[str, str] = {}
        for argument in arguments:
            key = long_key(argument.partition("=")[0].lstrip("+~"))
            if key in typed:
                problems.append(Problem(key, f"is given twice: {typed[key]} and {argument}"))
                continue
            typed[key] = argument
            try:
                found = _read(argument, conf_dirs)
            except ConfigError as error:
                problems += error.problems
                continue
            if isinstance(found, str):
                self.fixed.append(found)
            else:
                self.dimensions.append(found)
        if not problems and not self.dimensions:
            known = "such as optim.lr='tag(log, interval(1e-4, 1e-1))' or model=mlp,resnet"
            problems.append(Problem("--search", f"no key has several values; give one, {known}"))
        if problems:
            raise ConfigError(problems)
        self._compose = Composer(conf_dirs, trust, base)

    def compose(self, values: Mapping[str, Any]) -> Config:
        """values: by key."""
        words = [(dimension.key, f"{dimension.name}={text_of(values[dimension.key])}") for dimension in self.dimensions]
        return self._compose(
            [*self.fixed, *(word for _, word in words)], [word for key, word in words if key not in GROUPS]
        )

    def check(self) -> list[Config]:
        """The configurations with the bounds and choices of each key, the others at their first.

        Raises ConfigError with the mistakes of all, each once.
        """
        first = {dimension.key: dimension.tries[0] for dimension in self.dimensions}
        found: list[Config] = []
        problems: dict[str, Problem] = {}
        for dimension in self.dimensions:
            for value in dimension.tries[1 if found else 0 :]:
                try:
                    found.append(self.compose({**first, dimension.key: value}))
                except ConfigError as error:
                    problems |= {str(problem): problem for problem in error.problems}
                    if isinstance(dimension, Numbers):
                        break  # its other bound would say the same
        if problems:
            raise ConfigError(list(problems.values()))
        return found

    def name(self, number: int, values: Mapping[str, Any]) -> str:
        """`007-lr-0.0123-hidden-8`: what a point's folder is called."""
        return folder_name(number, [(key, text_of(value, digits=3)) for key, value in values.items()])


def _read(argument: str, conf_dirs: Sequence[Path | str]) -> str | Dimension:
    """A dimension, or the override itself where it has one value."""
    from hydra.core.override_parser.types import IntervalSweep, RangeSweep

    name, _, text = argument.partition("=")
    key = long_key(name.lstrip("+~"))
    try:
        value = parse_override(argument).value()
    except ValueError as error:
        if text.startswith(("interval(", "range(", "tag(", "int(", "float(", "choice(")):
            raise ConfigError([Problem(key, f"{text} cannot be read: {error}")]) from None
        value = None  # composing says what is wrong with it, or quotes it
    try:
        if isinstance(value, IntervalSweep):
            return _of_interval(key, name, value)
        if isinstance(value, RangeSweep) and not value.shuffle:
            return _of_range(key, name, value, argument)
    except ValueError as error:
        raise ConfigError([Problem(key, str(error))]) from None
    (axis,) = read_axes([argument], conf_dirs)
    words = tuple(dict.fromkeys(axis.words))
    if "shuffle(" in argument:  # in an order that a resumed search has again: a study's choices may not change
        words = tuple(sorted(words))
    if len(words) == 1:
        return words[0]
    return Choices(key, name, tuple(word.partition("=")[2] for word in words))


def _of_interval(key: str, name: str, sweep: IntervalSweep) -> Numbers:
    low, high, log = sweep.start, sweep.end, _is_log(sweep.tags)
    assert low is not None
    assert high is not None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"must be from a lower to a higher number, got interval({low:g}, {high:g})")
    _check_log(log, low)
    return Numbers(key, name, low, high, log=log, whole=isinstance(low, int) and isinstance(high, int))


def _of_range(key: str, name: str, sweep: RangeSweep, argument: str) -> str | Numbers:
    text, log = argument.partition("=")[2], _is_log(sweep.tags)
    values = range_values(sweep, argument)
    if not values:
        raise ValueError(f"{text} has no values")
    low, high = min(values), max(values)
    if len(values) == 1:
        return f"{name}={text_of(low)}"
    step, whole = abs(sweep.step), all(isinstance(value, int) for value in values)
    if log and not (whole and step == 1):
        raise ValueError(f"tag(log, ...) is for intervals and ranges of whole numbers in steps of 1, got {text}")
    _check_log(log, low)
    return Numbers(key, name, low, high, step, log, whole)


def _is_log(tags: set[str]) -> bool:
    if unknown := sorted(tags - {"log"}):
        raise ValueError(f"tag({unknown[0]}, ...): there is no such tag; log is there")
    return "log" in tags


def _check_log(log: bool, low: float) -> None:
    if log and low <= 0:
        raise ValueError(f"tag(log, ...) needs a lower bound above 0, got {low:g}")
