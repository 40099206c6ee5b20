"""The numbers behind bias_variance, bootstrap and ensemble; and that what a chain had done is not done again."""

import json
import math
from pathlib import Path

import pytest
import torch

from dlx.claims.bias_variance import family_verdict
from dlx.claims.bootstrap import Bootstrap, estimate_632_plus, left_out_error, no_information, replicate_shares
from dlx.claims.ensemble import EnsembleSize, growth
from dlx.methods.predictions import Predictions
from dlx.tasks.classification import Classification
from dlx.tasks.spec import Image, Label, LabeledImages

SPEC = LabeledImages(
    image=Image(channels=1, height=1, width=1, mean=(0.0,), std=(1.0,)), label=Label(classes=("a", "b"))
)
TARGET = Classification(SPEC, "image", "label", "cross_entropy")


def test_the_share_of_a_replicate():
    for n in (1, 2, 10, 200):
        found = replicate_shares(n, 4000)
        assert sum(found) / 4000 == pytest.approx(1 - (1 - 1 / n) ** n, abs=0.02)
    assert set(replicate_shares(2, 50)) == {0.5, 1.0}


def test_the_left_out_error_by_hand():
    """Sample 0 is left out by both replicates, one of which is wrong; 1 by the second, which is right; 2 by none."""
    wrong_MN = torch.tensor([[True, True, True], [False, False, True]])
    left_out_MN = torch.tensor([[True, False, False], [True, True, False]])
    assert left_out_error(wrong_MN, left_out_MN) == pytest.approx(0.25)


def test_632_plus():
    """Without overfitting it is 0.632; where the left-out error is a guess's it is that."""
    assert estimate_632_plus(0.1, 0.1, 0.9) == pytest.approx(0.1)
    assert estimate_632_plus(0.0, 0.9, 0.9) == pytest.approx(0.9)
    assert estimate_632_plus(0.0, 0.95, 0.9) == pytest.approx(0.9)
    assert estimate_632_plus(0.1, 0.2, 0.9) == pytest.approx(0.1 + 0.1 * 0.632 / (1 - 0.368 / 8))
    assert no_information(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 1])) == pytest.approx(
        1 - 0.5 / 4 - 0.75 / 4
    )


def test_the_verdict_of_the_bootstrap():
    measured = {
        "sizes": {"2": (0.75, 0.01)}, "share": (0.632, 0.01), "n": 100, "train": [0.0, 0.0], "oob": [0.2, 0.22],
        "632": [0.126, 0.139], "632+": [0.14, 0.15], "test": [0.13, 0.13],
    }  # fmt: skip
    assert Bootstrap().verdict(measured).held
    assert not Bootstrap().verdict({**measured, "test": [0.2, 0.22]}).held
    assert not Bootstrap().verdict({**measured, "sizes": {"2": (0.8, 0.01)}}).held


def test_the_verdict_of_the_tradeoff():
    def parts(errors, variances):
        return {
            str(n): {"bias2": 1 / (n + 1), "variance": variance, "expected": [error, error + 0.1]}
            for n, (error, variance) in enumerate(zip(errors, variances, strict=True))
        }

    assert family_verdict(parts([3, 1, 2], [1, 2, 3])).held
    assert not family_verdict(parts([3, 2, 1], [1, 2, 3])).held  # no U
    assert not family_verdict(parts([3, 1, 2], [3, 2, 1])).held  # the variance falls
    assert not family_verdict(
        {**parts([3, 1, 2], [1, 2, 3]), "2": {"bias2": 5, "variance": 3, "expected": [2, 2]}}
    ).held


def test_the_error_of_one_is_the_mean_over_who_comes_first():
    p_MN = torch.tensor([[0.9, 0.4], [0.2, 0.3], [0.9, 0.9]])
    output_MNK = torch.stack([1 - p_MN, p_MN], -1).log()
    samples = Predictions(TARGET, torch.arange(2), torch.zeros(2, 1), torch.tensor([1, 1]), output_MNK)
    assert growth(samples) == pytest.approx([0.5, 1 / 6, 0])


def test_the_verdict_of_the_ensemble_is_about_bagging():
    measured = {
        "seeds": [[0.2, 0.15, 0.1], [0.21, 0.16, 0.1]], "bagging": [[0.22, 0.15, 0.1], [0.22, 0.15, 0.1]],
        "boosting": [[0.3] * 3, [0.3] * 3],
    }  # fmt: skip
    verdict = EnsembleSize(members=3).verdict(measured)
    assert verdict.held
    assert "boosting does not beat" in verdict.line
    assert not EnsembleSize(members=3).verdict({**measured, "bagging": [[0.22, 0.23, 0.24]] * 2}).held


def test_a_chain_inside_goes_on_where_it_was(dlx_call):
    words = ("experiment.members=3", "experiment.sets=2", "trainer.epochs=1", "model.hidden=[8]")
    call = dlx_call("train", "experiment=ensemble", *words, "--json")
    assert call.code == 0, call.err
    found = json.loads(call.out)
    chains = sorted(Path(found["run"], "runs").glob("set-*-boosting/*/runs/member-000/metrics.jsonl"))
    assert len(chains) == 2
    before = [path.stat().st_mtime_ns for path in chains]
    again = json.loads(dlx_call("resume", found["run"], "--json").out)
    assert again["metrics"] == found["metrics"]
    assert sorted(Path(found["run"], "runs").glob("set-*-boosting/*/runs/member-000/metrics.jsonl")) == chains
    assert [path.stat().st_mtime_ns for path in chains] == before
    assert [row["run"] for row in json.loads(dlx_call("runs", "--json").out)] == [Path(found["run"]).name]
    assert not math.isnan(found["metrics"]["boosting"][0][0])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["experiment=ensemble", "experiment.members=2"], "experiment.members: must be at least 3, got 2"),
        (["experiment=bootstrap", "experiment.sets=1"], "experiment.sets: must be at least 2, got 1"),
        (["experiment=bias_variance", "experiment.degrees=[3,2,1]"], "experiment.degrees: must be at least 3, rising"),
        (["experiment=bias_variance", "experiment.mlp_samples=5"], "experiment.mlp_samples: must be at least 10"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(words, text, dlx_call, here):
    call = dlx_call("train", *words)
    assert call.code == 2
    assert text in call.err
    assert list(here.iterdir()) == []
