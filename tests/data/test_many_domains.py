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
    means = torch.stack([image[label == number].mean(0) for number in range(3)])
    assert means.argmax(1).tolist() == [0, 2, 1]  # day is red, night blue, dusk green


def test_bad_settings_name_the_argument():
    for bad in ({"samples": 5}, {"side": 8}, {"kinds": 0}):
        with pytest.raises(ValueError, match=f"^{next(iter(bad))}"):
            ManyDomains(**bad)
