"""Grids: `optim.lr=1e-3,1e-2 seed=range(3)` as the members that it means, composed, checked and named.

Hydra's grammar says what a sweep is: `1,2`, choice(...), range(...), glob(...) over a group's options. An interval has
no members of its own: it is for a search.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx.config import Config, compose
from dlx.config.errors import ConfigError, Problem
from dlx.config.groups import GROUPS, option_names
from dlx.config.keys import long_key
from dlx.config.overrides import parse_override
from dlx.runs.folder import slug
from dlx.sweeps.check import identity
from dlx.sweeps.points import Point

if TYPE_CHECKING:
    from hydra.core.override_parser.types import RangeSweep

MOST = 100_000  # members of a grid
LONGEST_NAME = 60  # what is cut in its middle would be another number


@dataclass(frozen=True)
class Axis:
    """One key and the overrides that stand for its values."""

    key: str
    words: tuple[str, ...]

    @property
    def is_swept(self) -> bool:
        return len(self.words) > 1


def read_axes(arguments: Sequence[str], conf_dirs: Sequence[Path | str] = ()) -> list[Axis]:
    """An axis for each argument; one that is no sweep has itself as its only value.

    Raises ConfigError for intervals, and for a sweep without values (`range(0)`, a glob that nothing matches).
    """
    axes: list[Axis] = []
    problems: list[Problem] = []
    typed: dict[str, str] = {}
    for argument in arguments:
        key = long_key(argument.partition("=")[0].lstrip("+~"))
        try:
            words = _words(argument, key, conf_dirs)
        except ValueError as error:
            problems.append(Problem(key, str(error)))
            continue
        if not words:
            problems.append(Problem(key, f"{argument.partition('=')[2]} has no values"))
        if key in typed:
            problems.append(Problem(key, f"is given twice: {typed[key]} and {argument}"))
        typed[key] = argument
        axes.append(Axis(key, tuple(words)))
    if problems:
        raise ConfigError(problems)
    return axes


def _words(argument: str, key: str, conf_dirs: Sequence[Path | str]) -> list[str]:
    from hydra.core.override_parser.types import Glob, RangeSweep

    try:
        parsed = parse_override(argument)
    except ValueError:
        return [argument]  # composing says what is wrong with it, or quotes it
    if not parsed.is_sweep_override():
        return [argument]
    if parsed.is_interval_sweep():
        raise ValueError(f"{argument.partition('=')[2]} is for a search; a sweep takes values such as 1e-3,1e-2")
    value = parsed.value()
    name = argument.partition("=")[0]
    if isinstance(value, Glob):
        if key not in GROUPS:
            raise ValueError("a glob is for a group's options, such as model=glob(res*)")
        names = [n for n in option_names(key, conf_dirs) if any(fnmatch(n, pattern) for pattern in value.include)]
        return [f"{name}={n}" for n in names if not any(fnmatch(n, pattern) for pattern in value.exclude)]
    if isinstance(value, RangeSweep):
        return [f"{name}={number}" for number in range_values(value, argument)]
    return [f"{name}={text}" for text in parsed.sweep_string_iterator()]


def range_values(sweep: RangeSweep, argument: str) -> list[int | float]:
    """The numbers of range(start, stop, step), without the stop; steps are counted in decimals, as they are written:
    0.1 + 0.1 + 0.1 is 0.3. Raises ValueError where there are far too many.

    argument: the override, where its range may be inside sort(...), which Hydra turns round wrongly.
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
        said = f"range({', '.join(map(str, numbers))})"
        if not all(number.is_finite() for number in (start, stop, step)):
            raise ValueError(f"{said} must be of finite numbers")
        count = math.ceil((stop - start) / step) if step else 0
        if count > MOST:
            raise ValueError(f"{said} has {count:,} values, more than {MOST:,}")
        number = int if all(isinstance(value, int) for value in numbers) else float
        values = [number(start + n * step) for n in range(count)]
    if sweep.shuffle:
        random.shuffle(values)
    return values


