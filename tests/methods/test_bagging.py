"""method=bagging: the ensemble that it leaves, out-of-bag figures by hand, bad input."""

import json
import shutil
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch

from dlx.config import Config
from dlx.methods.bagging import growing_errors, out_of_bag
from dlx.methods.ensemble import write_ensemble
from dlx.methods.predictions import Predictions
from dlx.runs.folder import RunFolder
from dlx.tasks.classification import Classification
from dlx.tasks.spec import Image, Label, LabeledImages

QUICK = ("model=mlp", "model.hidden=[8]", "trainer.max_steps=30", "data.subset=200")
SPEC = LabeledImages(
    image=Image(channels=1, height=1, width=1, mean=(0.0,), std=(1.0,)), label=Label(classes=("a", "b"))
)
TARGET = Classification(SPEC, "image", "label", "cross_entropy")


def call_json(dlx_call, *words):
    call = dlx_call(*words, "--json")
    assert call.code == 0, call.err
    return json.loads(call.out), call.err


def samples(probability_MN, truth):
    """Of two classes, by the probability of the second."""
    p_MN = torch.tensor(probability_MN)
    output_MNK = torch.stack([1 - p_MN, p_MN], dim=-1).log()
    return Predictions(TARGET, torch.arange(len(truth)), torch.zeros(len(truth), 1), torch.tensor(truth), output_MNK)


def test_out_of_bag_by_hand():
    """Sample 0 is left out by both, 1 by the second, 2 by the first, 3 by none."""
    pool = samples([[0.9, 0.1, 0.4, 0.2], [0.4, 0.8, 0.9, 0.2]], [1, 0, 0, 1])
    left_out_MN = torch.tensor([[True, False, True, False], [True, True, False, False]])
    found = out_of_bag(pool, left_out_MN, "average")
    assert found["accuracy"] == pytest.approx(2 / 3)  # (0.9 + 0.4) / 2 is right, 0.8 wrong, 0.4 right
    assert found["nll"] == pytest.approx(-np.mean(np.log([0.65, 0.2, 0.6])), rel=1e-5)
    assert out_of_bag(pool, torch.zeros(2, 4, dtype=torch.bool), "average") == {}


def test_the_error_of_the_first_members_together():
    test = samples([[0.9, 0.4], [0.2, 0.9], [0.9, 0.9]], [1, 1])
    assert growing_errors(test, test.output, "average") == pytest.approx([0.5, 0, 0])  # 0.55 and 0.65 of the first two
    assert growing_errors(test, test.output, "majority") == pytest.approx([0.5, 1, 0])  # one to one: the lower label


def test_the_folder_is_the_ensemble(dlx_call, here):
    found, err = call_json(dlx_call, "train", *QUICK, "method=bagging", "method.members=3")
    (row,), folder = found["members"], Path(found["run"])
    metrics, details = row["metrics"], row["details"]
    alone = [RunFolder(folder / "runs" / f"bag-{b}").summary()["test/accuracy"] for b in range(3)]
    assert metrics["member/test/accuracy"] == pytest.approx(statistics.fmean(alone))
    assert metrics["member/test/accuracy_std"] == pytest.approx(statistics.stdev(alone))
    assert details["test_error"][0] == pytest.approx(1 - alone[0])
    assert details["test_error"][-1] == pytest.approx(1 - metrics["test/accuracy"])
    members = [value for name, value in details["members"].items() if name.startswith("bag-")]
    assert metrics["test/nll"] <= statistics.fmean(one["test/nll"] for one in members)  # Jensen
    assert all(abs(share - 0.632) < 0.08 for share in details["distinct_share"])
    assert "of 180 samples were left out" in err
    assert 0.05 < metrics["oob/accuracy"] <= 1
    assert (folder / "media" / "members.png").stat().st_size > 1000
    shutil.rmtree(folder / "runs")
    for run in (found["run"], "@last", str(folder / "ensemble")):
        assert call_json(dlx_call, "eval", run)[0]["metrics"]["test/accuracy"] == metrics["test/accuracy"]
    assert [row["run"] for row in json.loads(dlx_call("runs", "--json").out)] == [folder.name]


