"""Recorder: passes metrics, media and warnings of a training to the run folder, the trackers and the screen."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, Protocol

from dlx.config.errors import plain
from dlx.runs.files import open_to_append, write_atomic
from dlx.runs.media import encode
from dlx.runs.metrics import MetricsWriter
from dlx.tracking.guard import FINISH_SECONDS, Guard
from dlx.tracking.system import SystemMonitor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dlx.runs.folder import RunFolder
    from dlx.tracking.tracker import Tracker


class Display(Protocol):
    """Shows a training while it runs."""

    def begin(self, step: int, total: int, steps_per_epoch: int, metrics: Sequence[str] = ()) -> None: ...
    def row(self, step: int, epoch: float, scalars: dict[str, float]) -> None: ...
    def say(self, text: str) -> None: ...
    def end(self) -> None: ...


class Recorder:
    """Process 0 uses RunRecorder; the other processes use this base, which records nothing."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.best_throughput = 0.0

    def resumed(self, step: int, changed: dict[str, Any]) -> None:
        """The run resumes after `step`: readers drop rows past it. changed: new values of the configuration."""

    def begin(self, step: int, total: int, steps_per_epoch: int, metrics: Sequence[str] = ()) -> None:
        """Called before the first step. metrics: the validation metrics that a screen shows."""

    def row(self, step: int, epoch: float, scalars: dict[str, float]) -> None:
        """Metrics at a step."""

    def media(self, step: int, name: str, medium: Any) -> None:
        """A picture, text, curve, table or animation at a step (dlx/runs/media.py)."""

    def warn(self, text: str) -> None:
        """Warns the user."""

    def lose(self, what: str) -> None:
        """Notes a loss such as an unwritten picture: the run then ends with exit code 5 and says what."""
        self.lost.append(what)

    def sync(self) -> None:
        """Makes the rows so far survive a power cut."""

    def close(
        self,
        status: str,
        summary: dict[str, Any],
        reason: str | None = None,
        interrupted: Callable[[], int] = lambda: 0,
    ) -> None:
        """Ends the session. interrupted: returns the signal that the process received, or 0."""


class RunRecorder(Recorder):
    """Raises UserError or OSError where the folder cannot be written to. Once it is made, nothing that a disk, a
    tracker or a picture refuses ends the training: `lost` lists it."""

    def __init__(
        self,
        folder: RunFolder,
        trackers: dict[str, Tracker],
        display: Display,
        config: dict[str, Any],
    ) -> None:
        super().__init__()
        self.folder, self.display = folder, display
        self.metrics = MetricsWriter(folder.metrics_path)
        descriptor = open_to_append(folder.path / "log.txt")
        self._log = os.fdopen(descriptor, "a", encoding="utf-8", errors="replace")
        self.system = SystemMonitor(folder.path / "system.jsonl")
        self.guards = [Guard(name, tracker, self.warn, self.lose) for name, tracker in trackers.items()]
        for guard in self.guards:
            guard.call("start", folder, config)

    def resumed(self, step: int, changed: dict[str, Any]) -> None:
        self.metrics.write({"_event": "resume", "step": step, **({"changed": changed} if changed else {})})

    def begin(self, step: int, total: int, steps_per_epoch: int, metrics: Sequence[str] = ()) -> None:
        self.display.begin(step, total, steps_per_epoch, metrics)

    def row(self, step: int, epoch: float, scalars: dict[str, float]) -> None:
        self.best_throughput = max(self.best_throughput, scalars.get("train/throughput", 0.0))
        metrics = {"epoch": round(epoch, 4), **scalars}
        self.metrics.write({"step": step, **metrics})
        for guard in self.guards:
            guard.call("log", step, metrics)
        self.display.row(step, epoch, scalars)
        if any(name.startswith("val/") for name in scalars):
            self.note(f"step {step} " + " ".join(f"{name} {value:.4g}" for name, value in scalars.items()))

    def media(self, step: int, name: str, medium: Any) -> None:
        file = f"{name}-{step:08d}"
        try:
            suffix, content = encode(medium)
            path = self.folder.inside("media", file + suffix)
            write_atomic(path, content)
        except OSError as error:
            self.lose(f"picture {file} not written: {error.strerror or error}")
            return
        except Exception as error:  # whatever a system showed: it must not cost the training
            self.lose(f"picture {file} not made: {type(error).__name__}: {error}")
            return
        for guard in self.guards:
            guard.call("log_media", step, name, str(path))

    def note(self, text: str) -> None:
        # What the log loses on a full disk the metrics count; the training goes on.
        with contextlib.suppress(OSError, ValueError):  # a tracker that gives up late finds it closed
            self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {plain(text)}\n")
            self._log.flush()

    def warn(self, text: str) -> None:
        self.note(f"warning: {text}")
        self.display.say(f"warning: {text}")

    def lose(self, what: str) -> None:
        super().lose(what)
        self.warn(what)

    def sync(self) -> None:
        self.metrics.sync()

    def close(
        self,
        status: str,
        summary: dict[str, Any],
        reason: str | None = None,
        interrupted: Callable[[], int] = lambda: 0,
    ) -> None:
        """Ends each part even if another fails. interrupted: the signal that the process received, or 0; a signal that
        comes now ends the waiting for trackers."""
        before, until = interrupted(), time.monotonic() + FINISH_SECONDS

        def finish() -> None:
            for guard in self.guards:
                guard.call("finish", status, summary, reason)
            for guard in self.guards:
                guard.close(until - time.monotonic(), lambda: interrupted() != before)

        self._attempt("the display", self.display.end)
        self._attempt("system.jsonl", self.system.stop)
        self._attempt("the trackers", finish)
        self._attempt("metrics.jsonl", self.metrics.close)
        for losses in (self.metrics.losses, self.system.losses):
            if losses:
                self.lose(losses)
        try:
            self._log.close()
        except (OSError, ValueError):
            self.lost.append("the last lines of log.txt")

    def _attempt(self, what: str, end: Callable[[], None]) -> None:
        try:
            end()
        except Exception as error:
            self.lose(f"{what} not ended: {type(error).__name__}: {error}")
