"""Entries and specs: what a batch holds, how it is read and drawn, and how it survives in a run folder."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from dlx.config.build import without_targets
from dlx.config.errors import UserError
from dlx.runs.folder import RunFolder
from dlx.tasks.spec import (
    AttributedImages,
    Attributes,
    BoxedImages,
    Boxes,
    CaptionedImages,
    Entry,
    Episode,
    Image,
    Images,
    Label,
    LabeledImages,
    LabeledReals,
    LabeledTokens,
    Mask,
    MaskedImages,
    Match,
    MatchedImages,
    Points,
    Proposals,
    Reals,
    RealSequence,
    RegressionReals,
    Size,
    Spec,
    Streams,
    TokenLabels,
    Tokens,
    Translations,
    UnpairedImages,
    normalize,
)
from dlx.tasks.supervised import Supervised
from dlx.tasks.tokenizer import Characters, load_tokenizer
from dlx.training.load import load_spec, spec_from

seeded = settings(derandomize=True, deadline=None, max_examples=40)
GRAY = Image(channels=1, height=12, width=12, mean=(0.3,), std=(0.25,))
COLOR = Image(channels=3, height=6, width=4, mean=(0.2, 0.5, 0.7), std=(0.1, 0.3, 0.6))
LETTERS = Characters("abc ", first=2)
TEXT = Tokens(vocabulary=6, length=5, pad=0, tokenizer=LETTERS.to_json())
KINDS = {
    "image": (COLOR, (3, 6, 4), torch.float32),
    "size": (Size(), (2,), torch.int64),
    "label": (Label(classes=("cat", "dog", "bird")), (), torch.int64),
    "attributes": (Attributes(names=("red", "round")), (2,), torch.float32),
    "reals": (Reals(size=3), (3,), torch.float32),
    "boxes": (Boxes(classes=("cat", "dog"), most=4), (4, 5), torch.float32),
    "mask": (Mask(classes=("ground", "cat"), height=6, width=4), (6, 4), torch.int64),
    "proposals": (Proposals(most=7), (7, 4), torch.float32),
    "tokens": (TEXT, (5,), torch.int64),
    "token labels": (TokenLabels(classes=("noun", "verb"), length=5), (5,), torch.int64),
    "real sequence": (RealSequence(length=6, size=2), (6, 2), torch.float32),
    "episode": (Episode(), (), torch.int64),
    "match": (Match(), (), torch.int64),
}


@dataclass(frozen=True, kw_only=True)
class Photos(Spec):
    image: Image
    size: Size
    boxes: Boxes
    targets = ("boxes",)


PHOTOS = Photos(image=GRAY, size=Size(), boxes=Boxes(classes=("cat",), most=2))


# Examples


def test_every_kind_is_in_the_table():
    assert {type(entry) for entry, *_ in KINDS.values()} == set(Entry.__subclasses__())


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("count", [0, 1, 5])
def test_an_example_has_the_kinds_dtype_and_shape(name, count):
    entry, shape, dtype = KINDS[name]
    example = entry.example(count)
    assert (entry.shape, entry.dtype) == (shape, dtype)
    assert (example.shape, example.dtype) == ((count, *shape), dtype)


def test_an_example_is_in_range():
    assert set(KINDS["label"][0].example(7).tolist()) == {0, 1, 2}
    assert ((COLOR.denormalize(COLOR.example(2)) >= 0) & (COLOR.denormalize(COLOR.example(2)) <= 1)).all()
    assert (KINDS["size"][0].example(2) >= 1).all()
    assert (TEXT.example(2) < TEXT.vocabulary).all()
    for name in ("boxes", "proposals"):
        x1, y1, x2, y2 = KINDS[name][0].example(2)[..., :4].unbind(-1)
        assert ((x1 < x2) & (y1 < y2)).all()
    assert (KINDS["boxes"][0].example(2)[..., 4] == 0).all()


def test_an_example_of_a_spec_has_an_index():
    batch = PHOTOS.example(3)
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        "image": (3, 1, 12, 12), "size": (3, 2), "boxes": (3, 2, 5), "index": (3,),
    }  # fmt: skip
    assert batch["index"].dtype == torch.int64


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("image", torch.uint8), ("image", torch.float64), ("reals", torch.float64), ("reals", torch.int16),
        ("mask", torch.uint8), ("tokens", torch.int16),
        ("label", torch.uint8), ("label", torch.int32), ("attributes", torch.bool), ("boxes", torch.float64),
        ("size", torch.int32), ("proposals", torch.int16), ("episode", torch.int32),
    ],
)  # fmt: skip
def test_what_is_stored_otherwise_is_read_as_the_kinds_dtype(name, dtype):
    """cross_entropy takes no int32, and the loss of attributes no booleans: such data end at the first step."""
    entry, _, kind = KINDS[name]
    assert entry.normalize(entry.example(2).to(dtype)).dtype == kind


def test_lists_are_as_good_as_tuples():
    """classes=["cat", "dog"] is what a person writes."""
    spec = LabeledImages(image=replace(GRAY, mean=[0.3], std=[0.25]), label=Label(classes=["cat", "dog"]))
    assert hash(spec) == hash(LabeledImages(image=GRAY, label=Label(classes=("cat", "dog"))))
    assert spec_from(json.loads(json.dumps(spec.to_dict())), {}) == spec


# Images: levels and ranges


means = st.floats(0, 1, width=32)
stds = st.floats(0.0625, 2, width=32)


def all_levels(image: Image) -> torch.Tensor:
    levels = torch.arange(int(image.scale) + 1, dtype=torch.uint8)
    return levels.view(-1, 1, 1, 1).expand(-1, *image.shape)


@seeded
@given(means, stds, st.sampled_from([16.0, 255.0]))
def test_levels_are_exact(mean, std, scale):
    image = Image(channels=1, height=1, width=1, mean=(mean,), std=(std,), scale=scale)
    raw = all_levels(image)
    levels = image.levels(image.normalize(raw))
    assert levels.dtype == torch.int64
    assert torch.equal(levels, raw.long())


def test_levels_are_exact_in_each_channel_and_clamped():
    raw = all_levels(COLOR)
    assert torch.equal(COLOR.levels(COLOR.normalize(raw)), raw.long())
    far = torch.tensor([-100.0, 100.0]).view(2, 1, 1, 1).expand(2, *COLOR.shape)
    assert COLOR.levels(far).unique().tolist() == [0, 255]


@seeded
@given(st.floats(-4, 4, width=32), st.floats(0.0625, 8, width=32), st.sampled_from([16.0, 255.0]))
def test_in_range_puts_black_and_full_brightness_where_it_says(low, width, scale):
    image = replace(COLOR, scale=scale).in_range(low, low + width)
    raw = all_levels(image)
    x = image.normalize(raw)
    tolerance = 1e-5 * (1 + abs(low) + width)
    assert (x[0] - low).abs().max() < tolerance
    assert (x[-1] - (low + width)).abs().max() < tolerance
    assert torch.equal(image.levels(x), raw.long())
    assert (image.channels, image.height, image.width) == (3, 6, 4)


def test_normalizing_and_back():
    raw = all_levels(COLOR)
    torch.testing.assert_close(COLOR.denormalize(COLOR.normalize(raw)), raw / 255)
    pixels = COLOR.draw(COLOR.normalize(raw))
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (256, 6, 4, 3))
    assert torch.equal(pixels, raw.permute(0, 2, 3, 1))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalizing_leaves_what_is_stored(dtype):
    raw = (torch.rand(2, 3, 6, 4) * 255).to(dtype)
    before = raw.clone()
    COLOR.normalize(raw)
    assert torch.equal(raw, before)


# Images: files


def save(path: Path, pixels: np.ndarray) -> Path:
    Picture.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def test_a_picture_of_the_same_size_is_read_exactly(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3))
    x = COLOR.read(save(tmp_path / "a.png", pixels))
    assert torch.equal(COLOR.levels(x)[0].permute(1, 2, 0), torch.from_numpy(pixels))
    coarse = replace(GRAY, height=1, width=256, scale=16.0)
    x = coarse.read(save(tmp_path / "b.png", np.arange(256)[None]))
    wanted = (torch.arange(256) * 16 / 255).round().long()
    assert torch.equal(coarse.levels(x).flatten(), wanted)


@pytest.mark.parametrize("shape", [(12, 12), (40, 20), (20, 40), (5, 7), (300, 10), (1, 1)])
def test_a_picture_of_another_size_fills_the_image(shape, tmp_path):
    x = GRAY.read(save(tmp_path / "a.png", np.full(shape, 90)))
    assert x.shape == (1, 1, 12, 12)
    assert GRAY.levels(x).unique().tolist() == [90]


@pytest.mark.parametrize("shape", [(12, 12), (40, 20), (20, 40), (6, 8), (97, 31), (300, 10), (3, 100), (1, 1)])
def test_the_scale_of_a_whole_picture_maps_its_pixels_back_to_the_file(shape, tmp_path):
    """A bright box, from an eighth to three quarters of each side, is found within a pixel of the batch."""
    height, width = shape
    pixels, box = np.zeros(shape), [width // 8, height // 8, -(-3 * width // 4), -(-3 * height // 4)]
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    x, size, scale = GRAY.read_whole(save(tmp_path / "a.png", pixels))
    assert x.shape == (1, 1, 12, 12)
    assert max(size) == 12
    assert all(abs(own - side * scale) <= 1 for own, side in zip(size, shape, strict=True))
    bright = (GRAY.denormalize(x)[0, 0] > 0.5) & (torch.arange(12) < size[1]) & (torch.arange(12) < size[0])[:, None]
    if bright.any():  # a box thinner than a pixel of the batch may be lost
        rows, columns = bright.nonzero(as_tuple=True)
        found = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / scale
        assert (found - torch.tensor(box)).abs().max() <= 1 / scale
    else:
        assert min(size) == 1


def test_a_whole_picture_is_padded_with_zeros(tmp_path):
    x, size, scale = GRAY.read_whole(save(tmp_path / "a.png", np.full((40, 20), 255)))
    assert (size, scale) == ((12, 6), 0.3)
    assert (x[..., :6] == GRAY.normalize(torch.full((1, 1, 12, 6), 255))).all()
    assert (x[..., 6:] == 0).all()


def test_a_spec_with_sizes_reads_pictures_whole(tmp_path):
    path = save(tmp_path / "a.png", np.full((40, 20), 255))
    batch = PHOTOS.read("image", path)
    assert batch.keys() == {"image", "size", "scale", "file_size"}
    assert batch["image"].shape == (1, 1, 12, 6)
    assert batch["size"].tolist() == [[12, 6]]
    assert batch["file_size"].tolist() == [[40, 20]]
    small = PHOTOS.read("image", save(tmp_path / "b.png", np.full((4, 8), 255)))
    assert small["size"].tolist() == [[4, 8]]
    bound = replace(PHOTOS, size=Size(bound=(16, 16)))
    assert bound.read("image", tmp_path / "b.png")["size"].tolist() == [[8, 16]]
    assert bound.read("image", path)["size"].tolist() == [[16, 8]]
    assert (batch["scale"].dtype, batch["scale"].shape) == (torch.float32, (1,))
    assert batch["scale"].item() == pytest.approx(0.3)
    plain = Images(image=GRAY).read("image", path)
    assert plain.keys() == {"image"}
    assert (plain["image"] > 0).all()


def test_where_places_are_told_nothing_of_a_picture_is_cut_off(tmp_path):
    path = save(tmp_path / "a.png", np.full((40, 20), 255))
    mask = Mask(classes=("a", "b"), height=12, width=12)
    for spec in (MaskedImages(image=GRAY, mask=mask), BoxedImages(image=GRAY, boxes=Boxes(classes=("a",), most=1))):
        batch = spec.read("image", path)
        assert batch["image"].shape == (1, 1, 12, 12)
        assert (batch["image"][..., 6:] == 0).all()
        assert batch["size"].tolist() == [[12, 6]]


def test_what_is_no_picture_is_one_line(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    for path in (tmp_path / "a.png", tmp_path / "none.png", tmp_path):
        for read in (GRAY.read, GRAY.read_whole):
            with pytest.raises(UserError, match="not an image that can be read"):
                read(path)


# Labels, attributes, real numbers


CLASSES = Label(classes=("cat", "dog", "bird"))


def test_a_label_is_read_by_name_and_number():
    assert CLASSES.read("dog").tolist() == [1]
    assert CLASSES.read(Path("bird")).tolist() == [2]
    assert CLASSES.read("0").tolist() == [0]
    assert Label(classes=("1", "0")).read("0").tolist() == [1]  # a name before a number


@pytest.mark.parametrize("text", ["brid", "3", "-1", "1.0", ""])
def test_an_unknown_label_names_the_nearest(text):
    with pytest.raises(UserError, match="unknown class") as error:
        CLASSES.read(text)
    assert ("did you mean bird?" in str(error.value)) == (text == "brid")
    assert "cat, dog, bird" in str(error.value)


def test_of_many_classes_the_first_are_named():
    with pytest.raises(UserError) as error:
        Label(classes=tuple(f"class{n}" for n in range(1000))).read("x")
    assert str(error.value).endswith("class19, ...")


def test_a_digit_that_is_no_number_is_an_unknown_class():
    with pytest.raises(UserError, match="unknown class"):
        CLASSES.read("²")


def test_labels_are_drawn_as_names():
    assert CLASSES.draw(torch.tensor([2, 0])) == ["bird", "cat"]
    assert CLASSES.draw(torch.tensor([[0.1, 0.6, 0.3]])) == ["dog"]


@seeded
@given(st.sets(st.sampled_from(["red", "round", "big"])))
def test_attributes_are_read_as_they_are_drawn(holding):
    entry = Attributes(names=("red", "round", "big"))
    value = entry.read(", ".join(holding))
    assert (value.dtype, value.shape) == (torch.float32, (1, 3))
    assert value.sum() == len(holding)
    (text,) = entry.draw(value)
    assert torch.equal(entry.read(text), value)


def test_an_unknown_attribute_names_the_nearest():
    with pytest.raises(UserError, match="did you mean round"):
        Attributes(names=("red", "round")).read("red,rund")


def test_rows_of_numbers_are_read_from_files(tmp_path):
    entry, rows = Reals(size=2), np.array([[1.5, -2], [3, 4]])
    np.save(tmp_path / "a.npy", rows)
    np.savetxt(tmp_path / "b.csv", rows, delimiter=",", header="x,y", comments="")
    np.savetxt(tmp_path / "c.csv", rows, delimiter=",")
    for name in ("a.npy", "b.csv", "c.csv"):
        value = entry.read(tmp_path / name)
        assert value.dtype == torch.float32
        assert value.tolist() == rows.tolist()
    assert entry.draw(entry.read(tmp_path / "a.npy")) == ["1.5 -2", "3 4"]
    (tmp_path / "empty.csv").write_text("x,y\n")
    for name, text in (("a.npy", "3 numbers per row"), ("empty.csv", "no rows")):
        with pytest.raises(UserError, match=text):
            Reals(size=3).read(tmp_path / name)


@pytest.mark.parametrize("name", ["none.csv", "1,2", "."])
def test_rows_of_no_file_are_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        Reals(size=2).read(name)


# Tokens


@seeded
@given(st.text("abc ", min_size=1, max_size=5))
def test_a_text_is_read_as_it_is_drawn(text):
    tokens = TEXT.read(text)
    assert (tokens.dtype, tokens.shape) == (torch.int64, (1, len(text)))
    assert ((tokens >= 2) & (tokens < TEXT.vocabulary)).all()
    padded = torch.nn.functional.pad(tokens, (0, 5 - len(text)), value=TEXT.pad)
    assert TEXT.draw(padded) == [text]


@seeded
@given(st.text(min_size=1, max_size=30), st.integers(0, 5))
def test_any_alphabet_goes_both_ways(alphabet, first):
    entry = Tokens(vocabulary=40, length=30, tokenizer=Characters(alphabet, first).to_json())
    assert entry.draw(entry.read(alphabet)) == [alphabet]


def test_a_text_is_read_from_a_file_too(tmp_path):
    (tmp_path / "a.txt").write_text("abc")
    assert TEXT.read(tmp_path / "a.txt").tolist() == [[2, 3, 4]]
    assert Streams(tokens=TEXT).read("tokens", "ab")["tokens"].tolist() == [[2, 3, 0, 0, 0]]


def test_marks_and_padding_are_not_drawn():
    assert TEXT.draw(torch.tensor([[1, 2, 3, 0, 0]])) == ["ab"]
    numbers = replace(TEXT, tokenizer=None)
    assert numbers.draw(torch.tensor([[1, 2, 3, 0, 0]])) == ["1 2 3"]
    assert replace(numbers, pad=None).draw(torch.tensor([[1, 0]])) == ["1 0"]


def test_texts_that_cannot_be_read_are_one_line():
    for entry, text, words in (
        (TEXT, "abcabc", "has 6 tokens; at most 5 are read"),
        (TEXT, "axb", "characters that the vocabulary lacks: 'x'"),
        (TEXT, "", "holds no tokens"),
        (replace(TEXT, tokenizer=None), "ab", "have no tokenizer"),
        (replace(TEXT, tokenizer="{"), "ab", "not a tokenizer"),
    ):
        with pytest.raises(UserError, match=words) as error:
            entry.read(text)
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["", "[]", "5", "null", '{"type": "bpe"}', '{"type": "characters"}'])
def test_what_is_no_tokenizer_is_said(text):
    with pytest.raises(UserError, match="not a tokenizer that dlx knows"):
        load_tokenizer(text)


def test_a_file_that_is_no_text_is_one_line(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\xff")
    with pytest.raises(UserError, match="no text"):
        TEXT.read(tmp_path / "a.png")


def test_a_message_about_a_file_is_short_and_names_it(tmp_path):
    (tmp_path / "a.txt").write_text("ab\nx" * 1000)
    with pytest.raises(UserError) as error:
        TEXT.read(tmp_path / "a.txt")
    message = str(error.value)
    assert "a.txt" in message
    assert len(message) < 300
    assert len(message.splitlines()) == 1


def test_the_line_break_at_the_end_of_a_file_is_no_token(tmp_path):
    (tmp_path / "a.txt").write_text("abc\n")
    assert TEXT.read(tmp_path / "a.txt").tolist() == [[2, 3, 4]]


def test_tokens_beyond_the_alphabet_are_drawn_as_unknown():
    """`vocabulary` says how many tokens there are, and a model may draw each."""
    assert replace(TEXT, vocabulary=8).draw(torch.tensor([[2, 7, 3]])) == ["a\N{REPLACEMENT CHARACTER}b"]


class Flat(Supervised):
    """All tokens side by side."""

    def __init__(self, *, spec: LabeledTokens) -> None:
        super().__init__(spec=spec)
        self.net = torch.nn.Sequential(torch.nn.Embedding(6, 2), torch.nn.Flatten(), torch.nn.Linear(10, 2))

    def forward(self, tokens):
        return self.net(tokens)


def test_a_short_text_is_read_as_a_training_reads_it():
    """Without `lengths` a system sees all texts at the full length: `dlx predict RUN ab` ends in a shape mismatch."""
    spec = LabeledTokens(tokens=TEXT, label=Label(classes=("early", "late")))
    assert Flat(spec=spec).predict(spec.read("tokens", "ab"))["label"].shape == (1,)


# What the other kinds draw


def test_boxes_are_drawn_without_their_padding():
    entry = Boxes(classes=("cat", "dog"), most=3)
    boxes = torch.full((2, 3, 5), -1.0)
    boxes[0, 0] = torch.tensor([1, 2, 3.4, 5.6, 1])
    assert entry.draw(boxes) == ["dog 1 2 3 6", ""]


@pytest.mark.parametrize("void", [255, -1, 3])
def test_each_class_of_a_mask_has_a_color_and_void_is_black(void):
    entry = Mask(classes=("ground", "cat", "dog"), height=2, width=2, void=void)
    pixels = entry.draw(torch.tensor([[[0, 1], [2, void]]]))
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (1, 2, 2, 3))
    colors = [tuple(color) for color in pixels.view(4, 3).tolist()]
    assert colors[3] == (0, 0, 0)
    assert len(set(colors)) == 4
    assert entry.normalize(torch.zeros(1, 2, 2, dtype=torch.uint8)).dtype == torch.int64


@pytest.mark.parametrize("name", [name for name in KINDS if name != "episode"])
def test_every_kind_draws_its_example(name):
    drawn = KINDS[name][0].draw(KINDS[name][0].example(3))
    assert len(drawn) == 3
    assert isinstance(drawn, torch.Tensor) or all(isinstance(text, str) for text in drawn)


def test_an_episode_draws_seeds_as_numbers_and_pictures_as_they_are():
    assert Episode().draw(Episode().example(3)) == ["0", "0", "0"]
    pixels = torch.zeros(2, 4, 6, 3, dtype=torch.uint8)
    assert Episode().draw(pixels) is pixels


def test_films_of_episodes_have_frames_that_can_be_shown():
    """A step may be faster than a frame."""

    class Fast(Episode):
        step_seconds = 0.02

    assert (Fast().steps_per_frame, Fast().frame_seconds) == (3, pytest.approx(0.06))
    assert (Episode().steps_per_frame, Episode().frame_seconds) == (1, 0.1)
    with pytest.raises(NotImplementedError, match="Episode defines no begin"):
        Episode().begin(torch.zeros(1))


@pytest.mark.parametrize("name", ["size", "boxes", "mask", "proposals", "episode"])
def test_what_is_not_read_from_files_says_so(name):
    with pytest.raises(UserError, match="is not read from files"):
        KINDS[name][0].read("a")


# Specs


def test_entries_are_inputs_and_targets():
    assert list(PHOTOS.entries) == ["image", "size", "boxes"]
    assert list(PHOTOS.inputs) == ["image", "size"]
    assert PHOTOS.of_kind(Boxes) == {"boxes": PHOTOS.boxes}
    assert PHOTOS.of_kind(Boxes, of="image") == {"boxes": PHOTOS.boxes}
    assert PHOTOS.of_kind(Boxes, of="image_2") == {}
    assert list(PHOTOS.of_kind(Entry)) == list(PHOTOS.entries)


def test_narrowing_keeps_what_a_spec_class_asks_for():
    whole = LabeledImages(image=GRAY, label=CLASSES)
    narrow = whole.narrow(Images)
    assert type(narrow) is Images
    assert list(narrow.entries) == ["image"]
    assert narrow.targets == ()
    assert whole.narrow(LabeledImages) is whole
    assert PHOTOS.narrow(Images).image is GRAY


def test_an_entry_that_may_be_left_out_is_none_until_it_is_asked_for():
    proposed = LabeledImages(image=GRAY, label=CLASSES, proposals=Proposals(most=3))
    assert list(LabeledImages(image=GRAY, label=CLASSES).entries) == ["image", "label"]
    assert set(proposed.entries) == {"image", "label", "proposals"}
    assert set(proposed.narrow(LabeledImages).entries) == {"image", "label"}


def test_a_trunk_reads_the_inputs_alone():
    """So no model can be a part by option on data without proposals: model.trunk={name: resnet} on digits."""
    spec = without_targets(LabeledImages(image=GRAY, label=CLASSES), "dlx.models.vision.cnn.CNN", "model.trunk")
    assert spec == Images(image=GRAY)


# spec.json


texts = st.text(max_size=8)
names = st.lists(texts, min_size=1, max_size=4).map(tuple)
counts = st.integers(1, 2**40)
numbers = st.floats(allow_nan=False, allow_infinity=False)
images = st.builds(
    Image, channels=counts, height=counts, width=counts, mean=st.lists(numbers, max_size=3).map(tuple),
    std=st.lists(numbers, max_size=3).map(tuple), scale=numbers,
)  # fmt: skip
reals = st.builds(Reals, size=counts, names=st.lists(texts, max_size=3).map(tuple))
labels = st.builds(Label, classes=names)
tokens = st.builds(
    Tokens, vocabulary=counts, length=counts, pad=st.none() | counts,
    tokenizer=st.none() | st.builds(Characters, texts, st.integers(0, 9)).map(Characters.to_json),
)  # fmt: skip
entries = {
    "image": images, "image_a": images, "image_b": images, "features": reals, "label": labels, "caption": tokens,
    "tokens": tokens, "source": tokens, "target": tokens, "attributes": st.builds(Attributes, names=names),
    "size": st.builds(Size, of=texts), "boxes": st.builds(Boxes, classes=names, most=counts, of=texts),
    "mask": st.builds(Mask, classes=names, height=counts, width=counts, void=st.integers(), of=texts),
    "proposals": st.builds(Proposals, most=counts, of=texts), "episode": st.builds(Episode),
    **{f"match_{side}": st.builds(Match, known=st.booleans(), of=texts) for side in "ab"},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Everything(Spec):
    """An entry of every kind, beside one whose name begins with another's."""

    image: Image
    label: Label
    attributes: Attributes
    features: Reals
    size: Size
    boxes: Boxes
    mask: Mask
    proposals: Proposals
    tokens: Tokens
    caption: Tokens
    episode: Episode
    targets = ("label",)


