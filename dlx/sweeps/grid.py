"""Grids: composes and names the members of `optim.lr=1e-3,1e-2 seed=range(3)`.

Sweeps are Hydra's: `1,2`, choice(...), range(...), glob(...) over a group's options. An interval is for a search.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.override_parser.types import Glob, RangeSweep

from dlx.config import Config, compose
from dlx.config.errors import ConfigError, Problem
from dlx.config.groups import GROUPS, option_names
from dlx.config.keys import long_key
from dlx.config.overrides import parse_override
from dlx.runs.folder import slug
from dlx.sweeps.check import identity
from dlx.sweeps.points import Point

T = TypeVar("T")
MAX_MEMBERS = 100_000
MAX_NAME = 60  # characters


@dataclass(frozen=True)
class Axis:
    """One key and the overrides that set its values."""

    key: str
    words: tuple[str, ...]

    @property
    def is_swept(self) -> bool:
        return len(self.words) > 1


def read_axes(arguments: Sequence[str], conf_dirs: Sequence[Path | str] = ()) -> list[Axis]:
    """An axis for each argument; an argument without a sweep is an axis of one value."""
    return read_each(arguments, lambda argument, key: Axis(key, tuple(read_words(argument, key, conf_dirs))))


def read_each(arguments: Sequence[str], read: Callable[[str, str], T]) -> list[T]:
    """`read(argument, key)` of each argument. Raises ConfigError with all ValueErrors, and for keys given twice."""
    found: list[T] = []
    problems: list[Problem] = []
    typed: dict[str, str] = {}
    for argument in arguments:
        key = long_key(argument.partition("=")[0].lstrip("+~"))
        if key in typed:
            problems.append(Problem(key, f"is given twice: {typed[key]} and {argument}"))
        typed[key] = argument
        try:
            found.append(read(argument, key))
        except ValueError as error:
            problems.append(Problem(key, str(error)))
    if problems:
        raise ConfigError(problems)
    return found


def read_words(argument: str, key: str, conf_dirs: Sequence[Path | str]) -> list[str]:
    """The overrides of a sweep's values. Raises ValueError for an interval, and for a sweep without values."""
    try:
        parsed = parse_override(argument)
    except ValueError:
        return [argument]  # composing reports the mistake, or quotes the value
    if not parsed.is_sweep_override():
        return [argument]
    name, _, text = argument.partition("=")
    if parsed.is_interval_sweep():
        raise ValueError(f"{text} is for a search; a sweep takes values such as 1e-3,1e-2")
    value = parsed.value()
    if isinstance(value, Glob):
        if key not in GROUPS:
            raise ValueError("a glob is for a group's options, such as model=glob(res*)")
        names = [n for n in option_names(key, conf_dirs) if any(fnmatch(n, pattern) for pattern in value.include)]
        values = [n for n in names if not any(fnmatch(n, pattern) for pattern in value.exclude)]
    elif isinstance(value, RangeSweep):
        values = [str(number) for number in range_values(value, argument)]
    else:
        values = list(parsed.sweep_string_iterator())
    if not values:
        raise ValueError(f"{text} has no values")
    return [f"{name}={value}" for value in values]


def range_values(sweep: RangeSweep, argument: str) -> list[int | float]:
    """The numbers of range(start, stop, step), without the stop, counted in decimals: 0.1 + 0.1 + 0.1 is 0.3.

    argument: the override; Hydra reads a range inside sort(...) wrongly. Raises ValueError for too many values.
    """
    is_sorted = re.search(r"\bsort\(.*?(range\([^()]*\))", argument)
    if is_sorted:
        values = range_values(parse_override(f"x={is_sorted[1]}").value(), "")
        if isinstance(sweep.start, float):  # cast, within
            values = [*map(float, values)]
        values.sort(reverse=re.search(r"reverse\s*=\s*true", argument, re.IGNORECASE) is not None)
    else:
        numbers = sweep.start, sweep.stop, sweep.step
        start, stop, step = (Decimal(repr(number)) for number in numbers)
        text = f"range({', '.join(map(str, numbers))})"
        if not all(number.is_finite() for number in (start, stop, step)):
            raise ValueError(f"{text} must be of finite numbers")
        count = math.ceil((stop - start) / step) if step else 0
        if count > MAX_MEMBERS:
            raise ValueError(f"{text} has {count:,} values, more than {MAX_MEMBERS:,}")
        number = int if all(isinstance(value, int) for value in numbers) else float
        values = [number(start + n * step) for n in range(count)]
    if sweep.shuffle:
        random.shuffle(values)
    return values


