"""Sends runs to Weights & Biases later, from the run's own files, not from what W&B's client left in wandb/.

A run has one id at W&B, which says how far its rows are there: what it has is not sent again. `wandb.json` in the run
folder remembers what was sent, so that a run with nothing new is left alone without asking.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from dlx.config.errors import UserError, reason_of
from dlx.config.yaml import read_frozen
from dlx.runs.catalog import Catalog, read_notes
from dlx.runs.files import find_object, open_plain
from dlx.runs.folder import RunFolder
from dlx.runs.media import files_in
from dlx.runs.metrics import read_metrics
from dlx.tracking.wandb import MEMORY, Wandb, run_id

SendMode = Literal["online", "offline"]
SETTINGS = ("project", "entity", "group", "job_type", "tags", "notes")
TARGET = f"{Wandb.__module__}.{Wandb.__qualname__}"


@dataclass(frozen=True)
class PendingRun:
    """A run that `dlx sync` may send. settings: of `Wandb`. digest: of all files to send, and the target."""

    run: RunFolder
    config: dict[str, Any]
    status: dict[str, Any]
    settings: dict[str, Any]
    digest: str
    sent_to: int | None  # the step up to which it was sent; None: it never was
    is_sent: bool  # and nothing is new

    @property
    def waits(self) -> bool:
        return not self.is_sent and self.status["status"] != "running"


@dataclass(frozen=True)
class Sent:
    """The result of sending a run. status: sent, written (offline), would be sent, nothing new, running or failed; rows
    and pictures: those sent now, and pictures are media of any kind; reason: also what was not sent of it."""

    run: Path
    status: str
    rows: int = 0
    pictures: int = 0
    id: str = ""
    url: str | None = None
    reason: str | None = None


class Replay(Wandb):
    """A run as it would have been tracked while it ran. files_dir: where W&B's client keeps its files."""

    finish_seconds = 600
    stats = False  # they would be of this machine, and of now

    def __init__(self, files_dir: Path, mode: SendMode, **settings: Any) -> None:
        super().__init__(**settings)
        self.client_mode, self.client_files = mode, files_dir
        self.rows = 0
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def files_dir(self, run: RunFolder) -> Path:
        return self.client_files

    def start(self, run: RunFolder, config: dict[str, Any]) -> None:
        self._open(run, config, self.client_mode)
        self.rows = self.catch_up(run)
        self.undated = [file for file in files_in(run.media) if file.step is None]

    def complete_summary(self) -> None:
        # Media that belong to no step: a row for them would take a step that a resume needs.
        for file in self.undated:
            self.send_medium(file.path, partial(self._add, f"media/{file.name}"), charts=False)

    def _add(self, name: str, medium: Any) -> None:
        self.run.summary.update({name: medium})


def runs_of(folder: Path) -> list[RunFolder]:
    """Every run below a folder that has rows; of a plan its members."""
    catalog = Catalog(folder)
    catalog.refresh()
    runs = [RunFolder(entry.path) for entry in catalog.entries.values() if not entry.is_plan]
    return [run for run in runs if run.metrics_path.is_file()]


def pack(run: RunFolder, project: str | None = None, entity: str | None = None) -> PendingRun:
    """Prepares a run for sending, to the project that it was sent to before, else to that of its configuration."""
    config, notes, status = read_frozen(run.config_path), read_notes(run.path), run.status()
    found = find_object(run.path / MEMORY)
    memory: dict[str, Any] = {
        name: value for name, value in found.items() if isinstance(value, int if name == "step" else str)
    }
    trackers = config.get("tracker") if isinstance(config, dict) else None
    if not isinstance(trackers, dict) or not all(isinstance(block, dict) for block in trackers.values()):
        raise UserError(f"{run.config_path}: not a configuration that dlx wrote")
    tracked: dict[str, Any] = next((block for block in trackers.values() if block.get("_target_") == TARGET), {})
    settings = {name: tracked[name] for name in SETTINGS if tracked.get(name) is not None}
    if tags := [*dict.fromkeys((*settings.get("tags", ()), *notes.tags))]:
        settings["tags"] = tags
    if notes.notes:
        settings["notes"] = notes.notes
    for name, given in (("project", project), ("entity", entity)):
        if value := given or memory.get(name):
            settings[name] = value
    described = {name: value for name, value in settings.items() if name not in ("project", "entity")}
    pictures = [(file.path.name, file.path.lstat().st_size) for file in files_in(run.media)]
    digest = hashlib.sha256(json.dumps([status, run.summary(), pictures, described], sort_keys=True).encode())
    for path in (run.config_path, run.metrics_path):
        if path.is_file():
            with os.fdopen(open_plain(path), "rb") as file:
                while part := file.read(1 << 20):
                    digest.update(part)
    is_there = all(settings.get(name) == memory.get(name) for name in ("project", "entity"))
    is_sent = is_there and memory.get("sent") == digest.hexdigest()
    sent_to = memory.get("step") if is_there else None
    return PendingRun(run, config, status, settings, digest.hexdigest(), sent_to, is_sent)


def pack_all(
    runs: Iterable[RunFolder], project: str | None = None, entity: str | None = None
) -> tuple[list[PendingRun], list[Sent]]:
    """The pending runs, and the results of runs that cannot be read."""
    pending, failed = [], []
    for run in runs:
        try:
            pending.append(pack(run, project, entity))
        except (OSError, UserError, ValueError, KeyError, TypeError, AttributeError) as error:
            failed.append(Sent(run.path, "failed", reason=f"cannot be read: {reason_of(error)}"))
    return pending, failed


def would_send(pending: PendingRun) -> Sent:
    """The result that `send` would have, without sending."""
    if not pending.waits:
        return send(pending)
    done = -1 if pending.sent_to is None else pending.sent_to
    rows = [row for row in read_metrics(pending.run.metrics_path) if row["step"] > done]
    pictures = [file for file in files_in(pending.run.media) if file.step is None or file.step > done]
    return Sent(pending.run.path, "would be sent", len(rows), len(pictures), run_id(pending.run.path))


def send(pending: PendingRun, mode: SendMode = "online") -> Sent:
    """Sends what W&B does not have yet. offline: writes all of it to the run's wandb/, which `wandb sync` can send, and
    remembers nothing. Whatever goes wrong is in the result; what was sent by then is found out the next time."""
    run = pending.run
    if pending.status["status"] == "running":
        return Sent(run.path, "running", reason="it is sent when it has ended")
    if pending.is_sent and mode == "online":
        return Sent(run.path, "nothing new")
    with TemporaryDirectory(ignore_cleanup_errors=True) as nowhere:
        replay = Replay(run.path if mode == "offline" else Path(nowhere), mode, **pending.settings)
        try:
            replay.start(run, pending.config)
            replay.finish(pending.status["status"], run.summary(), pending.status["reason"])
            if mode == "online":
                replay.remember(run, step=replay.newest, sent=pending.digest)
        except Exception as error:  # whatever the client raises, the other runs are sent
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            return Sent(run.path, "failed", id=run_id(run.path), reason=reason)
    status, url = ("sent", replay.run.url) if mode == "online" else ("written", None)
    left_out = "; ".join(replay.warnings) or None
    return Sent(run.path, status, replay.rows, replay.media_sent, replay.run.id, url, left_out)