def combine(axes: Sequence[Axis], *, paired: bool = False, draw: int | None = None, seed: int = 0) -> list[list[str]]:
    """The overrides of each member: the product of the axes, the last one fastest.

    paired: the n-th values of all swept axes together instead. draw: that many different members of the grid, at random
    by `seed`. Raises ConfigError where axes cannot be paired.
    """
    if paired:
        lengths = {axis.key: len(axis.words) for axis in axes if axis.is_swept}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{key} has {count}" for key, count in lengths.items())
            raise ConfigError([Problem("--zip", f"needs as many values for each key; {counts}")])
        count = max(lengths.values(), default=1)
        members = [[axis.words[n if axis.is_swept else 0] for axis in axes] for n in range(count)]
    else:
        if (count := math.prod(len(axis.words) for axis in axes)) > MOST:
            raise ConfigError([Problem("sweep", f"{count:,} members are more than {MOST:,}")])
        members = [list(words) for words in itertools.product(*(axis.words for axis in axes))]
    if draw is not None:
        if not 1 <= draw <= len(members):
            raise ConfigError([Problem("--random", f"{draw} of a grid of {len(members)} cannot be drawn")])
        chosen = sorted(random.Random(seed).sample(range(len(members)), draw))
        members = [members[n] for n in chosen]
    return members


def name_of(number: int, words: Sequence[str], axes: Sequence[Axis]) -> str:
    """`003-lr-0.01-seed-2`: what a member's folder is called."""
    swept = {word: axis for axis, word in zip(axes, words, strict=True) if axis.is_swept}
    return folder_name(number, [(axis.key, word.partition("=")[2]) for word, axis in swept.items()])


def folder_name(number: int, values: Iterable[tuple[str, str]]) -> str:
    """Of as many values as there is room for. A folder's name has no plus: 3e+08 is written 3e8, not as 3e-08."""
    name = f"{number:03d}"
    for key, text in values:
        text = text.strip("[]")  # which would be a dash, as a minus is
        text = re.sub(r"(?<=[0-9.])[eE]\+?0*(?=[0-9])", "e", text)
        text = re.sub(r"(?<![0-9A-Za-z.])\+(?=[0-9.])", "", text)
        longer = f"{name}-{key.rpartition('.')[2]}-{text}"
        if name.count("-") and len(longer) > LONGEST_NAME:
            break
        name = longer
    return slug(name)


class Composer:
    """Members that choose the same options are composed once, with what they share; their values are set on copies
    (1 ms against 100 ms)."""

    def __init__(
        self, conf_dirs: Sequence[Path | str] = (), trust: Sequence[str] = (), base: Config | None = None
    ) -> None:
        self.conf_dirs, self.trust, self.base = conf_dirs, trust, base
        self._shared: dict[tuple[str, ...], Config | None] = {}

    def __call__(self, words: Sequence[str], own: Sequence[str]) -> Config:
        """own: those of the overrides that set values which other members have otherwise. Raises ConfigError."""
        common = tuple(word for word in words if word not in own)
        if common not in self._shared:
            self._shared[common] = self._try_compose(common)
        start = self._shared[common]
        return compose(own if start else words, conf_dirs=self.conf_dirs, trust=self.trust, base=start or self.base)

    def _try_compose(self, words: Sequence[str]) -> Config | None:
        """None where it does not compose by itself: what is required, or named by an interpolation, may be among the
        members' own values."""
        if any("${" in word for word in words):
            return None
        try:
            return compose(words, conf_dirs=self.conf_dirs, trust=self.trust, base=self.base)
        except ConfigError:
            return None


def value_of(config: Config, key: str) -> Any:
    """What a configuration has under a key: a group's option, or a value of its own type."""
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
    """A point for each member but those that come to the configuration of one before, as 1e-3 and 0.001 do: they would
    count as repeats. Raises ConfigError with the mistakes of all members, each once."""
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