def combine(axes: Sequence[Axis], *, paired: bool = False, sample: int | None = None, seed: int = 0) -> list[list[str]]:
    """The overrides of each member: the product of the axes, the last one fastest.

    paired: the n-th values of all swept axes together instead. sample: draws that many distinct members of the grid,
    with `seed`. Raises ConfigError for paired axes of different lengths.
    """
    if paired:
        lengths = {axis.key: len(axis.words) for axis in axes if axis.is_swept}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{key} has {count}" for key, count in lengths.items())
            raise ConfigError([Problem("--zip", f"needs as many values for each key; {counts}")])
        count = max(lengths.values(), default=1)
        members = [[axis.words[n if axis.is_swept else 0] for axis in axes] for n in range(count)]
    else:
        if (count := math.prod(len(axis.words) for axis in axes)) > MAX_MEMBERS:
            raise ConfigError([Problem("sweep", f"{count:,} members are more than {MAX_MEMBERS:,}")])
        members = [list(words) for words in itertools.product(*(axis.words for axis in axes))]
    if sample is not None:
        if not 1 <= sample <= len(members):
            problem = f"must be from 1 to {len(members)}, the size of the grid, got {sample}"
            raise ConfigError([Problem("--sample", problem)])
        chosen = sorted(random.Random(seed).sample(range(len(members)), sample))
        members = [members[n] for n in chosen]
    return members


def name_of(number: int, words: Sequence[str], axes: Sequence[Axis]) -> str:
    """The name of a member's folder, such as `003-lr-0.01-seed-2`."""
    swept = {word: axis for axis, word in zip(axes, words, strict=True) if axis.is_swept}
    return folder_name(number, [(axis.key, word.partition("=")[2]) for word, axis in swept.items()])


def folder_name(number: int, values: Iterable[tuple[str, str]]) -> str:
    """The number and the values, as many as fit. A folder's name has no plus: 3e+08 becomes 3e8."""
    name = f"{number:03d}"
    for key, text in values:
        text = text.strip("[]")  # would become a dash, which looks like a minus
        text = re.sub(r"(?<=[0-9.])[eE]\+?0*(?=[0-9])", "e", text)
        text = re.sub(r"(?<![0-9A-Za-z.])\+(?=[0-9.])", "", text)
        longer = f"{name}-{key.rpartition('.')[2]}-{text}"
        if name.count("-") and len(longer) > MAX_NAME:
            break
        name = longer
    return slug(name)


class Composer:
    """Composes members that choose the same options once, with their common overrides, and sets the members' own values
    on copies (1 ms instead of 100 ms)."""

    def __init__(
        self, conf_dirs: Sequence[Path | str] = (), trust: Sequence[str] = (), base: Config | None = None
    ) -> None:
        self.conf_dirs, self.trust, self.base = conf_dirs, trust, base
        self._shared: dict[tuple[str, ...], Config | None] = {}

    def __call__(self, words: Sequence[str], own: Sequence[str]) -> Config:
        """own: the words that set values that differ between members. Raises ConfigError."""
        common = tuple(word for word in words if word not in own)
        if common not in self._shared:
            self._shared[common] = self._try_compose(common)
        start = self._shared[common]
        return compose(own if start else words, conf_dirs=self.conf_dirs, trust=self.trust, base=start or self.base)

    def _try_compose(self, words: Sequence[str]) -> Config | None:
        """None if the words do not compose alone: a member's own value may be required or interpolated."""
        if any("${" in word for word in words):
            return None
        try:
            return compose(words, conf_dirs=self.conf_dirs, trust=self.trust, base=self.base)
        except ConfigError:
            return None


def value_of(config: Config, key: str) -> Any:
    """The option of a group, or the value of a dotted key; None for a key that is not there."""
    if key in GROUPS:
        return config.choices.get(key)
    found: Any = config.values
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def compose_points(
    members: Sequence[Sequence[str]],
    axes: Sequence[Axis],
    *,
    conf_dirs: Sequence[Path | str] = (),
    trust: Sequence[str] = (),
    base: Config | None = None,
) -> list[Point]:
    """A point for each distinct configuration: 1e-3 and 0.001 are one, and would count as repeats otherwise.

    Raises ConfigError with the mistakes of all members, each once.
    """
    composer = Composer(conf_dirs, trust, base)
    found: dict[str, tuple[Config, Sequence[str]]] = {}
    problems: dict[str, Problem] = {}
    for words in members:
        own = [word for word, axis in zip(words, axes, strict=True) if axis.is_swept and axis.key not in GROUPS]
        try:
            config = composer(words, own)
            found.setdefault(identity(config), (config, words))
        except ConfigError as error:
            problems |= {str(problem): problem for problem in error.problems}
    if problems:
        raise ConfigError(list(problems.values()))
    return [
        Point(
            name_of(number, words, axes),
            config,
            {axis.key: value_of(config, axis.key) for axis in axes if axis.is_swept},
        )
        for number, (config, words) in enumerate(found.values())
    ]
