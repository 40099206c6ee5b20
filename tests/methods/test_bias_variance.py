"""method=bias_variance: training sets drawn anew, the three parts and the error that is measured, bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dlx.config import Config
from dlx.runs.folder import RunFolder
from dlx.training.load import load_system

QUICK = ("model=mlp", "model.hidden=[8]", "trainer.max_steps=6")
CURVE = ("model=polynomial", "data.samples=40", "data.noise=0.3", "method=bias_variance", "method.replicates=8")


def call_json(dlx_call, *words):
    call = dlx_call(*words, "--json")
    assert call.code == 0, call.err
    return json.loads(call.out), call.err


def test_on_a_known_function_the_three_are_the_measured_error(dlx_call):
    found, err = call_json(dlx_call, "train", *CURVE, "model.degree=3")
    (row,), folder = found["members"], Path(found["run"])
    parts = {name.removeprefix("test/"): value for name, value in row["metrics"].items()}
    systems = [load_system(RunFolder(folder / "runs" / f"replicate-{n}")) for n in range(8)]
    x_N1 = torch.linspace(-1, 1, 1000).unsqueeze(1)
    with torch.no_grad():
        f_MN = torch.stack([system(x_N1)[:, 0] for system in systems]).double().numpy()
    truth_N, variance = torch.sin(3 * torch.pi * x_N1[:, 0]).numpy(), f_MN.var(0, ddof=1).mean()
    assert parts["variance"] == pytest.approx(variance, rel=1e-5)
    assert parts["bias2"] == pytest.approx(np.square(f_MN.mean(0) - truth_N).mean() - variance / 8, rel=1e-5)
    assert parts["noise"] == pytest.approx(0.09)
    total = parts["bias2"] + parts["variance"] + parts["noise"]
    assert abs(parts["error"] - total) < 3 * parts["error_standard_error"]
    assert f"{total:.4g}; measured error {parts['error']:.4g}" in err
    seeds = [Config.load(folder / "plan" / f"replicate-{n}.yaml")["dataset"]["data_seed"] for n in range(8)]
    assert seeds == list(range(8))
    assert (folder / "media" / "fits.png").stat().st_size > 10_000


def test_capacity_takes_bias_and_brings_variance(dlx_call):
    words = (*CURVE, "data.function=sinc", "model.degree=1,6,14", "--metric", "test/error:min")
    found, _ = call_json(dlx_call, "sweep", *words)
    rows = {int(row["differs"]["model.degree"]): row["metrics"] for row in found["members"]}
    assert rows[1]["test/bias2"] > rows[6]["test/bias2"]
    assert rows[1]["test/variance"] < rows[6]["test/variance"] < rows[14]["test/variance"]


def test_of_classes_they_add_up_exactly(dlx_call):
    found, err = call_json(dlx_call, "train", *QUICK, "method=bias_variance", "method.replicates=3")
    metrics, folder = found["members"][0]["metrics"], Path(found["run"])
    assert metrics["test/error"] == pytest.approx(metrics["test/bias"] + metrics["test/net_variance"], abs=1e-12)
    errors = [1 - RunFolder(folder / "runs" / f"replicate-{n}").summary()["test/accuracy"] for n in range(3)]
    assert metrics["test/error"] == pytest.approx(np.mean(errors))
    assert "variance where it costs" in err
    boots = [Config.load(folder / "plan" / f"replicate-{n}.yaml")["dataset"]["bootstrap"] for n in range(3)]
    assert boots == [0, 1, 2]
    assert (folder / "media" / "decomposition.png").is_file()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["data.bootstrap=0"], "dataset.bootstrap: must be null, got 0: the method sets it for each of its runs"),
        (["method.replicates=1"], "method.replicates: must be at least 2, got 1"),
        (["method.resample=data"], "method.resample: data needs a dataset with data_seed, digits has none"),
        (["method.resample=both"], "method.resample: must be one of data, bootstrap or null"),
        (["data.batch_size=2000"], "dataset.batch_size: 2000 is more than the"),
    ],
)
def test_bad_input_is_said_before_anything_is_written(words, text, dlx_call, here):
    call = dlx_call("train", *QUICK, "method=bias_variance", *words)
    assert call.code == 2
    assert text in call.err
    assert list(here.iterdir()) == []
