"""--executor batched: members that train as one are what they are alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dlx.runs.checkpoint import latest_checkpoint, load_weights
from dlx.runs.folder import RunFolder
from dlx.runs.metrics import read_metrics
from dlx.sweeps.executors import batched

BASE = ("trainer.log_every=10", "trainer.validate_every=25", "data.batch_size=32", "trainer.threads=1")
MLP = ("model=mlp", "model.hidden=[16]", *BASE)


@pytest.fixture
def float64(monkeypatch):
    """All floating-point tensors of a training are float64."""
    from dlx.tasks.spec import Image, Reals
    from dlx.training.trainer import Trainer

    to_device = Trainer.to_device
    monkeypatch.setattr(Trainer, "to_device", lambda self, system, device: to_device(self, system.double(), device))
    for kind in (Image, Reals):
        normalize = kind.normalize
        monkeypatch.setattr(kind, "normalize", lambda self, x, normalize=normalize: normalize(self, x).double())
    from dlx.data import function1d

    sources = function1d.TensorSource
    monkeypatch.setattr(function1d, "TensorSource", lambda **t: sources(**{k: v.double() for k, v in t.items()}))


def swept(dlx_call, executor, *words, code=0):
    call = dlx_call("sweep", *words, "--executor", executor, "--json")
    assert call.code == code, call.err
    found = json.loads(call.out)
    return Path(found["run"]), {row["name"]: row for row in found["members"]}, call.err


def last_weights(run):
    return load_weights(latest_checkpoint(RunFolder(run).checkpoints)[0] / "last.safetensors")


CASES = {
    "seeds": [*MLP, "seed=0,1,2"],
    "adam": [*MLP, "optim.lr=1e-3,3e-3", "optim.betas=[0.9,0.999],[0.5,0.99]", "scheduler=warmup_cosine"],
    "decay": [*MLP, "optim=adamw", "optim.weight_decay=0.1,0.0", "optim.no_decay=[bias]", "trainer.clip_norm=0.5"],
    "momentum": [*MLP, "optim=momentum", "optim.momentum=0.0,0.9", "optim.weight_decay=1e-3,0.0"],
    "rmsprop": [*MLP, "optim=rmsprop", "optim.lr=1e-3,1e-4"],
    "adamp": ["model=cnn", *BASE, "optim=adamp", "optim.lr=1e-3,1e-2"],
    "folds": [*MLP, "data.folds=4", "data.fold=0,1,2"],
    "bootstrap": [*MLP, "data.bootstrap=0,1", "seed=0,1", "--zip"],
    "mixup": [*MLP, "reg=[mixup,label_smoothing]", "reg.mixup.alpha=0.2,1.0", "reg.label_smoothing.epsilon=0.1,0.2"],
    "stochastic": [*MLP, "model.dropout=0.3", "model.norm=batch", "seed=0,1"],
    "penalty": [*MLP, "reg=[l2]", "seed=0,1"],
    "convolution": ["model=cnn", "model.norm=batch", "model.dropout=0.2", *BASE, "reg=[augmentation]", "seed=0,1"],
    "attention": ["model=vit", "model.dim=16", "model.depth=1", *BASE, "seed=0,1"],
    "regression": ["model=mlp", "model.hidden=[16]", "data=function1d", *BASE, "seed=0,1"],
}


@pytest.mark.parametrize("case", CASES)
def test_a_member_is_what_it_is_alone(case, dlx_call, float64):
    steps = 100 if case == "seeds" else 30
    words = [*CASES[case], f"trainer.max_steps={steps}"]
    alone, rows_alone, _ = swept(dlx_call, "inprocess", *words)
    together, rows, err = swept(dlx_call, "batched", *words)
    assert "one after another" not in err
    assert set(rows) == set(rows_alone)
    for name, row in rows.items():
        assert row["metrics"] == pytest.approx(rows_alone[name]["metrics"], rel=1e-4)
        runs = [folder / "runs" / name for folder in (alone, together)]
        for one, other in zip(*(read_metrics(run / "metrics.jsonl") for run in runs), strict=True):
            timed = ("time", "time/step_ms", "time/data_wait", "train/throughput")
            assert one.keys() == other.keys()
            assert {k: v for k, v in one.items() if k not in timed} == pytest.approx(
                {k: v for k, v in other.items() if k not in timed}, rel=1e-4, abs=1e-8
            )
        weights = [last_weights(run) for run in runs]
        for key, tensor in weights[0].items():
            if tensor.is_floating_point():
                assert tensor.dtype == torch.float64
                torch.testing.assert_close(weights[1][key], tensor, rtol=1e-4, atol=1e-7)


def test_members_end_when_they_would_alone(dlx_call, float64):
    """Early stopping by its own curve; a diverged member touches no other."""
    words = [*MLP, "reg=[early_stopping]", "reg.early_stopping.patience=1", "trainer.max_steps=400", "optim=sgd",
             "model.loss=mse", "optim.lr=1e-9,0.05,1e30,0.1,0.2"]  # fmt: skip
    _, alone, _ = swept(dlx_call, "inprocess", *words, code=1)
    folder, rows, _ = swept(dlx_call, "batched", *words, code=1)
    assert rows["002-lr-1e30"]["status"] == "diverged"
    assert rows["002-lr-1e30"]["reason"] == alone["002-lr-1e30"]["reason"]
    steps = {name: RunFolder(folder / "runs" / name).summary().get("steps") for name in rows}
    assert len(set(steps.values())) > 2, steps
    for name, row in rows.items():
        assert row["status"] == alone[name]["status"]
        assert row["metrics"] == pytest.approx(alone[name]["metrics"], rel=1e-4)


def test_what_is_cut_off_goes_on_by_any_executor(dlx_call, sigterm_at):
    words = [*MLP, "trainer.max_steps=60", "seed=0,1"]
    _, whole, _ = swept(dlx_call, "inprocess", *words)
    for resumed_by in ("batched", "inprocess"):
        with sigterm_at(61):  # the 31st step of the first member
            call = dlx_call("sweep", *words, "--executor", "batched", "--json")
        assert call.code == 143, call.err
        run = json.loads(call.out)["run"]
        assert {RunFolder(path).status()["status"] for path in Path(run, "runs").iterdir()} == {"interrupted"}
        again = json.loads(dlx_call("resume", run, "--executor", resumed_by, "--json").out)
        for row in again["members"]:
            assert row["metrics"] == pytest.approx(whole[row["name"]]["metrics"], rel=1e-3)
            assert '"_event": "resume"' in Path(run, "runs", row["name"], "metrics.jsonl").read_text()


def test_what_cannot_be_batched_says_why_and_runs(dlx_call):
    words = [*MLP, "trainer.max_steps=6", "seed=0,1"]
    for word, why in (("trainer.ema=0.9", "trainer.ema"), ("reg=[weight_noise]", "regularization.weight_noise")):
        _, rows, err = swept(dlx_call, "batched", *words, word)
        assert f"2 members run one after another: {why}" in err
        assert {row["status"] for row in rows.values()} == {"finished"}


def test_what_takes_no_steps_runs_by_itself(dlx_call):
    _, rows, err = swept(dlx_call, "batched", "model=stump", "data.subset=60", "seed=0,1")
    assert "2 members run one after another: several objectives, or none" in err
    assert {row["status"] for row in rows.values()} == {"finished"}


def test_different_programs_are_different_stacks(dlx_call):
    _, rows, err = swept(dlx_call, "batched", *MLP[2:], "model=mlp,linear", "seed=0,1", "trainer.max_steps=6")
    assert len(rows) == 4
    assert {row["status"] for row in rows.values()} == {"finished"}
    assert "one after another" not in err
    assert "4 members are 2 programs, since model._target_ differs; each trains apart" in err


def test_weights_that_cannot_be_saved_are_their_members_alone(dlx_call):
    words = [*MLP, "optim=sgd", "optim.lr=0.1,1e30", "optim.weight_decay=0.0,1e10", "--zip"]
    words += ["trainer.max_steps=6", "trainer.checkpoint_every=1"]
    _, rows, _ = swept(dlx_call, "batched", *words, code=1)
    assert [row["status"] for row in rows.values()] == ["finished", "diverged"]
    assert "non-finite" in rows[max(rows)]["reason"]


def test_labels_of_several_forms_are_no_program(dlx_call):
    words = [*MLP, "reg=[cutmix]", "trainer.max_steps=6", "seed=0,1,2"]
    _, rows, err = swept(dlx_call, "batched", *words)
    assert "3 members run one after another: labels are soft in some batches only" in err
    assert {row["status"] for row in rows.values()} == {"finished"}
    _, rows, err = swept(dlx_call, "batched", *words, "reg.cutmix.probability=1")
    assert "one after another" not in err


def test_what_a_stack_fails_of_its_members_go_on_alone(dlx_call, monkeypatch):
    """From their last checkpoints, each to its own end."""
    words = [*MLP, "trainer.max_steps=30", "trainer.checkpoint_every=10", "seed=0,1,2"]
    _, whole, _ = swept(dlx_call, "inprocess", *words)
    gradients = batched.Stack.step

    def step(self, batch, at, logging):
        if at == 14:
            raise ValueError("a shape that it does not know")
        return gradients(self, batch, at, logging)

    monkeypatch.setattr(batched.Stack, "step", step)
    folder, rows, err = swept(dlx_call, "batched", *words)
    assert "3 members go on one after another: ValueError: a shape that it does not know" in err
    for name, row in rows.items():
        assert row["status"] == "finished"
        assert row["metrics"] == pytest.approx(whole[name]["metrics"], rel=1e-3)
        assert '"_event": "resume", "step": 10' in (folder / "runs" / name / "metrics.jsonl").read_text()


def test_a_member_that_somebody_else_holds_keeps_no_other(dlx_call, sigterm_at):
    words = [*MLP, "trainer.max_steps=60", "seed=0,1"]
    with sigterm_at(61):
        run = json.loads(dlx_call("sweep", *words, "--executor", "batched", "--json").out)["run"]
    held = RunFolder(max(Path(run, "runs").iterdir()))
    held.lock.acquire()
    call = dlx_call("resume", run, "--executor", "batched", "--json")
    held.lock.release()
    found = {row["name"]: row for row in json.loads(call.out)["members"]}
    assert [found[name]["status"] for name in sorted(found)] == ["finished", "failed"]
    assert "in use by process" in found[held.name]["reason"]


def test_rows_and_seconds_are_whole_after_an_interruption(dlx_call, sigterm_at, float64):
    words = [*(word for word in MLP if not word.startswith("trainer.log_every")), "trainer.log_every=20"]
    words += ["trainer.max_steps=60", "seed=0,1"]
    alone, _, _ = swept(dlx_call, "inprocess", *words)
    for resumed_by in ("batched", "inprocess"):
        with sigterm_at(61):  # within what a row is the mean of
            run = Path(json.loads(dlx_call("sweep", *words, "--executor", "batched", "--json").out)["run"])
        for member in (run / "runs").iterdir():
            assert RunFolder(member).summary()["seconds"] > 0
        assert dlx_call("resume", str(run), "--executor", resumed_by).code == 0
        for member in (alone / "runs").iterdir():
            rows = [
                [row["train/loss"] for row in read_metrics(folder / "runs" / member.name / "metrics.jsonl")
                 if "train/loss" in row]
                for folder in (alone, run)
            ]  # fmt: skip
            assert rows[1] == pytest.approx(rows[0], rel=1e-6)


def test_auto_takes_what_is_faster(dlx_call, monkeypatch):
    words = [*MLP, "trainer.max_steps=6", "seed=0,1"]
    for times, together in (((1.0, 2.0), True), ((2.0, 1.0), False)):
        monkeypatch.setattr("dlx.sweeps.executors.batched.measure", lambda stack, times=times: times)
        trained = []
        monkeypatch.setattr("dlx.sweeps.executors.batched._train", lambda *a, kept=trained: kept.append(a) or [])
        _, rows, err = swept(dlx_call, "auto", *words)
        assert bool(trained) == together
        assert ("one by one" in err) == (not together)
        assert len(rows) == (0 if together else 2)
    assert "one by one" not in swept(dlx_call, "auto", *words, "--quiet")[2]


@pytest.mark.parametrize(
    ("method", "data"), [(["kfold", "method.k=4"], "digits"), (["bagging", "method.members=3"], "function1d")]
)
def test_the_members_of_a_method_are_what_they_are_alone(method, data, dlx_call, float64, monkeypatch):
    """Folds of unequal size, replicates; two points of a sweep in one stack. What the methods leave is the same too."""
    words = [*MLP, f"data={data}", f"method={method[0]}", method[1], "optim.lr=1e-3,1e-2", "trainer.max_steps=30"]
    stacks = []
    train = batched._train
    monkeypatch.setattr(
        batched, "_train", lambda stack, members, *more: stacks.append(members) or train(stack, members, *more)
    )
    alone, rows_alone, _ = swept(dlx_call, "inprocess", *words)
    together, rows, _ = swept(dlx_call, "batched", *words)
    names = {path.name for path in (alone / "runs").iterdir()}
    assert len(names) == 2 * int(method[1][-1])
    assert [{member.name for member in members} for members in stacks] == [names]
    for name in names:
        first, second = (last_weights(folder / "runs" / name) for folder in (alone, together))
        for key, tensor in first.items():
            torch.testing.assert_close(second[key], tensor, rtol=1e-4, atol=1e-7)
    for name, row in rows.items():
        assert row["metrics"] == pytest.approx(rows_alone[name]["metrics"], rel=1e-4, abs=1e-8)
        homes = [folder / "points" / name for folder in (alone, together)]
        if method[0] == "kfold":
            first, second = (np.load(home / "out_of_fold.npz") for home in homes)
            assert len(first["index"]) > 100
            for key in first:
                np.testing.assert_allclose(second[key], first[key], rtol=1e-4, atol=1e-6)
        else:
            first, second = (json.loads(dlx_call("eval", str(home / "ensemble"), "--json").out) for home in homes)
            assert first["metrics"] == pytest.approx(second["metrics"], rel=1e-4, abs=1e-8)
            assert first["metrics"]["test/loss"] == pytest.approx(row["metrics"]["test/loss"], rel=1e-4)