def of(kind: type[Spec], *also: str) -> st.SearchStrategy:
    wanted = {field.name for field in fields(kind) if field.name != "proposals"}.union(also)
    return st.builds(kind, **{name: entries[name] for name in wanted})


specs = st.one_of(
    *(of(kind) for kind in (Images, LabeledImages, CaptionedImages, UnpairedImages, Streams, LabeledTokens)),
    *(of(kind) for kind in (MatchedImages, AttributedImages)),
    *(of(kind) for kind in (Translations, Points, LabeledReals)), of(Images, "proposals"), of(Everything, "proposals"),
)  # fmt: skip
HERE = Everything.__module__.partition(".")[0]


@seeded
@given(specs)
def test_a_spec_is_read_back_from_its_plain_form(spec):
    content = json.loads(json.dumps(spec.to_dict()))
    assert content["format"] == 1
    assert "tokenizer" not in json.dumps(content)
    found = spec_from(content, spec.files(), trust=[HERE])
    assert found == spec
    assert found.entries == spec.entries


@settings(seeded, max_examples=20)
@given(specs)
def test_a_spec_is_read_back_from_a_run_folder(spec):
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(place)
        folder.write_spec(spec.to_dict(), spec.files())
        assert sorted(path.name for path in folder.spec_files()) == sorted(spec.files())
        assert load_spec(RunFolder(place), trust=[HERE]) == spec


