import json
from pathlib import Path

import pytest

from dlx.runs.folder import RunFolder
from dlx.runs.metrics import read_metrics


def test_a_run_leaves_a_whole_folder(dlx_call, only_run, tiny):
    call = dlx_call("train", *tiny)
    assert call.code == 0, call.err
    assert "test/accuracy" in call.out
    run = only_run()
    assert {path.name for path in run.iterdir()} >= {
        "config.yaml", "status.json", "summary.json", "metrics.jsonl", "spec.json", "environment.json", "checkpoints",
        "media", "log.txt",
    }  # fmt: skip
    assert not (run / "run.lock").exists()
    assert RunFolder(run).status()["status"] == "finished"
    rows = read_metrics(run / "metrics.jsonl")
    assert [row["step"] for row in rows if "train/loss" in row] == [3, 6, 8]
    assert [row["step"] for row in rows if "val/accuracy" in row] == [4, 8]
    assert list((run / "media").glob("predictions-*.png"))


def test_json_prints_one_object_on_stdout(dlx_call, tiny):
    call = dlx_call("train", *tiny, "--json")
    result = json.loads(call.out)
    assert result["status"] == "finished"
    assert 0 <= result["metrics"]["test/accuracy"] <= 1


def test_from_a_run_reproduces_it_and_takes_changes(dlx_call, tiny):
    first = json.loads(dlx_call("train", *tiny, "seed=3", "--json").out)
    again = json.loads(dlx_call("train", "--from", first["run"], "--json").out)
    assert again["metrics"] == first["metrics"]
    changed = json.loads(dlx_call("train", "--from", first["run"], "optim=sgd", "--json").out)
    assert changed["metrics"] != first["metrics"]
    config = Path(changed["run"], "config.yaml").read_text()
    assert "torch.optim.SGD" in config
    assert "betas" not in config
    assert "seed: 3" in config


def test_dry_run_checks_all_and_writes_nothing(dlx_call, here):
    call = dlx_call("train", "model=resnet", "--dry-run")
    assert call.code == 0, call.err
    assert "parameters" in call.out
    assert "1,200 of 32 samples" in call.out
    assert list(here.iterdir()) == []


def test_several_regularizers_and_a_schedule_at_once(dlx_call, tiny):
    call = dlx_call("train", *tiny, "model=cnn", "~model.hidden", "reg=[mixup,augmentation,dropout]", "scheduler=step")
    assert call.code == 2  # the cnn has no hidden to delete
    words = [word for word in tiny if "hidden" not in word and not word.startswith("model=")]
    call = dlx_call("train", *words, "model=cnn", "reg=[mixup,augmentation,dropout]", "reg.augmentation.crop=1")
    assert call.code == 0, call.err


def test_divergence_ends_with_code_3_and_says_where(dlx_call, only_run, tiny):
    call = dlx_call("train", *tiny, "model.loss=mse", "optim=sgd", "optim.lr=1e30")
    assert call.code == 3
    assert "at step" in call.out
    assert RunFolder(only_run()).status()["status"] == "diverged"


def test_what_the_machine_does_is_written_apart(dlx_call, only_run, tiny):
    dlx_call("train", *tiny)
    rows = [json.loads(line) for line in (only_run() / "system.jsonl").read_text().splitlines()]
    assert len(rows) >= 2
    assert all(row["memory/mib"] > 50 and row["cpu/percent"] >= 0 for row in rows)


def test_the_gap_is_train_less_val_and_val_less_train(dlx_call, only_run, tiny):
    """On a fixed part of train, with the weights of the validation: what `dlx eval` gives for both splits."""
    words = [word for word in tiny if not word.startswith("trainer.max_steps")]  # a key is given once
    words += ["data.subset=100", "data.folds=2", "data.fold=0", "trainer.epochs=20", "trainer.max_steps=20"]
    call = dlx_call("train", *words)
    assert call.code == 0, call.err
    best = json.loads((only_run() / "summary.json").read_text())
    figures = {}
    for split in ("train", "val"):  # train is as large as val here, so all of it is looked at
        figures |= json.loads(dlx_call("eval", "@last", "--split", split, "--json").out)["metrics"]
    for name, sign in {"accuracy": 1, "loss": -1}.items():
        gap = sign * (figures[f"train/{name}"] - figures[f"val/{name}"])
        assert best[f"gap/{name}"] == pytest.approx(gap, abs=1e-6)
    assert best["gap/loss"] > 0


def test_options_of_many_runs_are_not_for_one(dlx_call, tiny, here, only_run):
    options = {"--executor": "nonsense", "--jobs": "0", "--time-limit": "5min", "--slurm": "partition=gpu"}
    for option, value in options.items():
        call = dlx_call("train", *tiny, option, value)
        assert call.code == 2, option
        assert call.err == f"error: {option}: only for sweeps, methods and experiments\n"
    assert list(here.iterdir()) == []
    dlx_call("train", *tiny)
    before = (only_run() / "metrics.jsonl").read_bytes()
    for option, value in options.items():
        call = dlx_call("resume", "@last", "trainer.max_steps=10", option, value)
        assert call.code == 2, option
        assert call.err == f"error: {option}: only for sweeps, methods and experiments\n"
    assert (only_run() / "metrics.jsonl").read_bytes() == before


def test_a_full_disk_ends_no_training(dlx_call, tiny, only_run, monkeypatch):
    """Neither the log nor a picture is worth one: the run is done, and says what it lost."""
    from dlx.tracking.recorder import RunRecorder

    made = RunRecorder.__init__

    def on_a_full_disk(self, folder, *arguments):
        made(self, folder, *arguments)
        self._log = open("/dev/full", "a")  # noqa: SIM115, PTH123
        folder.media.rmdir()

    monkeypatch.setattr(RunRecorder, "__init__", on_a_full_disk)
    call = dlx_call("train", *tiny)
    assert call.code == 5, call.err
    assert "picture" in call.out
    assert RunFolder(only_run()).status()["status"] == "finished"
    assert "test/accuracy" in (only_run() / "summary.json").read_text()
