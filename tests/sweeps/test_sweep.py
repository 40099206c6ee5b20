"""dlx sweep as a person would: tables, folders, faults, and going on after a kill."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults import wait_until

from dlx.data.digits import Digits
from dlx.data.splits import SplitSettings
from dlx.runs.checkpoint import latest_checkpoint
from dlx.runs.folder import RunFolder
from dlx.sweeps.executors.worker import die_with
from dlx.sweeps.sweep import Row, rank

QUICK = ("model=mlp", "model.hidden=[8]", "trainer.max_steps=6")


def sweep(dlx_call, *words, code=0):
    call = dlx_call("sweep", *QUICK, *words, "--json")
    assert call.code == code, call.err
    return json.loads(call.out), call.err


@pytest.mark.parametrize("how", [[], ["--executor", "processes", "--jobs", "2"]])
def test_a_grid_ends_in_a_table_with_the_best_first(how, dlx_call):
    found, err = sweep(dlx_call, "optim.lr=1e-9,1e-2", *how)
    folder = Path(found["run"])
    assert found["metric"] == "val/accuracy"
    values = [member["metrics"]["val/accuracy"] for member in found["members"]]
    assert values == sorted(values, reverse=True)
    assert found["best"] == "001-lr-0.01"
    assert f"dlx train --from {folder / 'runs' / found['best']}" in err
    assert {path.name for path in (folder / "runs").iterdir()} == {m["name"] for m in found["members"]}
    assert RunFolder(folder).status()["status"] == "finished"
    alone = json.loads(dlx_call("train", "--from", str(folder / "runs" / found["best"]), "--json").out)
    assert alone["metrics"] == found["members"][0]["metrics"]


def test_seeds_is_the_method(dlx_call, here):
    """`--seeds 2` gives each point the mean over the runs that `seed=range(2)` would train."""
    grid, _ = sweep(dlx_call, "optim.lr=1e-9,1e-2", "seed=range(2)")
    found, _ = sweep(dlx_call, "optim.lr=1e-9,1e-2", "--seeds", "2")
    accuracy = {row["name"]: row["metrics"]["val/accuracy"] for row in grid["members"]}
    assert found["best"] == "001-lr-0.01"
    assert found["members"][0]["metrics"]["val/accuracy"] == pytest.approx(
        (accuracy["002-lr-0.01-seed-0"] + accuracy["003-lr-0.01-seed-1"]) / 2
    )
    one = json.loads(dlx_call("train", *QUICK, "--seeds", "2", "optim.lr=1e-2", "--json").out)
    method = json.loads(dlx_call("train", *QUICK, "method=seeds", "method.count=2", "optim.lr=1e-2", "--json").out)
    assert one["members"] == method["members"]
    assert one["members"][0]["metrics"] == found["members"][0]["metrics"]


def test_a_figure_that_is_no_number_is_not_the_best():
    values = {"a": float("nan"), "b": 0.5, "c": 0.1}
    rows = [Row(name, {}, "finished", None, {"val/loss": value}) for name, value in values.items()]
    assert [row.name for row in rank(rows, "val/loss:min")[1]] == ["c", "b", "a"]


def test_multirun_is_a_sweep(dlx_call):
    call = dlx_call("train", *QUICK, "seed=1,2", "-m", "--json")
    assert call.code == 0, call.err
    assert len(json.loads(call.out)["members"]) == 2
    assert "takes one value" in dlx_call("train", *QUICK, "seed=1,2").err


def test_dry_run_writes_nothing(dlx_call, here):
    call = dlx_call("sweep", *QUICK, "optim.lr=1,2", "seed=range(2)", "--dry-run")
    assert call.code == 0, call.err
    assert "003-lr-2-seed-1  2             1" in call.out
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(("how", "lines"), [(["--sample", "2"], 2), (["--zip"], 3)])
def test_each_point_has_all_seeds(how, lines, dlx_call):
    call = dlx_call("sweep", *QUICK, "optim.lr=1,2,3", *how, "--seeds", "2", "--dry-run")
    assert call.code == 0, call.err
    names = [line.split()[0] for line in call.out.splitlines() if line.startswith("0")]
    points = list(dict.fromkeys(name.partition("-seed-")[0] for name in names))
    assert len(points) == lines
    assert names == [f"{point}-seed-{seed}" for point in points for seed in (0, 1)]


def test_members_that_are_configured_alike_are_trained_once(dlx_call):
    found, err = sweep(dlx_call, "optim.lr=1e-3,0.001,1e-2", "seed=range(2)")
    names = ["000-lr-0.001-seed-0", "001-lr-0.001-seed-1", "002-lr-0.01-seed-0", "003-lr-0.01-seed-1"]
    assert sorted(member["name"] for member in found["members"]) == names
    assert "left out        2 of 6 members: they are configured as others are" in err


def test_a_diverged_member_does_not_stop_the_others(dlx_call):
    found, err = sweep(dlx_call, "model.loss=mse", "optim=sgd", "optim.lr=0.01,1e30,0.1", code=1)
    statuses = {member["name"]: member["status"] for member in found["members"]}
    assert statuses == {"000-lr-0.01": "finished", "001-lr-1e30": "diverged", "002-lr-0.1": "finished"}
    assert "diverged: the loss is" in err
    assert RunFolder(found["run"]).status()["reason"] == "1 of 3 members did not finish"


def test_metric_with_its_direction(dlx_call):
    found, _ = sweep(dlx_call, "optim.lr=1e-9,1e-2", "--metric", "test/loss:min")
    assert found["metric"] == "test/loss"
    assert found["best"] == "001-lr-0.01"
    assert json.loads(dlx_call("resume", found["run"], "--json").out)["metric"] == "test/loss"
    assert "must end in :min or :max" in dlx_call("sweep", *QUICK, "--metric", "test/loss").err


def test_each_column_is_there_once(dlx_call):
    call = dlx_call("sweep", *QUICK, "seed=0,1", "--metric", "test/accuracy:max")
    assert call.out.splitlines()[0].split() == ["member", "seed", "test/accuracy", "status"]


def test_where_no_member_finished_the_metric_is_what_they_monitor(dlx_call):
    found, err = sweep(dlx_call, "model.loss=mse", "optim=sgd", "optim.lr=1e30,2e30", code=1)
    assert found["metric"] == "val/accuracy"
    assert "val/loss" not in err.partition("member ")[2]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["seed=range(0)"], "seed: range(0) has no values"),
        (["optim.lrr=1,2"], "did you mean lr?"),
        (["optim.lr=1,abc"], "must be a number, got 'abc'"),
        (["seed=1,2", "--executor", "proceses"], "--executor proceses: unknown; choose from inprocess"),
        (["seed=1,2", "--jobs", "2"], "--jobs needs another --executor than inprocess"),
        (["seed=1,2", "--executor", "processes", "--time-limit", "5"], "must be a time such as 90s"),
        (["seed=1,2", "--sample", "3"], "--sample: must be from 1 to 2, the size of the grid, got 3"),
        (["seed=0,1", "--seeds", "2"], "000-seed-0 and 001-seed-1 both train seed-1; method=seeds"),
        (["experiment=bottleneck,convolution"], "experiment: a claim is run by"),
        (["data.subset=50,5000"], "error: 001-subset-5000: dataset.subset: 5000 of 1437 samples"),
        (["data.subset=5000", "optim.lr=1,2,3"], "error: 000-lr-1 (and 2 more): dataset.subset: 5000 of 1437 samples"),
        (["model.dropout=0,2"], "error: 001-dropout-2: model.dropout: must be in [0, 1), got 2.0"),
        (
            ["seed=1,2", "data.subset=40", "data.batch_size=41"],
            "000-seed-1 (and 1 more): dataset.batch_size: 41 is more",
        ),
        (
            ["method=kfold", "method.k=2,50", "data.subset=40", "data.batch_size=8"],
            "error: 001-k-50: dataset.folds: 50 folds of 40 samples",
        ),
        (["method=seeds,bagging", "data.subset=5000"], "000-method-seeds (and 1 more): dataset.subset: 5000 of 1437"),
        (["method=kfold", "--seeds", "2"], "method: is given twice: method=kfold and method=seeds"),
        (["data.subset=range(5000,5010)"], "error: and 6 more"),
        (
            ["seed=1,2", "--metric", "val/acuracy:max"],
            "--metric val/acuracy: no such metric; did you mean val/acc",
        ),
        (
            ["seed=1,2", "--metric", "loss:min", "--dry-run"],
            "did you mean val/loss? metrics: test/accuracy, test/loss, test/nll",
        ),
    ],
)
def test_bad_input_writes_nothing(words, text, dlx_call, here):
    call = dlx_call("sweep", *QUICK, *words)
    assert call.code == 2, call.out
    assert text in call.err
    assert list(here.iterdir()) == []
    assert len(call.err.splitlines()) <= 5


def test_a_metric_that_only_some_members_have(dlx_call):
    found, _ = sweep(
        dlx_call, "data=digits,function1d", "data.subset=100", "data.batch_size=8", "--metric", "val/r2:max"
    )
    assert found["best"] == "001-dataset-function1d"
    assert dlx_call("resume", found["run"]).code == 0


def test_a_metric_that_a_method_lacks_is_said_by_its_first_answer(dlx_call, here):
    words = ("method=kfold", "method.k=2", "seed=1,2", "--metric", "val/acuracy:max")
    call = dlx_call("sweep", *QUICK, *words)
    assert call.code == 2
    assert "--metric val/acuracy: 000-seed-1 has no such metric; did you mean val/accuracy?" in call.err
    assert len(list(here.glob("outputs/*/*/runs/*"))) == 2  # those of the second point did not start


def test_members_are_found_good_without_opening_their_data_each_time(dlx_call, here, monkeypatch):
    opened, split = [], []
    monkeypatch.setattr(Digits, "splits", lambda self, splits=Digits.splits: opened.append(1) or splits(self))
    monkeypatch.setattr(
        SplitSettings, "split", lambda self, data, of=SplitSettings.split: split.append(1) or of(self, data)
    )
    call = dlx_call("sweep", *QUICK, "optim.lr=range(1,6)", "seed=range(20)", "data.subset=100,200", "--dry-run")
    assert call.code == 0, call.err
    assert (len(opened), len(split)) == (1, 2)


def test_a_sweep_that_was_cut_off_goes_on_inside_its_member(dlx_call, sigterm_at):
    whole, _ = sweep(dlx_call, "seed=range(3)")
    with sigterm_at(9):  # the third step of the second member
        cut = dlx_call("sweep", *QUICK, "seed=range(3)", "--json")
    assert cut.code == 143
    run = json.loads(cut.out)["run"]
    first = Path(run, "runs", "000-seed-0", "metrics.jsonl").read_bytes()
    resumed = json.loads(dlx_call("resume", run, "--json").out)
    assert [m["metrics"] for m in resumed["members"]] == [m["metrics"] for m in whole["members"]]
    assert Path(run, "runs", "000-seed-0", "metrics.jsonl").read_bytes() == first
    assert '"_event": "resume"' in Path(run, "runs", "001-seed-1", "metrics.jsonl").read_text()


def test_a_sweep_is_no_run(dlx_call, here):
    found, _ = sweep(dlx_call, "seed=1,2")
    (here / "a.png").write_bytes(b"")
    for words in (["eval", found["run"]], ["predict", found["run"], "a.png"], ["export", found["run"]]):
        call = dlx_call(*words)
        assert call.code == 2, words
        assert "name one of its runs" in call.err


def test_two_resumes_of_one_sweep_are_one_too_many(dlx_call, tmp_path):
    found, _ = sweep(dlx_call, "seed=1,2")
    owner = RunFolder(found["run"])
    owner.lock.acquire()
    call = dlx_call("resume", found["run"])
    owner.lock.release()
    assert call.code == 4
    assert str(os.getpid()) in call.err
    assert "takes no overrides" in dlx_call("resume", found["run"], "seed=4").err


def test_faults_of_members_are_recorded_with_their_reasons(faulty, dlx_call, monkeypatch):
    """Of 5 members 1 crashes, 1 is killed, 1 hangs and 1 takes too long but saves: 1 is fine, and nobody waits for the
    one that hangs."""
    monkeypatch.setattr("dlx.sweeps.executors.pool.GRACE_SECONDS", 1.0)
    faults = "hang,wait,crash,none,kill"  # the first two run to the time limit, the others beside them
    how = ("--executor", "processes", "--jobs", "3", "--time-limit", "15s", "--json")
    call = dlx_call("sweep", *faulty, f"model.fault={faults}", "seed=1,2,3,4,5", "--zip", *how)
    assert call.code == 1, call.err
    members = json.loads(call.out)
    found = {member["name"][:3]: member for member in members["members"]}
    assert {n for n, member in found.items() if member["status"] == "finished"} == {"003"}
    reasons = {n: member["reason"] for n, member in found.items() if member["status"] != "finished"}
    assert reasons["002"] == "RuntimeError: out of ideas"
    assert reasons["004"] == "killed by signal 9"
    assert reasons["000"] == "killed (over its 15 s)"
    assert reasons["001"] == "stopped (over its 15 s)"
    (late,) = Path(members["run"]).glob("runs/001-*")
    assert RunFolder(late).status()["status"] == "interrupted"
    assert latest_checkpoint(RunFolder(late).checkpoints)[0]


def test_members_that_are_told_to_stop_save_and_can_go_on(faulty, here):
    """All of them run already, none waits; a member that got a second SIGTERM would leave without a checkpoint."""
    words = [*faulty, "model.fault=wait", "seed=0,1", "--executor", "processes"]
    command = [sys.executable, "-m", "dlx", "sweep", *words, "--jobs", "2"]
    parent = subprocess.Popen(command, cwd=here, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: len(list(here.glob("waits-*"))) == 2)
        parent.terminate()
        code = parent.wait(timeout=60)
    finally:
        parent.kill()
    assert code == 143
    runs = [RunFolder(path.parent) for path in here.glob("outputs/sweep/*/runs/*/config.yaml")]
    assert [run.status()["status"] for run in runs] == ["interrupted"] * 2
    assert all(latest_checkpoint(run.checkpoints)[0] for run in runs)


def test_a_sweep_is_started_by_one_process(dlx_call, here, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for words in (["sweep", *QUICK, "seed=1,2"], ["train", "experiment=bottleneck"]):
        call = dlx_call(*words)
        assert call.code == 2
        assert "not under torchrun" in call.err
    assert list(here.iterdir()) == []


def test_an_infinite_figure_stops_neither_the_sweep_nor_the_list(dlx_call):
    words = ["model=mlp", "data=function1d", "optim=sgd", "optim.lr=1e30,1e-3", "trainer.max_steps=1"]
    call = dlx_call("sweep", *words, "--json")
    assert call.code == 0, call.err
    found = json.loads(call.out)
    assert found["best"] == "001-lr-0.001"
    assert dlx_call("runs", "--members").code == 0
    assert dlx_call("resume", found["run"]).code == 0


def test_a_killed_sweep_leaves_no_orphans_and_goes_on(faulty, dlx_call, here):
    command = [sys.executable, "-m", "dlx", "sweep", *faulty, "model.fault=hang", "seed=1,2", "--executor", "processes"]
    parent = subprocess.Popen([*command, "--jobs", "2"], cwd=here, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_until(lambda: len(list(here.glob("outputs/sweep/*/runs/*/run.lock"))) == 2)
    owners = [json.loads(path.read_text())["pid"] for path in here.glob("outputs/sweep/*/runs/*/run.lock")]
    assert len(owners) == 2
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in owners), 10)
    (folder,) = here.glob("outputs/sweep/*")
    assert RunFolder(folder).status()["status"] == "lost"
    config = folder / "plan" / "000-seed-1.yaml"
    for path in folder.glob("plan/*.yaml"):  # whatever made them hang is mended
        path.write_text(path.read_text().replace("fault: hang", "fault: none"))
    assert config.exists()
    for run in folder.glob("runs/*/config.yaml"):
        run.write_text(run.read_text().replace("fault: hang", "fault: none"))
    call = dlx_call("resume", str(folder), "--trust", "faulty_pkg", "--json")
    assert call.code == 0, call.err
    assert {m["status"] for m in json.loads(call.out)["members"]} == {"finished"}


def test_a_worker_whose_parent_is_gone_ends(monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr("ctypes.CDLL", lambda name: type("C", (), {"prctl": staticmethod(lambda *a: 0)}))
    die_with(os.getppid())
    assert ended == []
    die_with(1 if os.getppid() != 1 else 2)
    assert ended == [1]
