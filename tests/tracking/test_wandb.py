"""The real client, offline: what it writes is read back."""

import json
import struct
from pathlib import Path

import pytest

from dlx.runs.folder import RunFolder

BLOCK = 32768


def records(path: Path):
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


def history(path: Path) -> list[dict]:
    rows = []
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            rows.append(
                {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            )
    return rows


@pytest.fixture
def no_key(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_without_key_it_is_offline_warned_about_and_whole(dlx_call, only_run, tiny, no_key):
    call = dlx_call("train", *tiny, "tracker=wandb", "secret_key=1")
    assert call.code == 2
    call = dlx_call("train", *tiny, "tracker=wandb")
    assert call.code == 0, call.err
    assert "no API key" in call.err
    (file,) = only_run().glob("wandb/offline-run-*/*.wandb")
    rows = history(file)
    local = [json.loads(line) for line in (only_run() / "metrics.jsonl").read_text().splitlines()]
    for name in ("train/loss", "val/accuracy", "test/accuracy"):
        assert [row[name] for row in rows if name in row] == [row[name] for row in local if name in row]


def test_a_server_that_refuses_costs_nothing(dlx_call, only_run, tiny, no_key, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    call = dlx_call("train", *tiny, "tracker=wandb")
    assert call.code == 0, call.err
    assert "no connection" in call.err
    assert list(only_run().glob("wandb/offline-run-*"))


def test_a_tracker_that_raises_ends_with_code_5_and_a_whole_run(dlx_call, only_run, tiny, monkeypatch):
    from dlx.tracking.wandb import Wandb

    def fails(*arguments):
        raise RuntimeError("broken")

    monkeypatch.setattr(Wandb, "start", lambda *arguments: None)
    monkeypatch.setattr(Wandb, "log", fails)
    call = dlx_call("train", *tiny, "tracker=wandb")
    assert call.code == 5
    assert "broken" in call.err
    assert RunFolder(only_run()).status()["status"] == "finished"


def test_a_tracker_that_hangs_is_left_behind(monkeypatch):
    import threading

    from dlx.tracking.guard import Guard
    from dlx.tracking.tracker import Tracker

    class Hangs(Tracker):
        def log(self, step, scalars):
            threading.Event().wait(30)

    lost: list[str] = []
    guard = Guard("slow", Hangs(), lost.append, lost.append)
    guard.call("log", 1, {})
    guard.close(0.2)
    assert "not finished" in lost[0]
