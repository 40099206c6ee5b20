"""Progress on stderr: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from dlx.config.screen import console, note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlx.training.session import Result

_SHORT = {"train/loss": "loss", "val/accuracy": "val acc", "train/throughput": "samples/s"}
SHOWN_METRICS = 3  # of the validation


def _live_bar(before: str, after: str) -> Any:
    """A rich progress bar with a text on each side and the time left."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(before), BarColumn(bar_width=12), TextColumn(after), TimeRemainingColumn(compact=True))
    return Progress(*columns, console=console(), refresh_per_second=5)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value < 0.1 else f"{value:.4g}"


class Progress:
    """Progress of one training. Plain lines come with validations, at most one in two seconds."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.values: dict[str, float] = {}  # in the order of their first appearance
        self.shown: list[str] = []
        self.bar: Any = None
        self._last_line = 0.0

    def begin(self, step: int, total: int, steps_per_epoch: int, metrics: Sequence[str] = ()) -> None:
        """metrics: names shown of a validation; empty: the first ones it has."""
        self.shown = [f"val/{name}" for name in metrics]
        self.total, self.steps_per_epoch = total, steps_per_epoch
        self.start_step, self.started = step, time.monotonic()
        if self.quiet or not total or not sys.stderr.isatty():
            return
        self.bar = _live_bar("epoch {task.fields[epoch]}", "step {task.completed}/{task.total}  {task.fields[values]}")
        self.bar.start()
        self.task = self.bar.add_task("", total=total, completed=step, epoch="0", values="")

    def row(self, step: int, epoch: float, scalars: dict[str, float]) -> None:
        validated = [name for name in scalars if name.startswith("val/")]
        self.shown = self.shown or validated[:SHOWN_METRICS]
        for name, value in scalars.items():
            if name in _SHORT or name in self.shown or (name.startswith("train/") and name.endswith("/loss")):
                self.values[_SHORT.get(name, name.replace("val/", "val "))] = value
        values = "  ".join(f"{name} {_short(value)}" for name, value in self.values.items())
        epochs = self.total / self.steps_per_epoch
        if self.bar:
            self.bar.update(self.task, completed=step, epoch=f"{epoch:.1f}/{epochs:g}", values=values)
        elif not self.quiet and validated:
            if not self.total:  # in closed form
                note(f"fitted  {values}")
                return
            now = time.monotonic()
            if step < self.total and now - self._last_line < 2:
                return
            self._last_line = now
            rate = (step - self.start_step) / max(now - self.started, 1e-9)
            left = (self.total - step) / max(rate, 1e-9)
            note(f"epoch {epoch:.1f}/{epochs:g}  step {step}/{self.total}  {values}  {left:.0f} s left")

    def say(self, text: str) -> None:
        note(text)

    def end(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None


class PlanProgress:
    """Progress of a plan: a live bar on a terminal, a line for each finished run elsewhere."""

    def __init__(self, total: int, quiet: bool = False) -> None:
        self.total, self.quiet, self.count = total, quiet, 0
        self.bar: Any = None

    def __enter__(self) -> PlanProgress:
        if not self.quiet and sys.stderr.isatty():
            self.bar = _live_bar("run {task.completed}/{task.total}", "{task.description}")
            self.bar.start()
            self.task = self.bar.add_task("", total=self.total)
        return self

    def expect(self, total: int) -> None:
        """Raises the total to at least this many runs."""
        self.total = max(self.total, total)
        if self.bar:
            self.bar.update(self.task, total=self.total)

    def done(self, name: str, result: Result) -> None:
        """A run ended."""
        metrics = "  ".join(f"{k} {v:.4g}" for k, v in result.metrics.items() if k.startswith("test/"))
        how = "" if result.status == "finished" else f"  {result.status}"
        self.step(f"{name}  {metrics or result.reason or ''}{how}")

    def step(self, line: str) -> None:
        """Counts one more run as done, and shows the line."""
        self.count += 1
        if self.bar:
            self.bar.update(self.task, completed=self.count, description=line)
        elif not self.quiet:
            note(f"run {self.count}/{self.total}  {line}")

    def __exit__(self, *exc: object) -> None:
        if self.bar:
            self.bar.stop()
