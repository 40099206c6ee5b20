import pytest
import torch

from dlx.data.gaussians import SHAPES, STD, Gaussians


@pytest.mark.parametrize(("shape", "modes"), [("ring", 8), ("grid", 25)])
def test_points_lie_around_the_modes_that_the_spec_names(shape, modes):
    data = Gaussians(shape=shape, samples=5000)
    entry = data.spec.features
    assert len(entry.modes) == len(data.spec.label.classes) == modes
    tensors = data.splits()["train"].tensors
    offset = tensors["features"] - torch.tensor(entry.modes)[tensors["label"]]
    assert offset.std().item() == pytest.approx(entry.mode_std, rel=0.03)
    assert offset.mean(0).abs().max() < 5 * entry.mode_std / 5000**0.5
    assert tensors["label"].bincount().min() > 0.7 * 5000 / modes


def test_modes_do_not_overlap():
    for name, make in SHAPES.items():
        assert torch.pdist(make()).min() > 12 * STD[name]


def test_splits_are_drawn_apart_and_by_the_data_seed():
    splits = Gaussians(samples=100).splits()
    assert {name: len(part) for name, part in splits.items()} == {"train": 100, "val": 10, "test": 10}
    first = {name: part.tensors["features"][:10] for name, part in splits.items()}
    assert not torch.equal(first["val"], first["test"])
    assert torch.equal(first["val"], Gaussians(samples=100).splits()["val"].tensors["features"])
    assert not torch.equal(first["val"], Gaussians(samples=100, data_seed=1).splits()["val"].tensors["features"])


def test_bad_settings_name_the_argument():
    for bad in ({"shape": "line"}, {"std": 0.0}, {"samples": 3}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Gaussians(**bad)
