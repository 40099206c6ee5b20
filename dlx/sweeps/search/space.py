"""The space of a search: reads `optim.lr='tag(log, interval(1e-4, 1e-1))' model=mlp,resnet` into Optuna distributions.

In Hydra's grammar: interval(a, b) is a float, int(interval(a, b)) an integer, tag(log, ...) has a log scale, range(...)
has steps; lists and globs, of values or of a group's options, are choices.
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
from dlx.sweeps.grid import Composer, folder_name, range_values, read_each, read_words

if TYPE_CHECKING:
    from hydra.core.override_parser.types import IntervalSweep, RangeSweep
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Choices:
    """A categorical dimension. name: the key as it was typed. texts: the values as typed."""

    key: str
    name: str
    texts: tuple[str, ...]

    @property
    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.texts)

    @property
    def tries(self) -> tuple[str, ...]:
        """Values that are composed to check the dimension."""
        return self.texts

    @property
    def count(self) -> float:
        """The number of values; infinite for a float."""
        return len(self.texts)

    def exact(self, value: Any) -> Any:
        return value

    def __str__(self) -> str:
        return f"one of {', '.join(self.texts)}"


@dataclass(frozen=True)
class Numbers:
    """A number from low to high, both included. step: 0 is continuous. log: a log scale. whole: an integer."""

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
        # A value in between finds keys that take integers only: both bounds may be integers by chance.
        within = math.sqrt(self.low * self.high) if self.log else self.low + (self.high - self.low) / math.pi
        return (self.low, self.high) if self.step else (self.low, self.high, within)

    @property
    def count(self) -> float:
        step = self.step or (1 if self.whole else 0)
        return round((self.high - self.low) / step) + 1 if step else math.inf

    def exact(self, value: float) -> float:
        """The value of the range that is nearest to Optuna's, whose floating-point steps are inexact."""
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
    """The value in an override; with that many digits in a name."""
    if isinstance(value, float):
        return repr(value) if digits is None else f"{value:.{digits}g}"
    return str(value)


class Space:
    """The searched dimensions and the fixed overrides; composes the configuration of any point.

    Raises ConfigError for overrides that cannot be read, and if no key has several values.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        conf_dirs: Sequence[Path | str] = (),
        trust: Sequence[str] = (),
        base: Config | None = None,
    ) -> None:
        found = read_each(arguments, lambda argument, key: _read(argument, key, conf_dirs))
        self.fixed = [item for item in found if isinstance(item, str)]
        self.dimensions = [item for item in found if not isinstance(item, str)]
        if not self.dimensions:
            example = "such as optim.lr='tag(log, interval(1e-4, 1e-1))' or model=mlp,resnet"
            raise ConfigError([Problem("--search", f"no key has several values; give one, {example}")])
        self._compose = Composer(conf_dirs, trust, base)

    def compose(self, values: Mapping[str, Any]) -> Config:
        """values: by key."""
        words = [(dimension.key, f"{dimension.name}={text_of(values[dimension.key])}") for dimension in self.dimensions]
        return self._compose(
            [*self.fixed, *(word for _, word in words)], [word for key, word in words if key not in GROUPS]
        )

    def check(self) -> list[Config]:
        """The configurations at the bounds and choices of each key, the other keys at their first value.

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
                        break  # the other bound has the same mistake
        if problems:
            raise ConfigError(list(problems.values()))
        return found

    def name(self, number: int, values: Mapping[str, Any]) -> str:
        """The name of a point's folder, such as `007-lr-0.0123-hidden-8`."""
        return folder_name(number, [(key, text_of(value, digits=3)) for key, value in values.items()])


def _read(argument: str, key: str, conf_dirs: Sequence[Path | str]) -> str | Dimension:
    """A dimension, or the override itself if it has one value. Raises ValueError."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import IntervalSweep, RangeSweep
    from hydra.errors import HydraException

    name, _, text = argument.partition("=")
    try:
        value = OverridesParser.create().parse_override(argument).value()
    except HydraException as error:
        if text.startswith(("interval(", "range(", "tag(", "int(", "float(", "choice(")):
            reason = str(error).splitlines()[0].rpartition("': ")[2]
            raise ValueError(f"{text} cannot be read: {reason}") from None
        value = None  # composing reports the mistake, or quotes the value
    if isinstance(value, IntervalSweep):
        return _of_interval(key, name, value)
    if isinstance(value, RangeSweep) and not value.shuffle:
        return _of_range(key, name, value, argument)
    words = tuple(dict.fromkeys(read_words(argument, key, conf_dirs)))
    if "shuffle(" in argument:  # a resumed search needs the same choices in the same order
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
        raise ValueError(f"tag({unknown[0]}, ...): unknown tag; the only tag is log")
    return "log" in tags


def _check_log(log: bool, low: float) -> None:
    if log and low <= 0:
        raise ValueError(f"tag(log, ...) needs a lower bound above 0, got {low:g}")