def test_predict_and_export_take_the_folder(dlx_call, here):
    words = ("data=function1d", "data.samples=60", "data.batch_size=9", "model.hidden=[4]", "trainer.max_steps=5")
    found, _ = call_json(dlx_call, "train", "model=mlp", *words, "method=bagging", "method.members=2")
    Path("rows.csv").write_text("0.1\n0.7\n")
    predicted, _ = call_json(dlx_call, "predict", found["run"], "rows.csv")
    exported, _ = call_json(dlx_call, "export", found["run"], "--format", "torch_export")
    program = torch.export.load(exported["files"][0]["path"]).module()
    values = program(torch.tensor([[0.1], [0.7]])).tolist()
    np.testing.assert_allclose(predicted["predictions"][0]["values"], values, rtol=1e-5)


def test_it_goes_on_and_leaves_its_ensemble_once(dlx_call):
    found, _ = call_json(dlx_call, "train", *QUICK, "method=bagging", "method.members=2")
    ensemble = RunFolder(Path(found["run"], "ensemble"))
    finished = ensemble.summary()["finished"]
    again, _ = call_json(dlx_call, "resume", found["run"])
    assert again["members"] == found["members"]
    assert ensemble.summary()["finished"] == finished
    (ensemble.path / "summary.json").unlink()  # cut off
    again, _ = call_json(dlx_call, "resume", found["run"])
    assert again["members"] == found["members"]


def test_it_is_remade_of_members_that_went_on(dlx_call):
    found, _ = call_json(dlx_call, "train", *QUICK, "method=bagging", "method.members=2")
    folder, before = Path(found["run"]), found["members"][0]["metrics"]
    for b in range(2):
        call_json(dlx_call, "resume", str(folder / "runs" / f"bag-{b}"), "trainer.max_steps=150")
    found, _ = call_json(dlx_call, "resume", str(folder))
    (row,) = found["members"]
    metrics, details = row["metrics"], row["details"]
    assert metrics["member/test/loss"] < before["member/test/loss"]
    assert metrics["test/loss"] < before["test/loss"]
    assert details["test_error"][-1] == pytest.approx(1 - metrics["test/accuracy"])
    alone = [1 - RunFolder(folder / "runs" / f"bag-{b}").summary()["test/accuracy"] for b in range(2)]
    assert details["member_test_error"] == pytest.approx(alone)


def test_it_is_remade_with_other_settings(dlx_call):
    found, _ = call_json(dlx_call, "train", *QUICK, "method=bagging", "method.members=2")
    folder = Path(found["run"])
    base = Config.load(folder / "config.yaml").without("method")
    runs = {f"bag-{b}": RunFolder(folder / "runs" / f"bag-{b}") for b in range(2)}
    made = [write_ensemble(base, runs, folder, weights=weights).summary() for weights in ([1.0, 0.0], [0.0, 1.0])]
    for summary, run in zip(made, runs.values(), strict=True):
        assert summary["test/loss"] == pytest.approx(run.summary()["test/loss"], rel=1e-5)


def test_what_is_only_for_gradients_is_not_the_ensembles(dlx_call):
    words = ("reg=[mixup,ema,gradient_clip]", "trainer.accumulate=2", "method=bagging", "method.members=2")
    found, _ = call_json(dlx_call, "train", *QUICK, *words)
    assert found["members"][0]["status"] == "finished"


def test_boosting_leaves_its_ensemble_too(dlx_call):
    for words, name in ((["model=stump"], "test/accuracy"), (["model=polynomial", "model.degree=2"], "test/mse")):
        found, _ = call_json(dlx_call, "train", *words, "method=boosting", "method.members=3")
        metrics = found["members"][0]["metrics"]
        assert call_json(dlx_call, "eval", found["run"])[0]["metrics"][name] == pytest.approx(metrics[name], rel=1e-5)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["data.bootstrap=0"], "dataset.bootstrap: must be null, got 0: the method sets it for each of its runs"),
        (["method.members=0"], "method.members: must be at least 1, got 0"),
        (["data=function1d", "method.vote=majority"], "method.vote: majority is of classes"),
        (["method.vote=veto"], "method.vote: must be one of average, majority"),
        (["data.batch_size=2000"], "dataset.batch_size: 2000 is more than the 180 training samples"),
    ],
)
def test_bad_input_is_said_before_anything_is_written(words, text, dlx_call, here):
    call = dlx_call("train", *QUICK, "method=bagging", *words)
    assert call.code == 2
    assert text in call.err
    assert list(here.iterdir()) == []
