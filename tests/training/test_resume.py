"""Exact resume: a run that is cut off and resumed ends with the bits of the one that was not."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from run_ends import assert_same_end, end_of

from dlx.runs.checkpoint import latest_checkpoint, load_state, load_weights
from dlx.runs.folder import RunFolder

ALL_ON = (
    "model=cnn", "model.dropout=0.2", "reg=[augmentation,mixup]", "reg.augmentation.crop=1", "scheduler=warmup_cosine",
    "trainer.ema=0.9", "trainer.clip_norm=1", "dataset.subset=200", "trainer.epochs=3", "trainer.log_every=4",
)  # fmt: skip


class CutAt:
    """Sends this process a signal at the end of a step."""

    def __init__(self, monkeypatch, step, signum=signal.SIGTERM):
        from dlx.tasks.system import System

        def after_step(system, now):
            if now == step:
                os.kill(os.getpid(), signum)

        monkeypatch.setattr(System, "after_step", after_step)


@pytest.mark.parametrize("step", [1, 6, 11])
@pytest.mark.parametrize("extra", [[], ["trainer.accumulate=2", "optim=momentum"]])
def test_resume_equals_the_uninterrupted_run_to_the_bit(step, extra, dlx_call, monkeypatch):
    whole = json.loads(dlx_call("train", *ALL_ON, *extra, "--json").out)
    with monkeypatch.context() as patch:
        CutAt(patch, step)
        cut = dlx_call("train", *ALL_ON, *extra, "--json")
    assert cut.code == 143
    run = json.loads(cut.out.splitlines()[-1])["run"]
    assert RunFolder(run).status()["status"] == "interrupted"
    resumed = json.loads(dlx_call("resume", run, "--json").out)
    assert resumed["metrics"] == whole["metrics"]
    assert_same_end(Path(run), Path(whole["run"]))


def test_cut_twice_in_one_epoch(dlx_call, monkeypatch):
    whole = json.loads(dlx_call("train", *ALL_ON, "--json").out)
    with monkeypatch.context() as patch:
        CutAt(patch, 6)
        run = json.loads(dlx_call("train", *ALL_ON, "--json").out.splitlines()[-1])["run"]
    with monkeypatch.context() as patch:
        CutAt(patch, 8, signal.SIGINT)
        assert dlx_call("resume", run).code == 130
    assert json.loads(dlx_call("resume", run, "--json").out)["metrics"] == whole["metrics"]


def test_checkpoints_do_not_change_the_training(dlx_call):
    one = json.loads(dlx_call("train", *ALL_ON, "--json").out)
    other = json.loads(
        dlx_call("train", *ALL_ON, "trainer.checkpoint_every=2", "trainer.validate_every=3", "--json").out
    )
    name = "last.safetensors"
    (first, _), (second, _) = (latest_checkpoint(Path(r["run"]) / "checkpoints") for r in (one, other))
    a, b = load_weights(first / name), load_weights(second / name)
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_more_epochs_go_on_with_a_finished_run(dlx_call):
    words = [*ALL_ON, "scheduler=constant"]
    words.remove("scheduler=warmup_cosine")
    whole = json.loads(dlx_call("train", *words, "--json").out)
    words.remove("trainer.epochs=3")
    run = json.loads(dlx_call("train", *words, "trainer.epochs=2", "--json").out)["run"]
    resumed = json.loads(dlx_call("resume", run, "trainer.epochs=3", "--json").out)
    assert resumed["metrics"] == whole["metrics"]
    assert "epochs: 3" in (Path(run) / "config.yaml").read_text()
    events = [line for line in (Path(run) / "metrics.jsonl").read_text().splitlines() if "_event" in line]
    assert json.loads(events[0])["changed"] == {"trainer.epochs": 3}


def test_a_resumed_run_stays_the_same_run(dlx_call, tiny, only_run):
    dlx_call("train", *tiny)
    before = (only_run() / "config.yaml").read_text()
    call = dlx_call("resume", "@last", "trainer.max_steps=16", "optim.lr=1", "seed=4")
    assert call.code == 2
    assert call.err.count("cannot change in a resumed run") == 2
    assert "optimizer.lr" in call.err
    assert "seed" in call.err
    assert (only_run() / "config.yaml").read_text() == before


def test_a_fork_is_a_new_run_from_the_weights(dlx_call, tiny):
    run = json.loads(dlx_call("train", *tiny, "--json").out)["run"]
    fork = json.loads(dlx_call("resume", run, "--fork", "optim=sgd", "optim.lr=0.0", "--json").out)["run"]
    assert fork != run
    (last, _, _), (forked, _, _) = end_of(Path(run)), end_of(Path(fork))
    assert all(torch.equal(last[name], forked[name]) for name in last)
    assert json.loads((Path(fork) / "environment.json").read_text())["forked_from"] == Path(run).name
    call = dlx_call("resume", run, "--fork", "model.hidden=[17]")
    assert call.code == 2
    assert "do not fit" in call.err


def test_a_finished_run_is_not_resumed(dlx_call, tiny):
    dlx_call("train", *tiny)
    call = dlx_call("resume", "@last")
    assert call.code == 2
    assert "finished" in call.err


def test_a_run_that_stopped_early_is_finished(dlx_call):
    words = ["model=mlp", "model.hidden=[8]", "optim.lr=0.0", "reg=[early_stopping]", "reg.early_stopping.patience=1"]
    assert dlx_call("train", *words, "trainer.epochs=9").code == 0
    call = dlx_call("resume", "@last")
    assert call.code == 2
    assert "finished" in call.err


def test_a_fork_with_an_average_begins_with_the_weights(dlx_call, tiny):
    run = json.loads(dlx_call("train", *tiny, "--json").out)["run"]
    words = ["optim=sgd", "optim.lr=0.0", "trainer.ema=0.99", "trainer.max_steps=2"]
    fork = json.loads(dlx_call("resume", run, "--fork", *words, "--json").out)["run"]
    (last, _, _), (_, averaged, _) = end_of(Path(run)), end_of(Path(fork))
    assert all(torch.allclose(last[name], averaged[name], atol=1e-6) for name in last)


def test_a_run_does_not_go_on_backwards(dlx_call, tiny, only_run):
    dlx_call("train", *tiny)
    before = (only_run() / "config.yaml").read_text()
    call = dlx_call("resume", "@last", "trainer.max_steps=3")
    assert call.code == 2
    assert "8 steps are done" in call.err
    assert (only_run() / "config.yaml").read_text() == before


def test_beginning_anew_is_said(dlx_call, tiny, only_run, monkeypatch):
    with monkeypatch.context() as patch:
        CutAt(patch, 3)
        dlx_call("train", *tiny)
    for path in only_run().glob("checkpoints/*/best.safetensors"):
        path.write_bytes(b"damaged")
    call = dlx_call("resume", "@last")
    assert call.code == 0
    assert "it begins anew" in call.err


def test_ctrl_c_while_the_test_split_is_judged_is_an_interruption(dlx_call, tiny, only_run, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dlx.training.pictures.show", interrupted)
        call = dlx_call("train", *tiny)
    assert call.code == 130
    assert "go on with: dlx resume" in call.out
    assert RunFolder(only_run()).status()["status"] == "interrupted"
    assert dlx_call("resume", "@last").code == 0


def test_threads_do_not_depend_on_what_ran_before(monkeypatch):
    from dlx.data.digits import Digits
    from dlx.models.vision.resnet import ResNet
    from dlx.training import threads

    monkeypatch.setattr(threads, "ALL_THREADS", 2)
    torch.set_num_threads(1)  # as a small training leaves it
    with torch.device("meta"):
        system = ResNet(spec=Digits().spec)
    assert (threads.choose_threads(system, 8), threads.choose_threads(system, 4096)) == (1, 2)


def test_a_run_in_use_is_refused_with_code_4(dlx_call, only_run, tiny, monkeypatch):
    with monkeypatch.context() as patch:
        CutAt(patch, 3)
        dlx_call("train", *tiny)
    owner = RunFolder(only_run())
    owner.lock.acquire()
    call = dlx_call("resume", "@last")
    owner.lock.release()
    assert call.code == 4
    assert str(os.getpid()) in call.err


def test_state_is_plain(dlx_call, only_run, tiny):
    dlx_call("train", *tiny)
    folder, _ = latest_checkpoint(only_run() / "checkpoints")
    assert load_state(folder)["state"]["step"] == 8