def test_a_tokenizer_is_a_file_beside(tmp_path):
    spec = Translations(source=TEXT, target=replace(TEXT, tokenizer=None))
    folder = RunFolder(tmp_path)
    folder.write_spec(spec.to_dict(), spec.files())
    assert (tmp_path / "spec" / "source.tokenizer").read_text() == LETTERS.to_json()
    found = load_spec(folder)
    assert found == spec
    assert found.source.read("abc").tolist() == [[2, 3, 4]]


@pytest.mark.parametrize("name", ["key", "file", "format", "spec", "query", "index"])
def test_an_entry_may_have_any_name(name, tmp_path, monkeypatch):
    """What a person trains on must be read back, or refused when the class is made."""
    text = f"""
from dataclasses import dataclass
from dlx.tasks.spec import Reals, Spec

@dataclass(frozen=True, kw_only=True)
class Named(Spec):
    {name}: Reals
"""
    module = f"spec_with_{name}"
    (tmp_path / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = __import__(module).Named(**{name: Reals(size=2)})
    assert spec_from(json.loads(json.dumps(spec.to_dict())), {}, trust=[module]) == spec


def test_the_specs_of_runs_from_before_entries_are_read():
    old = {
        "_target_": "dlx.tasks.spec.ImageSpec", "channels": 3, "height": 6, "width": 4, "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6], "classes": ["cat", "dog"], "scale": 16.0,
    }  # fmt: skip
    assert spec_from(old, {}) == LabeledImages(
        image=Image(channels=3, height=6, width=4, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), scale=16.0),
        label=Label(classes=("cat", "dog")),
    )
    vectors = {"_target_": "dlx.tasks.spec.VectorSpec", "num_features": 2, "num_outputs": 3, "names": ["x", "y"]}
    assert spec_from(vectors, {}) == RegressionReals(
        features=Reals(size=2, names=("x", "y")), target=Reals(size=3)
    )  # fmt: skip


