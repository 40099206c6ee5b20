"""A disk that is full, from the start or at the end, costs no result and leaves no half folder."""

import errno
import json
import os
from pathlib import Path

import pytest

from dlx.runs.folder import RunFolder
from dlx.tasks.system import System

CLAIM = ("experiment=bottleneck",)
SWEEP = ("model=mlp", "model.hidden=[4]", "trainer.max_steps=2", "seed=0,1")


@pytest.fixture
def fill_at(small_disk, monkeypatch):
    """fill_at(7): the disk is full from the end of that step on."""

    def at(number: int) -> None:
        def after_step(system, step):
            if step == number:
                small_disk.fill()

        monkeypatch.setattr(System, "after_step", after_step)

    return at


@pytest.mark.parametrize("free", [0, 8192])
@pytest.mark.parametrize("words", [("train",), ("train", "method=seeds"), ("train", *CLAIM), ("sweep", "seed=0,1")])
def test_from_the_start_it_names_path_and_disk_and_leaves_nothing(words, free, small_disk, dlx_call, tiny):
    small_disk.fill(free)
    own = () if words[1:] == CLAIM else tiny
    call = dlx_call(*words, *own, f"output_root={small_disk.path}/outputs")
    assert call.code == 2, call.err
    (line,) = [line for line in call.err.splitlines() if line.startswith("error")]
    assert f"output_root: cannot write to {small_disk.path}" in line
    said = (f"the disk of {small_disk.path} is full", f"the disk at {small_disk.path} has 0.0 MB free")
    assert any(text in line for text in said), line
    assert [path.name for path in small_disk.path.iterdir()] == ["filler"]


def test_at_the_end_the_figures_are_told_and_the_run_is_finished(small_disk, fill_at, dlx_call, tiny, monkeypatch):
    fill_at(6)
    call = dlx_call("train", *tiny, f"output_root={small_disk.path}")
    assert call.code == 5, call.err
    assert "test/accuracy" in call.out
    run = next(path.parent for path in small_disk.path.glob("*/*/config.yaml"))
    status = RunFolder(run).status()
    assert status["status"] == "finished"
    for what in ("checkpoint at step 8 not written", "summary.json not written", "picture predictions-00000008"):
        assert what in status["reason"]
    assert not (run / "run.lock").exists()
    assert not list(run.rglob(".*"))
    monkeypatch.undo()
    os.chdir(small_disk.path.parent)
    small_disk.clear()
    again = dlx_call("resume", str(run), "--json")  # what had no room is made again
    assert again.code == 0, again.err
    figures = json.loads(again.out)["metrics"]
    assert json.loads((run / "summary.json").read_text())["test/accuracy"] == figures["test/accuracy"]
    assert RunFolder(run).status()["reason"] is None
    assert dlx_call("resume", str(run)).code == 2


@pytest.mark.parametrize("words", [("sweep", *SWEEP), ("train", *SWEEP[:-1], "method=seeds", "method.count=2")])
def test_at_the_end_of_a_sweep_the_table_is_told(words, small_disk, dlx_call, monkeypatch):
    from dlx.sweeps.plan import Ending

    finish = Ending.finish

    def on_a_full_disk(ending, *arguments):
        small_disk.fill()
        finish(ending, *arguments)

    monkeypatch.setattr(Ending, "finish", on_a_full_disk)
    call = dlx_call(*words, f"output_root={small_disk.path}")
    assert call.code == 5, call.err
    assert "test/accuracy" in call.out
    assert "something was lost: summary.json not written: No space left on device" in call.out
    (plan,) = small_disk.path.glob("*/*/plan.yaml")
    assert RunFolder(plan.parent).status()["status"] == "finished"
    assert not (plan.parent / "run.lock").exists()


def test_at_the_end_of_a_claim_the_verdict_is_told(small_disk, dlx_call, monkeypatch):
    from dlx.sweeps.plan import Ending

    finish = Ending.finish

    def on_a_full_disk(ending, *arguments):
        small_disk.fill()
        finish(ending, *arguments)

    monkeypatch.setattr(Ending, "finish", on_a_full_disk)
    call = dlx_call("train", *CLAIM, f"output_root={small_disk.path}")
    assert call.code == 5, call.err
    assert "held" in call.out
    assert "picture figure not made: No space left on device" in call.out
    assert "figure.png" not in call.out
    (plan,) = small_disk.path.glob("*/*/plan.yaml")
    assert RunFolder(plan.parent).status()["status"] == "finished"


WRITES = {"summary.json": "summary.json not written", "status.json": "status.json not written", "latest": "checkpoint"}


@pytest.mark.parametrize("name", WRITES)
def test_each_write_at_the_end_is_guarded_and_the_others_go_on(name, dlx_call, only_run, tiny, monkeypatch):
    replace = Path.replace
    refused = []

    def refusing(path, target):
        if Path(target).name == name and (Path(target).parent / "run.lock").exists() | (name == "latest"):
            refused.append(name)
            if name != "status.json" or len(refused) == 2:  # the first says `running`
                raise OSError(errno.EIO, "Input/output error")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refusing)
    call = dlx_call("train", *tiny)
    status = RunFolder(only_run()).status()
    assert status["status"] == "finished"
    assert not (only_run() / "run.lock").exists()
    assert "test/accuracy" in call.out
    if name == "status.json":  # it is written over the old one
        assert call.code == 0
        return
    assert call.code == 5
    assert WRITES[name] in status["reason"]


def test_a_row_that_the_disk_cut_is_cut_back_and_counted(dlx_call, only_run, tiny, monkeypatch):
    from dlx.runs.metrics import read_metrics

    write, calls = os.write, []

    def short(descriptor, data):
        if b'"step": 6' in bytes(data)[:20] and not calls:
            calls.append(1)
            write(descriptor, bytes(data)[:30])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", short)
    call = dlx_call("train", *tiny)
    assert call.code == 5
    assert "1 row of metrics.jsonl (the disk refused them)" in call.out
    lines = (only_run() / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]  # all of them whole
    assert [row["step"] for row in rows] == [3, 4, 8, 8, 8]
    assert read_metrics(only_run() / "metrics.jsonl") == rows
