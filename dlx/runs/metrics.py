"""metrics.jsonl: one JSON object per row, one write per row, readable while it grows and after any kill."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from dlx.runs.files import strict

MAX_ROW = 64 * 1024


class MetricsWriter:
    """Appends rows. What a full disk refuses is counted in `lost`, and training goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = 0
        self._last_time = 0.0
        self._cut_torn_tail()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def _cut_torn_tail(self) -> None:
        """A row that a kill cut off would be glued to the next one."""
        if not self.path.exists():
            return
        with self.path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 2 * MAX_ROW))
            tail = file.read()
            if tail and not tail.endswith(b"\n"):
                file.truncate(size - len(tail) + tail.rfind(b"\n") + 1)

    def write(self, row: dict[str, Any]) -> None:
        """Adds `time` (seconds since 1970, never going back) and appends the row."""
        self._last_time = max(time.time(), self._last_time)
        data = json.dumps(strict({**row, "time": round(self._last_time, 3)}), allow_nan=False).encode() + b"\n"
        if len(data) > MAX_ROW:
            raise ValueError(f"a row of metrics takes at most {MAX_ROW} bytes, got {len(data)}")
        try:
            written = os.write(self._descriptor, data)
            while written < len(data):  # a disk that fills up first shows as a short write
                written += os.write(self._descriptor, data[written:])
        except OSError:
            self.lost += 1

    def sync(self) -> None:
        """Per checkpoint, signal and end, not per row: that is 20 times slower."""
        try:
            os.fsync(self._descriptor)
        except OSError:
            self.lost += 1

    def close(self) -> None:
        self.sync()
        os.close(self._descriptor)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All rows that count: a resume event drops earlier rows past its step; a torn last line, and what has no step, is
    dropped too."""
    rows: list[dict[str, Any]] = []
    if not path.exists():
        return rows
    for line in path.read_bytes().split(b"\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        step = row.get("step") if isinstance(row, dict) else None
        if not isinstance(step, (int, float)):
            continue
        if row.get("_event") == "resume":
            rows = [earlier for earlier in rows if earlier["step"] <= step]
        elif "_event" not in row:
            rows.append(row)
    return rows


def read_resumes(path: Path) -> list[dict[str, Any]]:
    """The events of a run that went on: `step`, and `changed` where its configuration did."""
    try:
        lines = [line for line in path.read_bytes().split(b"\n") if b'"_event"' in line]
    except OSError:
        return []
    found = []
    for line in lines:
        with suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict) and event.get("_event") == "resume":
                found.append(event)
    return found


POSITION = ("step", "epoch", "time")  # where a row is; all else in it is a figure