PLAIN = LabeledReals(features=Reals(size=2), label=CLASSES).to_dict()


@pytest.mark.parametrize("version", [2, 99, "1", None, -1])
def test_a_newer_format_is_refused(version):
    with pytest.raises(UserError, match="written by a newer dlx"):
        spec_from({**PLAIN, "format": version}, {})


def test_a_spec_without_a_format_is_none():
    with pytest.raises(UserError, match="not a spec that dlx wrote"):
        spec_from({key: value for key, value in PLAIN.items() if key != "format"}, {})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label": 7}, "label is no entry"),
        ({"label": ["dlx.tasks.spec.Label"]}, "label is no entry"),
        ({"label": {}}, "spec.label._target_"),
        ({"label": {"_target_": "dlx.tasks.spec.Points"}}, "is not a subclass of Entry"),
        ({"label": {"_target_": "dlx.tasks.spec.Lable"}}, "there is no class"),
        ({"label": {"_target_": "dlx.tasks.spec.Label", "classes": [], "klasses": []}}, "klasses"),
        ({"more": {"_target_": "dlx.tasks.spec.Episode"}}, "more"),
    ],
)
def test_a_damaged_entry_is_one_line(changes, words):
    with pytest.raises(UserError, match=words):
        spec_from({**PLAIN, "entries": {**PLAIN["entries"], **changes}}, {})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_target_": "dlx.tasks.spec.Label"}, "is not a subclass of Spec"),
        ({"_target_": "dlx.tasks.spec.normalize"}, "there is no class"),
        ({"_target_": None}, "spec._target_"),
        ({"entries": 5}, "not a spec that dlx wrote"),
    ],
)
def test_a_damaged_spec_is_one_line(changes, words):
    with pytest.raises(UserError, match=words):
        spec_from({**PLAIN, **changes}, {})


