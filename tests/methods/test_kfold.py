"""method=kfold: every sample once out of fold, the mean over folds, a sweep that chooses by it, going on, bad input."""

import json
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch

from dlx.data.digits import Digits
from dlx.data.splits import SplitSettings
from dlx.runs.folder import RunFolder
from dlx.training.load import load_system

QUICK = ("model=mlp", "model.hidden=[8]", "trainer.max_steps=6")
THREE = (*QUICK, "method=kfold", "method.k=3")


def call_json(dlx_call, *words, code=0):
    call = dlx_call(*words, "--json")
    assert call.code == code, call.err
    return json.loads(call.out), call.err


def test_every_training_sample_is_predicted_once_by_the_network_that_did_not_see_it(dlx_call):
    found, err = call_json(dlx_call, "train", *THREE)
    (row,), folder = found["members"], Path(found["run"])
    saved = np.load(folder / "out_of_fold.npz")
    dataset = Digits()
    splits_of = [SplitSettings(fold=fold, folds=3).split(dataset) for fold in range(3)]
    pool = torch.cat([splits_of[0]["train"].index, splits_of[0]["val"].index]).sort().values
    assert saved["index"].tolist() == pool.tolist()
    source = dataset.splits()["train"]
    assert saved["label"].tolist() == source.tensors["label"][pool].tolist()
    for fold, splits in enumerate(splits_of):
        mine = saved["index"][saved["fold"] == fold]
        assert sorted(mine) == sorted(splits["val"].index.tolist())
        system = load_system(RunFolder(folder / "runs" / f"fold-{fold}"))
        with torch.no_grad():
            batch = {"image": system.spec.image.normalize(source.take(torch.from_numpy(mine))["image"])}
            expected = system.predict(batch)["probability"]
        np.testing.assert_allclose(saved["probability"][saved["fold"] == fold], expected, atol=1e-5)
    right = saved["probability"].argmax(1) == saved["label"]
    assert row["details"]["out_of_fold"]["accuracy"] == pytest.approx(right.mean())
    assert f"{right.mean():.4f} accuracy on 1437 samples" in err
    for picture in ("spread", "confusion"):
        assert (folder / "media" / f"{picture}.png").stat().st_size > 1000


def test_the_figures_are_the_mean_and_deviation_over_folds(dlx_call):
    found, _ = call_json(dlx_call, "train", *QUICK, "method=kfold", "method.k=2", "--executor", "processes")
    metrics = found["members"][0]["metrics"]
    runs = [RunFolder(Path(found["run"], "runs", f"fold-{fold}")).summary() for fold in range(2)]
    for name in ("val/accuracy", "test/loss"):
        values = [run[name] for run in runs]
        assert metrics[name] == pytest.approx(np.mean(values))
        assert metrics[f"{name}_std"] == pytest.approx(statistics.stdev(values))


def test_of_real_targets_the_predictions_are_kept(dlx_call):
    found, _ = call_json(dlx_call, "train", *THREE, "data=function1d", "data.samples=40", "data.batch_size=8")
    saved = np.load(Path(found["run"], "out_of_fold.npz"))
    mse = np.square(saved["prediction"] - saved["target"]).mean()
    assert len(saved["index"]) == 40
    assert found["members"][0]["details"]["out_of_fold"]["mse"] == pytest.approx(mse, rel=1e-5)


def test_a_sweep_chooses_by_cross_validation(dlx_call):
    found, err = call_json(dlx_call, "sweep", *THREE, "optim.lr=1e-9,1e-2")
    assert [row["name"] for row in found["members"]] == ["001-lr-0.01", "000-lr-1e-09"]
    assert found["best"] == "001-lr-0.01"
    assert f"best            {found['run']}/points/001-lr-0.01" in err
    assert Path(found["run"], "points", "001-lr-0.01", "out_of_fold.npz").is_file()


def test_one_that_was_cut_off_goes_on_inside_its_fold(dlx_call, sigterm_at):
    whole, _ = call_json(dlx_call, "train", *THREE)
    with sigterm_at(9):  # in the second fold
        cut, _ = call_json(dlx_call, "train", *THREE, code=143)
    assert not Path(cut["run"], "out_of_fold.npz").exists()
    resumed, _ = call_json(dlx_call, "resume", cut["run"])
    assert resumed["members"][0]["metrics"] == whole["members"][0]["metrics"]
    first, second = (np.load(Path(found["run"], "out_of_fold.npz")) for found in (whole, resumed))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_fold_that_is_given_too_is_said(dlx_call, here):
    lines = dlx_call("train", *THREE, "data.folds=10", "data.fold=3").err.splitlines()
    assert [line.partition(": the method")[0] for line in lines] == [
        "error: dataset.fold: must be null, got 3",
        "error: dataset.folds: must be null, got 10",
    ]
    call = dlx_call("sweep", *THREE, "data.fold=0,1", "--dry-run")
    assert call.code == 2
    assert "001-fold-1: dataset.fold: must be null, got 1" in call.err


@pytest.mark.parametrize("command", ["train", "sweep"])
@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["method.k=1"], "method.k: must be at least 2, got 1"),
        (["method.k=50", "data.subset=40"], "dataset.folds: 50 folds of 40 samples"),
        (["method.k=2", "data.subset=40", "data.batch_size=21"], "batch_size: 21 is more than the 20 training samples"),
        (["data.fold=3"], "dataset.fold: must be null, got 3: the method sets it for each of its runs"),
        (["model.dropout=2"], "model.dropout: must be in [0, 1), got 2.0"),
    ],
)
def test_bad_input_is_said_before_anything_is_written(command, words, text, dlx_call, here):
    call = dlx_call(command, *QUICK, "method=kfold", *words)
    assert call.code == 2
    assert text in call.err
    assert len(call.err.splitlines()) == 1
    assert list(here.iterdir()) == []
