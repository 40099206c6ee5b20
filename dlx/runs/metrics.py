"""metrics.jsonl: one JSON object per row, one write per row, readable while it grows and after any kill."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from dlx.runs.files import encode_nonfinite, open_plain, open_to_append, write_all

MAX_ROW = 64 * 1024
MAX_STEP = 1 << 53  # which a float still has exactly


class MetricsWriter:
    """Appends rows. What a full disk refuses is counted in `lost`, and training goes on. `unsure` counts rows that were
    written when the disk could not promise to keep them. Raises UserError where the path is no plain file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = self.unsure = 0
        self._last_time = 0.0
        self._descriptor = open_to_append(path, os.O_RDWR)
        try:
            self._end = self._whole()  # bytes, all of them whole rows
            self._cut_back()
        except BaseException:
            os.close(self._descriptor)
            raise
        self._is_torn = False
        self._since_sync = 0  # rows

    def _whole(self) -> int:
        """The bytes of complete rows: the next row must not be appended to one that a kill cut off."""
        size = os.fstat(self._descriptor).st_size
        tail = os.pread(self._descriptor, 2 * MAX_ROW, max(0, size - 2 * MAX_ROW))
        return size if not tail or tail.endswith(b"\n") else size - len(tail) + tail.rfind(b"\n") + 1

    def _cut_back(self) -> None:
        """Cuts the file after the last complete row."""
        if os.fstat(self._descriptor).st_size != self._end:
            os.ftruncate(self._descriptor, self._end)
        self._is_torn = False

    def write(self, row: dict[str, Any]) -> None:
        """Adds `time` (seconds since 1970, never going back) and appends the row."""
        self._last_time = max(time.time(), self._last_time)
        data = (
            json.dumps(encode_nonfinite({**row, "time": round(self._last_time, 3)}), allow_nan=False).encode() + b"\n"
        )
        if len(data) > MAX_ROW:
            raise ValueError(f"a row of metrics takes at most {MAX_ROW} bytes, got {len(data)}")
        try:
            if self._is_torn:
                self._cut_back()
            write_all(self._descriptor, data)
        except OSError:
            self.lost += 1
            self._is_torn = True
            with suppress(OSError):  # else before the next row
                self._cut_back()
        else:
            self._end += len(data)
            self._since_sync += 1

    def sync(self) -> None:
        """Called at a checkpoint, a signal and the end; after every row it would be 20 times slower."""
        try:
            os.fsync(self._descriptor)
        except OSError:
            self.unsure += self._since_sync
        self._since_sync = 0

    def close(self) -> None:
        self.sync()
        os.close(self._descriptor)

    @property
    def losses(self) -> str | None:
        """A line about the rows that were lost; None if there are none."""
        counted = {"(the disk refused them)": self.lost, "may not have reached the disk": self.unsure}
        texts = [f"{n} row{'s' * (n != 1)} of {self.path.name} {what}" for what, n in counted.items() if n]
        return "; ".join(texts) or None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All rows that count: a resume event drops earlier rows past its step; a torn last line, and what has no step, is
    dropped too."""
    rows: list[dict[str, Any]] = []
    for row in _rows(path):
        step = row.get("step")
        if not isinstance(step, (int, float)) or isinstance(step, bool) or not abs(step) < MAX_STEP:
            continue
        if row.get("_event") == "resume":
            rows = [earlier for earlier in rows if earlier["step"] <= step]
        elif "_event" not in row:
            rows.append(row)
    return rows


def read_resumes(path: Path) -> list[dict[str, Any]]:
    """The resume events of a run: `step`, and `changed` if its configuration changed."""
    return [event for event in _rows(path, b'"_event"') if event.get("_event") == "resume"]


def _rows(path: Path, having: bytes = b"") -> Iterator[dict[str, Any]]:
    """The objects of a plain file, line by line, among the lines that have this in them. What is no object, or longer
    than a row can be, or nested too deep, is passed over; nothing comes of what is no plain file."""
    try:
        descriptor = open_plain(path)
    except OSError:
        return
    with os.fdopen(descriptor, "rb") as file:
        is_begun = True
        while line := file.readline(MAX_ROW + 1):
            is_whole, is_begun = is_begun, line.endswith(b"\n")
            if not is_whole or len(line) > MAX_ROW or having not in line:
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                yield row


POSITION = ("step", "epoch", "time")  # where a row is; all else in it is a metric