@pytest.mark.parametrize("content", [[1], 5, None, {"_target_": "dlx.tasks.spec.ImageSpec", "channels": 3}])
def test_what_is_no_spec_at_all_is_one_line(content):
    with pytest.raises(UserError):
        spec_from(content, {})


def test_a_class_that_is_not_trusted_is_refused_before_anything_is_imported(tmp_path, monkeypatch):
    (tmp_path / "danger.py").write_text("""
from dlx.tasks.spec import *
@dataclass(frozen=True, kw_only=True)
class Mine(Points):
    pass
class Own(Reals):
    pass
""")
    monkeypatch.syspath_prepend(str(tmp_path))
    content = Points(features=Reals(size=2)).to_dict()
    entry = {**content["entries"]["features"], "_target_": "danger.Own"}
    for refused in ({**content, "_target_": "danger.Mine"}, {**content, "entries": {"features": entry}}):
        with pytest.raises(UserError, match="--trust PKG"):
            spec_from(refused, {})
        assert "danger" not in sys.modules
    monkeypatch.setitem(sys.modules, "danger", None)  # what is imported below goes again
    del sys.modules["danger"]
    trusted = {**content, "_target_": "danger.Mine", "entries": {"features": entry}}
    assert type(spec_from(trusted, {}, trust=["danger"])).__name__ == "Mine"


