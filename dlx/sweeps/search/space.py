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
from typing import Any, cast

from hydra.core.override_parser.types import IntervalSweep, RangeSweep
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from dlx.config import Config
from dlx.config.errors import ConfigError, Problem
from dlx.config.groups import GROUPS
from dlx.config.overrides import parse_override
from dlx.sweeps.grid import Composer, folder_name, range_values, read_each, read_words

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution


@dataclass(frozen=True)
class Dimension:
    """A searched key. name: the key as it was typed."""

    key: str
    name: str
    distribution: Distribution

    @property
    def tries(self) -> tuple[Any, ...]:
        """Values that are composed to check the dimension."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return choices
            case IntDistribution(low=low, high=high):
                return low, high
            case FloatDistribution(low=low, high=high, step=step, log=log):
                # A value in between finds keys that take integers only: both bounds may be integers by chance.
                within = math.sqrt(low * high) if log else low + (high - low) / math.pi
                return (low, high) if step else (low, high, within)

    @property
    def count(self) -> float:
        """The number of values; infinite for a continuous dimension."""
        if isinstance(self.distribution, CategoricalDistribution):
            return len(self.distribution.choices)
        low, high, step = self.distribution.low, self.distribution.high, self.distribution.step
        return round((high - low) / step) + 1 if step else math.inf

    def exact(self, value: Any) -> Any:
        """The value of a range that is nearest to Optuna's, whose floating-point steps are inexact."""
        if not isinstance(self.distribution, FloatDistribution) or not self.distribution.step:
            return value
        low, step = Decimal(repr(self.distribution.low)), Decimal(repr(self.distribution.step))
        return float(low + round((Decimal(repr(value)) - low) / step) * step)

    def __str__(self) -> str:
        of = self.distribution
        if isinstance(of, CategoricalDistribution):
            return f"one of {', '.join(map(str, of.choices))}"
        kind = "integer" if isinstance(of, IntDistribution) else "number"
        step = f" in steps of {of.step:g}" if of.step and (of.step != 1 or kind == "number") else ""
        return f"{kind} from {of.low:g} to {of.high:g}{step}{', log scale' if of.log else ''}"


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
                    if not isinstance(dimension.distribution, CategoricalDistribution):
                        break  # the other bound has the same mistake
        if problems:
            raise ConfigError(list(problems.values()))
        return found

    def name(self, number: int, values: Mapping[str, Any]) -> str:
        """The name of a point's folder, such as `007-lr-0.0123-hidden-8`."""
        return folder_name(number, [(key, text_of(value, digits=3)) for key, value in values.items()])


def _read(argument: str, key: str, conf_dirs: Sequence[Path | str]) -> str | Dimension:
    """A dimension, or the override itself if it has one value. Raises ValueError."""
    name, _, text = argument.partition("=")
    try:
        value = parse_override(argument).value()
    except ValueError as error:
        if text.startswith(("interval(", "range(", "tag(", "int(", "float(", "choice(")):
            raise ValueError(f"{text} cannot be read: {error}") from None
        return argument  # composing reports the mistake, or quotes the value
    if isinstance(value, IntervalSweep):
        return _of_interval(key, name, value)
    if isinstance(value, RangeSweep) and not value.shuffle:
        return _of_range(key, name, value, argument)
    words = tuple(dict.fromkeys(read_words(argument, key, conf_dirs)))
    if "shuffle(" in argument:  # a resumed search needs the same choices in the same order
        words = tuple(sorted(words))
    if len(words) == 1:
        return words[0]
    return Dimension(key, name, CategoricalDistribution([word.partition("=")[2] for word in words]))


def _of_interval(key: str, name: str, sweep: IntervalSweep) -> Dimension:
    low, high = cast(tuple[float, float], (sweep.start, sweep.end))
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"must be from a lower to a higher number, got interval({low:g}, {high:g})")
    log = _is_log(sweep.tags, low)
    if isinstance(low, int) and isinstance(high, int):
        return Dimension(key, name, IntDistribution(low, high, log=log))
    return Dimension(key, name, FloatDistribution(low, high, log=log))


def _of_range(key: str, name: str, sweep: RangeSweep, argument: str) -> str | Dimension:
    text = argument.partition("=")[2]
    values = range_values(sweep, argument)
    if not values:
        raise ValueError(f"{text} has no values")
    low, high, step = min(values), max(values), abs(sweep.step)
    if len(values) == 1:
        return f"{name}={text_of(low)}"
    log, whole = _is_log(sweep.tags, low), all(isinstance(value, int) for value in values)
    if log and not (whole and step == 1):
        raise ValueError(f"tag(log, ...) is for intervals and ranges of whole numbers in steps of 1, got {text}")
    if whole:
        return Dimension(key, name, IntDistribution(int(low), int(high), log=log, step=int(step)))
    return Dimension(key, name, FloatDistribution(low, high, step=step))


def _is_log(tags: set[str], low: float) -> bool:
    if unknown := sorted(tags - {"log"}):
        raise ValueError(f"tag({unknown[0]}, ...): unknown tag; the only tag is log")
    if tags and low <= 0:
        raise ValueError(f"tag(log, ...) needs a lower bound above 0, got {low:g}")
    return bool(tags)
