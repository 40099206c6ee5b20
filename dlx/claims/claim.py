"""Claim: a statement of the course, the trainings that test it, what is measured, the figure and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from dlx.config import Config, compose
from dlx.config.diff import changes
from dlx.config.errors import ConfigError, Problem, UserError
from dlx.config.groups import GROUPS
from dlx.config.signature import read
from dlx.runs.draw import Figure
from dlx.runs.folder import RunFolder
from dlx.sweeps.method import Method, MethodResult
from dlx.sweeps.plan import Interrupted
from dlx.training.session import Result

Variants = dict[str, list[str]]
"""Overrides by the name of a variant, which is a file's."""
Runs = Mapping[str, Sequence[RunFolder]]
"""The runs of each variant, in the order of their seeds."""
Measured = dict[str, Any]
"""Plain numbers, texts and lists: they are written as JSON."""

OWN = ("name", "output_root")  # say where the claim's folder is


@dataclass(frozen=True)
class Verdict:
    """Whether the claim held, and the numbers that show it, in one line."""

    held: bool
    line: str


class Claim(Method):
    """Base of all claims: a method whose result is a verdict. A subclass has its settings as constructor arguments."""

    claim: ClassVar[str]
    """What the course says, in a line."""

    size: ClassVar[tuple[float, float]] = (11, 4.2)
    """Width and height of the figure, in inches."""

    varies: ClassVar[tuple[str, ...]] = ()
    """Keys that the claim sets itself, beside those in which its members differ from the base."""

    reads: ClassVar[tuple[str, ...]] = ("seed",)
    """Keys and groups that a claim without members reads."""

    check_all: ClassVar[bool] = True

    seeds: int = 0
    """Trainings of each variant, called `NAME-0`, `NAME-1`, ...; 0: one, called `NAME`, with the given seed."""

    def variants(self, base: Config) -> Variants:
        """The variants that are trained; none by default."""
        return {}

    def repeat(self, name: str, seed: int) -> list[str]:
        """Overrides of a variant's training with this seed."""
        return [f"seed={seed}"]

    def measure(self, base: Config, runs: Runs) -> Measured:
        """Numbers from the runs, also of those that diverged or failed."""
        raise NotImplementedError(f"{type(self).__name__} defines no measure")

    def draw(self, measured: Measured, figure: Figure) -> None:
        """Draws the figure, from the measured numbers alone."""
        raise NotImplementedError(f"{type(self).__name__} defines no draw")

    def verdict(self, measured: Measured) -> Verdict:
        """Whether the claim held; held=False where it does not at this scale."""
        raise NotImplementedError(f"{type(self).__name__} defines no verdict")

    def members(self, base: Config, done: Mapping[str, RunFolder], folder: Path) -> dict[str, Config]:
        """The trainings by name. Raises UserError for overrides that would have no effect."""
        name = type(self).__module__.rpartition(".")[2]  # the option's, for messages
        if "method" in base.values:
            raise UserError(f"method: {name} trains what its claim needs; leave it out")
        self._check_overrides(base, name)
        return self._members(base, self.seeds)

    def _members(self, base: Config, seeds: int) -> dict[str, Config]:
        variants = {name: compose(words, base=base) for name, words in self.variants(base).items()}
        if not seeds:
            return variants
        return {
            f"{name}-{seed}": compose(self.repeat(name, seed), base=config)
            for name, config in variants.items()
            for seed in range(seeds)
        }

    def _check_overrides(self, base: Config, name: str) -> None:
        """Raises ConfigError for typed keys that the claim sets itself, or does not read."""
        typed = {key: word for key, word in base.typed.items() if key not in OWN and not key.startswith("experiment")}
        if not typed:
            return
        members = self._members(replace(base, typed={}), min(1, self.seeds)).values()  # all seeds set the same keys
        # What a member is given can also be what was typed. What some members keep has an effect on these.
        changed = [{*changes(base, member), *member.typed} for member in members]
        varied = {*self.varies, *(set.intersection(*changed) if changed else ())}
        varied |= {
            group for member in members for group in GROUPS if member.choices.get(group) != base.choices.get(group)
        }
        signature = read(f"{type(self).__module__}.{type(self).__qualname__}")
        settings = ", ".join(f"experiment.{param}" for param in signature.params) if signature else "nothing"
        problems = []
        for key, word in typed.items():
            if any(_within(key, other) or (_within(other, key) and key not in GROUPS) for other in varied):
                what = f"{name} varies it itself, so {word} would be without effect; it takes {settings}"
                problems.append(Problem(key, what))
            elif not members and not any(_within(key, other) for other in self.reads):
                reads = ", ".join(self.reads)
                problems.append(Problem(key, f"{name} trains nothing and reads {reads} alone; {word} has no effect"))
        if problems:
            raise ConfigError(problems)

    def conclude(
        self, base: Config, runs: Mapping[str, RunFolder], results: Mapping[str, Result], folder: Path
    ) -> MethodResult:
        """Measures and decides. A diverged member may be what the claim is about, so only a failed one is a failure.

        Raises UserError if nothing can be measured because members failed or diverged.
        """
        failed = [name for name, result in results.items() if result.status == "failed"]
        diverged = [name for name, result in results.items() if result.status == "diverged"]
        count = f"{len(failed)} of {len(results)} members failed"
        variants: dict[str, list[RunFolder]] = {}
        for name, run in runs.items():
            variants.setdefault(name.rpartition("-")[0] if self.seeds else name, []).append(run)
        try:
            measured = self.measure(base, variants)
            verdict = self.verdict(measured)
        except Exception as error:
            if not (failed or diverged) or isinstance(error, Interrupted):
                raise
            why = count if failed else f"{len(diverged)} of {len(results)} members diverged"
            again = f"; dlx resume {folder} tries them again" if failed else ""
            names = ", ".join((failed or diverged)[:3])
            wrong = UserError(f"{why} ({names}), and without them nothing can be measured{again}")
            wrong.exit_code = 1  # nothing was wrong with the request
            raise wrong from error
        details = {
            "held": verdict.held,
            "verdict": verdict.line,
            "measured": measured,
            "members": {name: result.status for name, result in results.items()},
            "reasons": {name: result.reason for name, result in results.items() if result.status != "finished"},
        }
        return MethodResult({}, details, {"figure": partial(self.figure, measured)}, count if failed else None)

    def figure(self, measured: Measured) -> Figure:
        from matplotlib.figure import Figure

        figure = Figure(figsize=self.size, layout="constrained")
        self.draw(measured, figure)
        return figure


def _within(key: str, block: str) -> bool:
    return key == block or key.startswith(f"{block}.")
