"""Tracker: where metrics go beside the local files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlx.runs.folder import RunFolder


class Tracker:
    """Base of all trackers. Whatever one of these raises is caught by `dlx.tracking.guard`: no tracker ever stops or
    slows a training."""

    def warn(self, text: str) -> None:
        """Warns the user; the guard connects this to the screen and the log."""

    def start(self, run: RunFolder, config: dict[str, Any]) -> None:
        """Called once; on a resume with the same run. config: as config.yaml has it, with the groups' `choices`."""

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """One row of metrics at a step."""

    def log_media(self, step: int, name: str, path: str) -> None:
        """A medium that was written to `path`: its suffix says of what kind it is (dlx/runs/media.py)."""

    def finish(self, status: str, summary: dict[str, Any], reason: str | None = None) -> None:
        """Called once at the end: finished, pruned, failed, diverged or interrupted, and why."""
