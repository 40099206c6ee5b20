import json
import multiprocessing
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlx.config.errors import UserError
from dlx.runs.files import write_atomic
from dlx.runs.find import find_run
from dlx.runs.folder import RunFolder, slug
from dlx.runs.lock import RunInUse, owner_is_alive
from dlx.runs.metrics import MetricsWriter, read_metrics


@given(st.text(max_size=300))
def test_a_slug_is_a_safe_name(text):
    name = slug(text)
    assert 1 <= len(name) <= 60
    assert name[0] not in ".-"
    assert "/" not in name
    assert name.isascii()


def _make(root):
    return str(RunFolder.create(root, "a", "b").path)


def test_many_starts_at_once_make_distinct_folders(tmp_path):
    with multiprocessing.get_context("fork").Pool(8) as pool:
        paths = pool.map(_make, [tmp_path] * 50)
    assert len(set(paths)) == 50


def test_a_living_owner_keeps_others_out_and_a_dead_one_does_not(tmp_path):
    run = RunFolder.create(tmp_path, "a", "b")
    with pytest.raises(RunInUse, match=str(os.getpid())):
        RunFolder(run.path).lock.acquire()
    run.write_status("running")
    assert run.status()["status"] == "running"
    run.lock.release()
    owner = {
        "pid": 2**22 + 1,
        "host": os.uname().nodename,
        "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
    }
    (run.path / "run.lock").write_text(json.dumps(owner))
    assert run.status()["status"] == "lost"
    RunFolder(run.path).lock.acquire()


def test_a_process_that_has_the_number_of_a_dead_owner_is_none(tmp_path):
    run = RunFolder.create(tmp_path, "a", "b")
    owner = (run.path / "run.lock").read_text()
    run.write_status("running")
    run.lock.release()
    (run.path / "run.lock").write_text(owner)  # as a kill leaves it: this process lives, and does not hold it
    assert run.status()["status"] == "lost"


def test_a_reader_keeps_nobody_out(tmp_path):
    run = RunFolder.create(tmp_path, "a", "b")
    run.lock.release()
    stop = threading.Event()

    def look():
        while not stop.is_set():
            owner_is_alive(run.path)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(50):
            lock = RunFolder(run.path).lock
            lock.acquire()
            lock.release()
    finally:
        stop.set()
        thread.join()


def test_rows_are_strict_json_and_survive_a_torn_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path)
    writer.write({"step": 1, "a": float("nan"), "b": float("inf")})
    writer.write({"step": 2, "a": 0.5})
    writer.close()
    with path.open("ab") as file:
        file.write(b'{"step": 3, "a"')
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    assert read_metrics(path)[0]["a"] == "NaN"
    writer = MetricsWriter(path)  # cuts the torn end
    writer.write({"_event": "resume", "step": 1})
    writer.write({"step": 2, "a": 0.25})
    writer.close()
    rows = read_metrics(path)
    assert [(row["step"], row["a"]) for row in rows] == [(1, "NaN"), (2, 0.25)]


@pytest.mark.parametrize("cut", [0, 1, 17])
def test_a_row_that_the_disk_cuts_is_cut_back_before_the_next(cut, tmp_path, monkeypatch):
    """Also where it cannot be cut back at once; what is counted is what is lost."""
    path, write, truncate = tmp_path / "metrics.jsonl", os.write, os.ftruncate
    writer, full = MetricsWriter(path), []

    def short(descriptor, data):
        if full:
            if cut:
                write(descriptor, bytes(data)[:cut])
            raise OSError(28, "No space left on device")
        return write(descriptor, data)

    def refused(descriptor, size):
        if len(full) > 1:
            raise OSError(5, "Input/output error")
        truncate(descriptor, size)

    monkeypatch.setattr(os, "write", short)
    monkeypatch.setattr(os, "ftruncate", refused)
    writer.write({"step": 1})
    for state in ([1], [1, 1]):
        full[:] = state
        writer.write({"step": 2})
        full.clear()
        writer.write({"step": 3})
    assert writer.losses == "2 rows of metrics.jsonl (the disk refused them)"
    writer.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 3, 3]


def test_rows_that_a_disk_does_not_promise_to_keep_are_counted_apart(tmp_path, monkeypatch):
    writer = MetricsWriter(tmp_path / "metrics.jsonl")
    writer.write({"step": 1})
    writer.sync()
    writer.write({"step": 2})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        writer.sync()
    writer.close()
    assert writer.losses == "1 row of metrics.jsonl may not have reached the disk"


def test_rows_are_appended_to_no_link(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text('{"step": 1}\ntorn')
    (tmp_path / "metrics.jsonl").symlink_to(precious)
    with pytest.raises(UserError, match=r"metrics\.jsonl: it is a link"):
        MetricsWriter(tmp_path / "metrics.jsonl")
    assert precious.read_text() == '{"step": 1}\ntorn'
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_rows_without_end_and_without_bottom_are_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = [
        '{"step": 1}',
        "[" * 30_000,
        '{"a": "' + "x" * 200_000 + '"}',
        '{"step": 1e400}',
        '{"step": true}',
        '{"step": 2}',
    ]
    path.write_text("\n".join(rows) + "\n")
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]


def test_an_atomic_write_that_fails_leaves_the_old_text(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_atomic(path, "old")
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_finding_a_run(tmp_path):
    first, second = (RunFolder.create(tmp_path, "net", title) for title in ("one", "two"))
    for run in (first, second):
        run.write_config("a: 1\n")
    assert find_run("one", tmp_path).path == first.path
    assert find_run(str(second.path), tmp_path).path == second.path
    with pytest.raises(UserError, match="2 runs match"):
        find_run("net", tmp_path)
    with pytest.raises(UserError, match="no such run"):
        find_run("three", tmp_path)


def test_figures_that_are_no_numbers_are_read_back_as_they_were(tmp_path):
    run = RunFolder.create(tmp_path, "a", "b")
    run.write_summary({"a": float("nan"), "b": float("-inf"), "c": "text", "d": 0.5})
    found = run.summary()
    assert found["a"] != found["a"]
    assert {name: found[name] for name in "bcd"} == {"b": float("-inf"), "c": "text", "d": 0.5}


@given(st.text(max_size=100))
def test_a_slug_is_its_own_slug(text):
    assert slug(slug(text)) == slug(text)
