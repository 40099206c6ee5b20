"""The stump against scikit-learn's tree of one split, its edges, and `dlx train` of a system without gradient steps."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from dlx.models.stump import FLOOR, Stump, find_split
from dlx.runs.metrics import read_metrics
from dlx.tasks.spec import Reals, RegressionReals


def fitted(spec, **batch):
    """A stump that was fitted to one batch, in two parts."""
    stump = Stump(spec=spec)
    parts = [{name: tensor[rows] for name, tensor in batch.items()} for rows in (slice(0, 7), slice(7, None))]
    stump.fit(SimpleNamespace(train=SimpleNamespace(eval_batches=lambda: iter(parts))))
    return stump.eval()


def weights(size):
    """Some of them 0, which count as absent."""
    return torch.rand(size) * (torch.rand(size) > 0.2)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_it_is_scikit_learns_classifier(seed, weighted, images):
    torch.manual_seed(seed)
    spec, size = images(2, 3, classes=4), 150
    image = torch.randn(size, 2, 3, 3)
    label = (image.flatten(1)[:, :4] + torch.randn(size, 4)).argmax(1)
    weight = {"weight": weights(size)} if weighted else {}
    stump = fitted(spec, image=image, label=label, **weight)
    x = image.flatten(1).numpy()
    tree = DecisionTreeClassifier(max_depth=1, random_state=0)
    tree.fit(x, label.numpy(), sample_weight=weight["weight"].double().numpy() if weighted else None)
    assert stump.feature.item() == tree.tree_.feature[0]
    assert stump.threshold.item() == pytest.approx(tree.tree_.threshold[0], abs=1e-6)
    new = torch.randn(500, 2, 3, 3)
    probability = stump.predict({"image": new})["probability"].numpy()
    np.testing.assert_allclose(probability, tree.predict_proba(new.flatten(1).numpy()), atol=10 * FLOOR)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("outputs", [1, 3])
def test_it_is_scikit_learns_regressor(outputs, weighted):
    size = 120
    x, y = torch.randn(size, 5), torch.randn(size, outputs) + 1000
    y += (x[:, 3:4] > 0.3).float()
    weight = {"weight": weights(size)} if weighted else {}
    spec = RegressionReals(features=Reals(size=5), target=Reals(size=outputs))
    stump = fitted(spec, features=x, target=y, **weight)
    tree = DecisionTreeRegressor(max_depth=1, random_state=0)
    tree.fit(x.numpy(), y.double().numpy(), sample_weight=weight["weight"].double().numpy() if weighted else None)
    assert stump.feature.item() == tree.tree_.feature[0] == 3
    new = torch.randn(200, 5)
    expected = tree.predict(new.numpy()).reshape(200, outputs)
    np.testing.assert_allclose(stump.predict({"features": new})["target"].numpy(), expected, rtol=1e-6)


def test_features_that_are_looked_at_in_parts_change_nothing(monkeypatch):
    x, y, w = torch.randn(40, 23), torch.randn(40, 2, dtype=torch.float64), torch.ones(40, dtype=torch.float64)
    whole = find_split(x, y, w)
    monkeypatch.setattr("dlx.models.stump.SORTED_AT_ONCE", 1)
    assert find_split(x, y, w) == whole


def test_of_equal_splits_the_lowest_feature_and_threshold(images):
    x = torch.tensor([0.0, 1.0, 2.0, 3.0]).unsqueeze(1).expand(4, 3)
    y = torch.tensor([[0.0], [1.0], [1.0], [0.0]], dtype=torch.float64)
    assert find_split(x, y, torch.ones(4, dtype=torch.float64)) == (0, 0.5)


def test_a_threshold_between_neighbours_in_float32_parts_them():
    two = torch.tensor(2.0)
    low = torch.nextafter(torch.tensor(1.0), two)  # odd: the middle is rounded up
    x = torch.stack([low, torch.nextafter(low, two)]).unsqueeze(1)
    y = torch.tensor([[0.0], [1.0]])
    stump = fitted(RegressionReals(features=Reals(size=1), target=Reals(size=1)), features=x, target=y)
    assert torch.equal(stump(x), y)


@pytest.mark.parametrize("alike", ["inputs", "targets"])
def test_where_there_is_nothing_to_split_it_is_the_mean(alike):
    x, y = torch.randn(20, 2), torch.randn(20, 1)
    x, y = (torch.ones(20, 2), y) if alike == "inputs" else (x, torch.full((20, 1), 3.0))
    stump = fitted(RegressionReals(features=Reals(size=2), target=Reals(size=1)), features=x, target=y)
    torch.testing.assert_close(stump(x), y.mean(0, keepdim=True).expand(20, 1))


def test_training_it_is_one_fit_that_is_validated(dlx_call, only_run):
    call = dlx_call("train", "model=stump", "data.subset=100", "--json")
    assert call.code == 0, call.err
    found, run = json.loads(call.out), only_run()
    assert "fitted  val loss" in call.err
    assert 0.1 < found["metrics"]["val/accuracy"] < 0.4
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == summary["best_step"] == summary["parameters"] == 0
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl") if "val/accuracy" in row] == [0]
    evaluated = json.loads(dlx_call("eval", str(run), "--split", "val", "--json").out)["metrics"]
    assert evaluated["val/accuracy"] == found["metrics"]["val/accuracy"]
    again = dlx_call("resume", str(run))
    assert again.code == 2
    assert "this run is finished; `dlx train --from" in again.err
    assert "this run is finished" in dlx_call("resume", str(run), "trainer.epochs=60").err
    (run / "status.json").write_text('{"status": "running", "reason": null, "time": 0}')  # it was killed
    resumed = dlx_call("resume", str(run), "--json")
    assert resumed.code == 0, resumed.err
    assert json.loads(resumed.out)["metrics"] == found["metrics"]


def test_predict_and_export(dlx_call, only_run):
    assert dlx_call("train", "model=stump", "data=function1d").code == 0
    Path("x.csv").write_text("-0.5\n0.5\n")
    call = dlx_call("predict", "@last", "x.csv", "--json")
    assert call.code == 0, call.err
    stump = [value for (value,) in json.loads(call.out)["predictions"][0]["values"]]
    assert len(set(stump)) <= 2
    assert dlx_call("export", "@last", "--format", "torch_export").code == 0
    flat = dlx_call("eval", "@last", "--sharpness")
    assert flat.code == 2
    assert "sharpness: is of one loss over weights; Stump has 0" in flat.err


def test_dry_run_says_that_there_are_no_steps(dlx_call, here):
    call = dlx_call("train", "model=stump", "--dry-run")
    assert call.code == 0, call.err
    assert "none: fitted in closed form" in call.out
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["reg=[l2]"], "regularization: does nothing for stump, which is fitted in closed form"),
        (["reg=[ema]"], "regularization: does nothing for stump"),
        (["trainer.ema=0.9"], "trainer.ema: does nothing for stump"),
        (["trainer.accumulate=2"], "trainer.accumulate: does nothing for stump"),
        (["trainer.compile=true"], "trainer.compile: does nothing for stump"),
        (["trainer.precision=bf16"], "trainer.precision: does nothing for stump"),
        (["model.loss=mse"], "model.loss: Stump has no such key"),
    ],
)
def test_what_needs_steps_is_refused(words, text, dlx_call, here):
    call = dlx_call("train", "model=stump", *words)
    assert call.code == 2
    assert text in call.err
    assert list(here.iterdir()) == []


def test_several_processes_are_refused(dlx_call, here, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    call = dlx_call("train", "model=stump")
    assert call.code == 2
    assert "by one process, not under torchrun" in call.err
    assert list(here.iterdir()) == []
