import pytest
import torch

from dlx.data.many_domains import ManyDomains
from dlx.data.two_domains import LIGHTS


def test_each_light_has_as_many_scenes_and_no_scene_is_in_two():
    data = ManyDomains(samples=40, side=16)
    assert data.spec.label.classes == tuple(LIGHTS)
    splits = data.splits()
    assert {name: part.tensors["label"].bincount().tolist() for name, part in splits.items()} == {
        "train": [40] * 3, "val": [4] * 3, "test": [4] * 3
    }  # fmt: skip
    image = splits["train"].tensors["image"].float().mean((2, 3)) / 255
    label = splits["train"].tensors["label"]
    kinds = ManyDomains(samples=40, side=16, label="kind")
    assert kinds.spec.label.classes == ("circle", "square", "triangle")
    assert torch.equal(kinds.splits()["train"].tensors["image"], splits["train"].tensors["image"])
    assert set(kinds.splits()["train"].tensors["label"].tolist()) == {0, 1, 2}
    means = torch.stack([image[label == number].mean(0) for number in range(3)])
    assert means.argmax(1).tolist() == [0, 2, 1]  # day is red, night blue, dusk green


def test_bad_settings_name_the_argument():
    for bad in ({"samples": 5}, {"side": 8}, {"kinds": 0}, {"label": "x"}):
        with pytest.raises(ValueError, match=f"^{next(iter(bad))}"):
            ManyDomains(**bad)


def test_what_an_image_is_in_another_light_is_known():
    data = ManyDomains(samples=20, side=16)
    image = data.splits()["test"].tensors["image"].float() / 255
    there = data.translated(image, "day", "night")
    torch.testing.assert_close(data.translated(there, "night", "day"), image, atol=1e-5, rtol=0)
    torch.testing.assert_close(data.translated(image, "dusk", "dusk"), image, atol=1e-5, rtol=0)
