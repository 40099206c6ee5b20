"""Experiment: a claim of the course, the runs that look into it, what is measured, the figure and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlx.config import Config
    from dlx.runs.folder import RunFolder


@dataclass(frozen=True)
class Verdict:
    """Whether the claim held, and the numbers that say so, in one line."""

    held: bool
    line: str


class Experiment:
    """Base of all experiments. A subclass has its settings as constructor arguments and defines what it needs."""

    claim: ClassVar[str]
    """What the course says, in a line."""

    varies: ClassVar[tuple[str, ...]] = ()
    """Keys that it sets itself, beside those in which its members differ from the base."""

    reads: ClassVar[tuple[str, ...]] = ("seed",)
    """Keys and groups that it reads of the base, where it has no members."""

    def members(self, base: Config) -> dict[str, Config]:
        """Configurations by name, made from `base`; names are those of files. Empty: nothing is trained."""
        return {}

    def measure(self, base: Config, runs: Mapping[str, RunFolder]) -> dict[str, Any]:
        """What was found, as plain numbers, texts and lists (it is written as JSON). `runs` are the members' folders,
        also of those that diverged or failed."""
        raise NotImplementedError(f"{type(self).__name__} defines no measure")

    def figure(self, measured: Mapping[str, Any]) -> Figure:
        """The picture, from what was measured alone."""
        raise NotImplementedError(f"{type(self).__name__} defines no figure")

    def verdict(self, measured: Mapping[str, Any]) -> Verdict:
        """Whether the claim held. A claim that does not hold at this scale is said to."""
        raise NotImplementedError(f"{type(self).__name__} defines no verdict")
