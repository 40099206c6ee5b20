"""Recorder: what a training tells, and to whom: the run folder (always), the trackers, the screen."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Protocol

from dlx.runs.files import write_atomic
from dlx.runs.media import encode
from dlx.runs.metrics import MetricsWriter
from dlx.tracking.guard import Guard
from dlx.tracking.system import SystemMonitor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlx.runs.folder import RunFolder
    from dlx.tracking.tracker import Tracker


class Display(Protocol):
    """Shows a training while it runs."""

    def begin(self, step: int, total: int, steps_per_epoch: int, metrics: Sequence[str] = ()) -> None: ...
    def row(self, step: int, epoch: float, scalars: dict[str, float]) -> None: ...
    def say(self, text: str) -> None: ...
    def end(self) -> None: ...


class Recorder:
    """Of process 0. The others use the base, which records nothing."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.best_throughput = 0.0

    def resumed(self, step: int, changed: dict[str, Any]) -> None:
        """The run goes on after `step`: readers drop rows past it. changed: keys of the configuration, now."""

    def begin(self, step: int, total: int, steps_per_epoch: int, metrics: Sequence[str] = ()) -> None:
        """Called when the first step is about to start. metrics: of the validation, those that a screen shows."""

    def row(self, step: int, epoch: float, scalars: dict[str, float]) -> None:
        """Figures at a step."""

    def media(self, step: int, name: str, medium: Any) -> None:
        """A picture, text, curve, table or animation at a step (dlx/runs/media.py)."""

    def lose(self, what: str) -> None:
        """Something was lost on the way: the run ends with exit code 5 and says what."""
        self.lost.append(what)

    def sync(self) -> None:
        """What was recorded survives a power cut."""

    def close(self, status: str, summary: dict[str, Any], reason: str | None = None) -> None:
        """The end of the session."""


class RunRecorder(Recorder):
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
        self._log = (folder.path / "log.txt").open("a", encoding="utf-8")
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
        figures = {"epoch": round(epoch, 4), **scalars}
        self.metrics.write({"step": step, **figures})
        for guard in self.guards:
            guard.call("log", step, figures)
        self.display.row(step, epoch, scalars)
        if any(name.startswith("val/") for name in scalars):
            self.note(f"step {step} " + " ".join(f"{name} {value:.4g}" for name, value in scalars.items()))

    def media(self, step: int, name: str, medium: Any) -> None:
        suffix, content = encode(medium)
        path = self.folder.media / f"{name}-{step:08d}{suffix}"
        try:
            write_atomic(path, content)
        except OSError as error:
            self.lose(f"picture {path.name} not written: {error.strerror}")
            return
        for guard in self.guards:
            guard.call("log_media", step, name, str(path))

    def note(self, text: str) -> None:
        # What the log loses on a full disk the metrics count; the training goes on.
        with contextlib.suppress(OSError):
            self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
            self._log.flush()

    def warn(self, text: str) -> None:
        self.note(f"warning: {text}")
        self.display.say(f"warning: {text}")

    def lose(self, what: str) -> None:
        super().lose(what)
        self.warn(what)

    def sync(self) -> None:
        self.metrics.sync()

    def close(self, status: str, summary: dict[str, Any], reason: str | None = None) -> None:
        self.display.end()
        self.system.stop()
        for guard in self.guards:
            guard.call("finish", status, summary, reason)
        for guard in self.guards:
            guard.close()
        self.metrics.close()
        if self.metrics.lost:
            self.lose(f"{self.metrics.lost} rows of metrics (the disk refused them)")
        with contextlib.suppress(OSError):
            self._log.close()
