"""The numbers behind the claims about SimCLR: verdicts of made-up numbers, subsets, members."""

import pytest

from dlx.claims.contrastive_features import ContrastiveFeatures, classes_of, settings, with_validation
from dlx.claims.simclr_ablation import WITHOUT, SimCLRAblation
from dlx.config import compose


@pytest.mark.parametrize(
    ("simclr", "random", "alone", "held"),
    [(0.6, 0.3, 0.4, True), (0.6, 0.7, 0.4, False), (0.6, 0.3, 0.65, False)],
)
def test_the_probe_on_simclrs_features_is_above_both(simclr, random, alone, held):
    reached = {"simclr": simclr, "random": random, "alone": alone, "views": 0.62}
    found = {name: {"10": [x - 0.01, x + 0.01]} for name, x in reached.items()}
    verdict = ContrastiveFeatures(labels=(1, 10)).verdict({**found, "guess": 0.2})
    assert verdict.held is held
    assert "at 10 labels of each class" in verdict.line


@pytest.mark.parametrize("count", [5, 15, 50, 150, 500])
def test_a_subset_leaves_as_many_to_train_on(count):
    size = with_validation(count)
    assert size - -(-size // 10) == count


def test_the_network_trained_alone_is_the_encoder_without_and_with_the_same_views():
    base = compose(["experiment=contrastive_features"])
    assert classes_of(base) == 5
    members = ContrastiveFeatures(labels=(1, 10), seeds=1)._members(base, 1)
    alone, encoder = members["alone-10-0"], base["model"]["encoder"]
    assert alone["model"] == {key: value for key, value in encoder.items() if key != "name"}
    views = {key: value for key, value in base["model"]["augmentation"].items() if key != "name"}
    assert not alone["regularization"]
    assert members["views-10-0"]["regularization"]["simclr_views"] == views
    assert alone["dataset"]["subset"] == 56
    assert members["random-0"]["optimizer"]["lr"] == 0
    assert settings("model", {"name": "vgg", "depth": None, "batch_norm": True}) == [
        "model.depth=null", "model.batch_norm=true",
    ]  # fmt: skip


def ablated(**changed):
    found = {name: [0.6] for name in WITHOUT}
    return {
        "augmentation": {**found, **{name.replace("_", " "): [x] for name, x in changed.items()}},
        "temperature": {"0.1": [0.5], "0.5": [0.6]},
        "batch": {"32": [0.6], "64": [0.5]},
    }


@pytest.mark.parametrize(
    ("changed", "held"),
    [
        ({"no_color": 0.4, "crop_alone": 0.3}, True),
        ({"no_color": 0.7, "crop_alone": 0.3}, False),
        ({"no_color": 0.4, "crop_alone": 0.7}, False),
        ({"no_color": 0.4, "crop_alone": 0.3, "no_crop": 0.7}, True),
    ],
)
def test_color_cannot_be_left_out(changed, held):
    verdict = SimCLRAblation(temperatures=(0.1, 0.5), batches=(32, 64)).verdict(ablated(**changed))
    assert verdict.held is held
    assert "temperature 0.5, batch 32" in verdict.line


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ContrastiveFeatures(labels=(10,)), "labels must be at least 2, rising"),
        (lambda: ContrastiveFeatures(bar=7), "bar must be one of labels"),
        (lambda: ContrastiveFeatures(steps=0), "steps must be at least 1"),
        (lambda: SimCLRAblation(temperatures=(0.5, 0.1)), "temperatures must be at least 2, rising"),
        (lambda: SimCLRAblation(epochs=0), "epochs must be at least 1"),
    ],
)
def test_a_value_out_of_range_is_named(make, text):
    with pytest.raises(ValueError, match=f"^{text}"):
        make()
