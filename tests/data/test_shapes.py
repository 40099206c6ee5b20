import pytest
import torch

from dlx.data.shapes import KINDS, Shapes


@pytest.fixture(scope="module")
def plain():
    dataset = Shapes(samples=60, side=48, objects=(1, 4), kinds=5, texture="plain")
    return dataset, dataset.splits()["train"].tensors


def test_boxes_are_tight_around_the_masks(plain):
    """Of separate objects each box's border touches pixels of its class, and all pixels of objects are in a box."""
    _, scenes = plain
    for mask, boxes in zip(scenes["mask"], scenes["boxes"], strict=True):
        covered = torch.zeros_like(mask, dtype=torch.bool)
        for x1, y1, x2, y2, kind in boxes[boxes[:, 4] >= 0].long().tolist():
            inside = mask[y1:y2, x1:x2] == kind + 1
            assert inside.any(0).all()
            assert inside.any(1).all()
            assert (mask[y1:y2, x1:x2][~inside] == 0).all()
            covered[y1:y2, x1:x2] = True
        assert (mask[~covered] == 0).all()


def test_objects_are_counted_and_padding_comes_last(plain):
    _, scenes = plain
    there = scenes["boxes"][..., 4] >= 0
    assert there[:, 0].all()
    assert set(there.sum(1).tolist()) == {1, 2, 3, 4}
    assert (there[:, :-1] | ~there[:, 1:]).all()


def test_the_label_is_of_the_largest_object(plain):
    _, scenes = plain
    boxes = scenes["boxes"]
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    assert torch.equal(scenes["label"], boxes[torch.arange(len(boxes)), area.argmax(1), 4].long())


def test_the_label_may_be_the_colour_of_the_largest_object():
    dataset = Shapes(samples=40, side=32, objects=(1, 1), colours=3, label="colour", extent=(0.4, 0.6), texture="plain")
    assert dataset.spec.label.classes == ("red", "green", "blue")
    scenes = dataset.splits()["train"].tensors
    assert set(scenes["label"].tolist()) == {0, 1, 2}
    for image, mask, label in zip(scenes["image"], scenes["mask"], scenes["label"], strict=True):
        assert image[:, mask > 0].float().mean(1).argmax() == label


def test_captions_name_what_is_there(plain):
    dataset, scenes = plain
    for text, boxes in zip(dataset.spec.caption.draw(scenes["caption"]), scenes["boxes"], strict=True):
        kinds = sorted(KINDS[int(kind)] for kind in boxes[boxes[:, 4] >= 0, 4])
        assert sorted(word for word in text.split() if word in KINDS) == kinds
        assert "\ufffd" not in text
        assert dataset.spec.caption.read(text).shape[1] <= dataset.spec.caption.length


def test_the_same_seed_draws_the_same_scenes():
    one, again, other = (
        Shapes(samples=20, side=32, data_seed=seed).splits()["train"].tensors["image"] for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_objects_may_hide_others():
    scenes = Shapes(samples=60, side=48, objects=(4, 6), overlap=True).splits()["train"].tensors["boxes"]
    a, b = scenes.unsqueeze(2), scenes.unsqueeze(1)
    wide = (torch.minimum(a[..., 2:4], b[..., 2:4]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    assert (wide.flatten(1).sum(1) > wide.diagonal(dim1=1, dim2=2).sum(1) + 4).any()


@pytest.mark.parametrize("side", [32, 96])
def test_stored_values_are_in_range(side):
    scenes = Shapes(samples=20, side=side, texture="pattern").splits()["train"].tensors
    assert scenes["image"].dtype == torch.uint8
    assert scenes["mask"].max() <= 3
    assert scenes["boxes"][..., :4].min() >= 0
    assert scenes["boxes"][..., :4].max() <= side


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"objects": (3, 1)}, "objects must be"), ({"kinds": 6}, "kinds must be"),
        ({"colours": 0}, "colours must be"), ({"extent": (0.1, 0.9)}, "extent"),
        ({"side": 24, "extent": (0.15, 0.3)}, "4 pixels at least"), ({"texture": "brick"}, "texture must be"),
    ],
)  # fmt: skip
def test_what_it_refuses(arguments, text):
    with pytest.raises(ValueError, match=text):
        Shapes(**arguments)
