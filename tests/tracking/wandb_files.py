"""What W&B's client wrote offline, read back."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32768


def records(path: Path) -> Iterator[Any]:
    """Records of a .wandb file: a 7-byte header, then LevelDB's log framing."""
    from wandb.proto import wandb_internal_pb2

    data, offset, parts = path.read_bytes(), 7, b""
    while offset + 7 <= len(data):
        if BLOCK - offset % BLOCK < 7:
            offset += BLOCK - offset % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, offset)
        parts += data[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):  # a full record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


class Written:
    """A run of W&B as an offline folder has it."""

    def __init__(self, path: Path) -> None:
        self.rows: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}
        self.exit_code: int | None = None
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
            elif kind == "history":
                self.rows.append(_values(record.history.item))
            elif kind == "summary":
                self.summary |= _values(record.summary.update)
            elif kind == "metric":
                self.metrics[record.metric.name or record.metric.glob_name] = record.metric
            elif kind == "exit":
                self.exit_code = record.exit.exit_code

    @property
    def config(self) -> dict[str, Any]:
        return _values(self.run.config.update)

    @property
    def steps(self) -> list[int]:
        return [row["_step"] for row in self.rows]


def _values(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def written(run: Path) -> list[Written]:
    """The offline runs in a run folder, oldest first. The client's own process writes them, some time after `finish`
    came back."""
    until = time.monotonic() + 10
    while True:
        found = [Written(path) for path in sorted(run.glob("wandb/offline-run-*/*.wandb"))]
        if all(one.exit_code is not None for one in found):
            return found
        assert time.monotonic() < until, f"{run}: a run of W&B has no end"
        time.sleep(0.05)


def merged(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl as W&B holds it: a row per step, without what says when."""
    from dlx.runs.metrics import read_metrics

    rows: dict[int, dict[str, Any]] = {}
    for row in read_metrics(run / "metrics.jsonl"):
        rows.setdefault(row["step"], {}).update({name: value for name, value in row.items() if name != "time"})
    return list(rows.values())


def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of W&B without its own keys and without media."""
    return [{name: value for name, value in row.items() if not name.startswith(("_", "media/"))} for row in rows]