# Normalizing a batch


def test_beyond_the_size_of_a_picture_a_normalized_batch_is_0():
    raw = {
        "image": torch.randint(0, 256, (3, 1, 12, 12), dtype=torch.uint8),
        "size": torch.tensor([[12, 12], [5, 9], [1, 2]]),
        "boxes": torch.zeros(3, 2, 5),
    }
    batch = normalize(PHOTOS.entries, dict(raw), tuple(raw))
    for image, own, (height, width) in zip(batch["image"], raw["image"], raw["size"].tolist(), strict=True):
        assert torch.equal(image[:, :height, :width], GRAY.normalize(own)[:, :height, :width])
        assert (image[:, height:] == 0).all()
        assert (image[:, :, width:] == 0).all()
    assert torch.equal(batch["boxes"], raw["boxes"])


def test_a_size_is_that_of_its_own_image():
    sides = {"image_a": GRAY, "image_b": GRAY, "size_b": Size(of="image_b")}
    raw = {name: torch.full((1, 1, 12, 12), 255, dtype=torch.uint8) for name in ("image_a", "image_b")}
    batch = normalize(sides, {**raw, "size_b": torch.tensor([[3, 4]])}, ("image_a", "image_b"))
    assert (batch["image_a"] > 0).all()
    assert (batch["image_b"] > 0).sum() == 12


def test_only_what_is_named_is_normalized():
    batch = {"image": torch.ones(1, 1, 12, 12), "size": torch.tensor([[3, 4]])}
    assert torch.equal(normalize(PHOTOS.entries, dict(batch), ("size",))["image"], batch["image"])
