import pytest
import torch

from dlx.data.captioned_shapes import CaptionedShapes
from dlx.data.shapes import COLOURS, KINDS


@pytest.fixture(scope="module")
def plain():
    dataset = CaptionedShapes(samples=200, label="both")
    scenes = dataset.splits()["train"].tensors
    return dataset.spec, scenes, dataset.spec.caption.draw(scenes["caption"])


def is_colour(image_CHW, colour):
    """Where an image has a colour, whatever its brightness, bool [H, W]."""
    wanted = torch.nn.functional.normalize(torch.tensor(COLOURS[colour]).float(), dim=0)
    return torch.einsum("chw,c->hw", torch.nn.functional.normalize(image_CHW.float(), dim=0), wanted) > 0.995


def test_a_caption_names_the_colours_where_they_are(plain):
    _, scenes, texts = plain
    compared = 0
    for image, text in zip(scenes["image"], texts, strict=True):
        colours = [word for word in text.split() if word in COLOURS]
        places = [is_colour(image, colour).nonzero().float() for colour in colours]
        assert all(len(place) >= 12 for place in places), text
        if len(set(colours)) == 2:
            axis = 0 if "above" in text else 1
            assert places[0][:, axis].mean() + 8 < places[1][:, axis].mean(), text
            compared += 1
    assert compared > 30


def test_a_caption_names_the_sizes(plain):
    _, scenes, texts = plain
    for image, text in zip(scenes["image"], texts, strict=True):
        first = text.split()[1]
        alone = {"circle": 1.0, "square": 1.03, "triangle": 0.41}  # of the area of a circle
        words = text.split()
        if first in ("small", "large") and len(words) == 4:
            radius = (is_colour(image, words[2]).sum() / (3.14 * alone[words[3]])).sqrt() / image.shape[1]
            assert (radius > 0.17) == (first == "large"), text


def test_attributes_and_label_say_what_the_caption_says(plain):
    spec, scenes, texts = plain
    told, labels = spec.attributes.draw(scenes["attributes"]), spec.label.draw(scenes["label"])
    for text, names, label in zip(texts, told, labels, strict=True):
        words = text.split()
        assert set(names.split(", ")) == {word for word in words if word in (*COLOURS, *KINDS)}
        assert text.index(label) == min(text.index(one) for one in spec.label.classes if one in text)


def test_a_typed_prompt_has_the_tokens_of_a_caption(plain):
    spec, _, _ = plain
    prompt = spec.caption.read("A small red circle above a blue square")
    assert spec.caption.draw(prompt) == ["a small red circle above a blue square"]
    longest = spec.caption.read("a small red circle left of a large blue square")
    assert longest.shape[1] == spec.caption.length


def test_the_same_seed_draws_the_same_scenes():
    one, again, other = (
        CaptionedShapes(samples=20, data_seed=seed).splits()["train"].tensors["image"] for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_one_object_each_and_more_kinds():
    dataset = CaptionedShapes(samples=60, objects=(1, 1), kinds=5, colours=6, label="colour", side=40)
    scenes = dataset.splits()["train"].tensors
    assert scenes["image"].shape == (60, 3, 40, 40)
    assert (scenes["attributes"].sum(1) == 2).all()
    assert dataset.spec.label.classes == tuple(COLOURS)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"objects": (0, 1)}, r"objects must be a range within 1\.\.2"), ({"objects": (1, 3)}, "objects must be"),
        ({"colours": 7}, "colours must be"), ({"kinds": 0}, "kinds must be"), ({"label": "size"}, "label must be"),
        ({"side": 15}, "side must be at least 16"),
    ],
)  # fmt: skip
def test_what_it_refuses(given, match):
    with pytest.raises(ValueError, match=f"^{match}"):
        CaptionedShapes(**given)
