"""method=seeds, and what all methods share: folders, the table of a sweep over one, resume, bad input."""

import json
import statistics
from pathlib import Path

import pytest

from dlx.runs.folder import RunFolder
from dlx.training import run as training

QUICK = ("model=mlp", "model.hidden=[8]", "trainer.max_steps=6")


def call_json(dlx_call, *words, code=0):
    call = dlx_call(*words, "--json")
    assert call.code == code, call.err
    return json.loads(call.out), call.err


@pytest.mark.parametrize(("count", "how"), [(3, []), (2, ["--executor", "processes", "--jobs", "2"])])
def test_seeds_are_their_mean_and_deviation(count, how, dlx_call):
    found, err = call_json(dlx_call, "train", *QUICK, "method=seeds", f"method.count={count}", *how)
    (row,) = found["members"]
    runs = [RunFolder(Path(found["run"], "runs", f"seed-{seed}")).summary() for seed in range(count)]
    values = [run["val/accuracy"] for run in runs]
    assert row["metrics"]["val/accuracy"] == pytest.approx(statistics.fmean(values))
    assert row["metrics"]["val/accuracy_std"] == pytest.approx(statistics.stdev(values))
    assert f"{statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f}" in err
    assert Path(found["run"], "media", "spread.png").stat().st_size > 1000
    again, _ = call_json(dlx_call, "resume", found["run"])
    assert again["members"][0]["metrics"] == row["metrics"]


def test_a_sweep_over_a_method_ranks_by_its_mean(dlx_call):
    words = (*QUICK, "method=seeds", "method.count=2", "optim.lr=1e-9,1e-2")
    found, err = call_json(dlx_call, "sweep", *words)
    assert [row["name"] for row in found["members"]] == ["001-lr-0.01", "000-lr-1e-09"]
    assert "±" in err
    folder = Path(found["run"])
    assert len(list(folder.glob("runs/*"))) == 4
    assert (folder / "points" / "001-lr-0.01" / "media" / "spread.png").is_file()
    again, _ = call_json(dlx_call, "resume", found["run"])
    assert again["members"] == found["members"]


def test_points_with_seeds_far_apart_train_nothing_twice(dlx_call):
    call = dlx_call("sweep", *QUICK, "method=seeds", "method.count=2", "seed=0,2", "--dry-run")
    assert call.code == 0, call.err
    assert "runs            4" in call.out


DIVERGES = ("model.loss=mse", "optim=sgd", "optim.lr=1e30")


def test_a_method_without_members_says_why(dlx_call):
    found, err = call_json(dlx_call, "train", *QUICK, "method=kfold", "method.k=2", *DIVERGES, code=1)
    reason = found["members"][0]["reason"]
    assert reason.startswith("no member finished: fold-0 diverged: the loss is ")
    assert reason in err
    assert RunFolder(found["run"]).status()["reason"] == reason


def test_of_a_sweep_over_a_method_points_are_counted(dlx_call):
    words = (*QUICK, "method=seeds", "method.count=2", *DIVERGES[:2], "optim.lr=1e-2,1e30")
    found, err = call_json(dlx_call, "sweep", *words, code=1)
    assert "no member finished: seed-0 diverged: the loss is " in err
    assert RunFolder(found["run"]).status()["reason"] == "1 of 2 points did not finish"


def test_a_member_that_is_missing_says_why(dlx_call, monkeypatch):
    train = training.train

    def fails_once(config, **given):
        if config["seed"] == 1:
            raise OSError("the disk is full")
        return train(config, **given)

    monkeypatch.setattr(training, "train", fails_once)
    found, _ = call_json(dlx_call, "train", *QUICK, "method=seeds", "method.count=3", code=1)
    (row,) = found["members"]
    assert row["reason"] == "1 of 3 members did not finish: seed-1 failed: OSError: the disk is full"
    assert "val/accuracy_std" in row["metrics"]


def test_dry_run_prints_the_members(dlx_call, here):
    call = dlx_call("train", *QUICK, "method=seeds", "method.count=2", "--dry-run")
    assert call.code == 0, call.err
    assert "seed-1" in call.out
    assert list(here.iterdir()) == []


def test_bad_input(dlx_call, here):
    call = dlx_call("train", *QUICK, "method=seeds", "method.count=0")
    assert call.code == 2
    assert "method.count: must be at least 1, got 0" in call.err
    assert "did you mean seeds?" in dlx_call("train", "method=seed").err
    assert list(here.iterdir()) == []
