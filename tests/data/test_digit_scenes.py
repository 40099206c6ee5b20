"""Scenes of real digits: boxes are tight, and no split shows a digit of another."""

import pytest
import torch

from dlx.data.digit_scenes import INK, DigitScenes
from dlx.data.digits import Digits
from dlx.data.scenes import GAP


@pytest.fixture(scope="module")
def plain():
    """Scenes without noise, so that what is brighter than the ground is ink."""
    return DigitScenes(samples=60, objects=(1, 4), extent=(0.2, 0.35), noise=0.0).splits()


def there(boxes):
    return boxes[boxes[:, 4] >= 0]


def test_the_parts_are_as_large_as_stated(plain):
    assert {name: len(source) for name, source in plain.items()} == {"train": 44, "val": 4, "test": 12}
    image, boxes = plain["train"].tensors["image"], plain["train"].tensors["boxes"]
    assert (image.shape, image.dtype) == ((44, 1, 64, 64), torch.uint8)
    assert boxes.shape == (44, 4, 5)
    count = (boxes[..., 4] >= 0).sum(1)
    assert count.min() == 1
    assert count.max() == 4
    assert (boxes[..., 4] >= 0).int().diff(dim=1).max() <= 0  # padding comes last
    assert boxes[boxes[..., 4] >= 0][:, 4].unique().tolist() == list(range(10))


def test_boxes_are_around_the_ink_and_apart(plain):
    """Ink that is no more than a share of full ink may lie outside, as a soft edge."""
    for image, boxes in zip(plain["train"].tensors["image"], plain["train"].tensors["boxes"], strict=True):
        ground = image.float().median()
        outside = (image[0].float() - ground) / (255 - ground)
        for x1, y1, x2, y2, _ in there(boxes).long().tolist():
            inside = outside[y1:y2, x1:x2]
            assert 5 <= y2 - y1 <= 24
            assert inside.max() > 0.4
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert edge.max() > 0.6 * INK  # the faintest ink is 0.7 of white
            outside[y1:y2, x1:x2] = 0
        assert outside.max() <= INK
        low, high = there(boxes)[:, None, :2], there(boxes)[:, None, 2:4]
        gap = (torch.maximum(low, low.transpose(0, 1)) - torch.minimum(high, high.transpose(0, 1))).amax(-1)
        assert (gap + 1e9 * torch.eye(len(gap)) >= GAP - 1).all()  # pixels at most half of which are another's


def test_no_split_shows_a_digit_of_another(monkeypatch):
    """And the test digits are those of the dataset `digits`."""
    from dlx.data.splits import SplitSettings

    shown = {}
    made = DigitScenes._scenes

    def note(self, name, count, digits):
        shown[name] = set(digits.index.tolist())
        return made(self, name, count, digits)

    monkeypatch.setattr(DigitScenes, "_scenes", note)
    DigitScenes(samples=20).splits()
    assert sum(map(len, shown.values())) == len(set().union(*shown.values())) == 1797
    assert shown["test"] == set(SplitSettings(split_seed=0).split(Digits())["test"].index.tolist())


def test_the_same_seed_draws_the_same_scenes():
    one, again, other = (
        DigitScenes(samples=20, data_seed=seed).splits()["test"].tensors["image"] for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_mean_and_std_are_those_of_the_images():
    image = DigitScenes(samples=300).splits()["train"].tensors["image"].float() / 255
    spec = DigitScenes().spec.image
    assert image.mean().item() == pytest.approx(spec.mean[0], abs=0.02)
    assert image.std().item() == pytest.approx(spec.std[0], abs=0.02)


def test_it_trains_a_detector(dlx_call):
    words = ("data=digit_scenes", "data.samples=40", "data.batch_size=8", "trainer.max_steps=2", "--quiet")
    done = dlx_call("train", "model=yolo", *words)
    assert done.code == 0, done.err
    refused = dlx_call("train", "model=yolo", *words, "data.extent=[0.05,0.5]")
    assert refused.code == 2
    assert "dataset.extent: must be a range within (0, 0.8], and 8 pixels at least" in refused.err
    assert len(refused.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"objects": (3, 1)}, "objects must be"), ({"extent": (0.1, 0.9)}, "extent must be"),
        ({"side": 24, "extent": (0.3, 0.5)}, "8 pixels at least"), ({"noise": 0.6}, "noise must be"),
        ({"samples": 5}, "samples must be"), ({"side": 8}, "side must be"),
    ],
)  # fmt: skip
def test_what_it_refuses(arguments, text):
    with pytest.raises(ValueError, match=text):
        DigitScenes(**arguments)
