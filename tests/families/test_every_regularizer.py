"""Every regularizer with every kind of system: it keeps the entries right, or it is refused before the start.

There is no third outcome: the table says which for each pair, and what is kept is checked once for each kind of entry.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from zoo import scenes

from dlx.config import ConfigError, compose
from dlx.config.groups import options
from dlx.random import reseed
from dlx.regularization.augmentation import Augmentation
from dlx.regularization.cutmix import CutMix
from dlx.regularization.label_smoothing import LabelSmoothing
from dlx.regularization.mixup import Mixup
from dlx.regularization.noise import InputNoise
from dlx.tasks.spec import Label, LabeledImages, normalize
from dlx.training.prepare import prepare

HERE = Path(__file__).parent
SYSTEMS = (
    "detector", "segmenter", "rcnn", "sentence", "language", "seq2seq", "masked", "vae", "wgan", "cycle", "growing",
    "codes", "painter", "contrastive", "walk",
)  # fmt: skip
CHANGES_BATCHES = {
    "augmentation": {"detector", "segmenter", "vae", "wgan", "cycle", "growing", "codes"},
    "cutmix": set(),
    "input_noise": {"segmenter", "rcnn", "vae", "wgan", "cycle", "growing", "codes", "painter"},
    "label_smoothing": {"sentence"},
    "mixup": set(),
    "simclr_views": {"vae", "wgan", "cycle", "growing", "codes"},
}  # which systems take it
ONLY_SETTINGS = ("dropout", "batch_norm", "stochastic_depth", "ema", "gradient_clip", "weight_decay")
EVERYWHERE = ("l1", "l2", "weight_noise", "early_stopping")


def test_all_shipped_regularizers_are_in_the_table():
    assert set(options("regularization")) == {*CHANGES_BATCHES, *ONLY_SETTINGS, *EVERYWHERE}


def configured(system: str, regularizer: str):
    words = [f"model=toy_{system}", f"reg=[{regularizer}]"]
    return compose(words, conf_dirs=[HERE / "conf"], trust=["zoo"])


@pytest.mark.parametrize("regularizer", [*CHANGES_BATCHES, *EVERYWHERE])
@pytest.mark.parametrize("system", SYSTEMS)
def test_it_is_taken_or_refused_before_the_start(system, regularizer):
    taken = system in CHANGES_BATCHES.get(regularizer, set(SYSTEMS))
    if regularizer == "early_stopping" and system == "wgan":
        taken = False  # nothing is monitored
    if taken:
        prepare(configured(system, regularizer))
        return
    with pytest.raises(ConfigError) as error:
        prepare(configured(system, regularizer))
    assert any(regularizer in str(problem) for problem in error.value.problems)


@pytest.mark.parametrize("regularizer", ["augmentation", "input_noise", "label_smoothing", *EVERYWHERE])
@pytest.mark.parametrize("system", ["segmenter", "sentence", "vae", "cycle", "walk"])
def test_what_is_taken_takes_steps(system, regularizer, call):
    if system not in CHANGES_BATCHES.get(regularizer, set(SYSTEMS)):
        pytest.skip("is refused")
    trained = call("train", f"model=toy_{system}", f"reg=[{regularizer}]", "trainer.max_steps=2", "--json")
    assert trained.code == 0, trained.err
    assert json.loads(trained.out)["status"] == "finished"


class Reads:
    """A system that is only a spec."""

    takes = ("weight", "soft_label")
    views = ()

    def __init__(self, spec):
        self.spec = spec


@pytest.fixture
def batch():
    """Scenes whose shapes are brighter than everything else, normalized."""
    drawn = scenes.draw(64, same_size=True)
    return normalize(ENTRIES, {**drawn, "index": torch.arange(64)}, [name for name in drawn if name in ENTRIES])


SPEC = scenes.Scenes.spec
ENTRIES = {name: entry for name, entry in SPEC.entries.items() if name != "size"}
MOVES = {
    "crop": {"crop": 3, "flip": False},
    "flip": {"crop": 0, "flip": True},
    "scale": {"crop": 0, "flip": False, "scale": (0.8, 1.25)},
    "translate": {"crop": 0, "flip": False, "translate": 0.2},
    "resized_crop": {"crop": 0, "flip": False, "resized_crop": (0.5, 1.0)},
    "all": {"crop": 2, "flip": True, "scale": (0.9, 1.1), "translate": 0.1},
}


@pytest.mark.parametrize("move", MOVES)
def test_augmentation_moves_masks_with_the_pixels(move, batch):
    reseed(0, "test")
    moved = Augmentation(**MOVES[move]).on_batch(batch, Reads(SPEC))
    pixels = SPEC.image.denormalize(moved["image"])[:, 0]
    shape, ground, void = moved["mask"] > 0, moved["mask"] == 0, moved["mask"] == scenes.VOID
    assert not torch.equal(moved["image"], batch["image"])
    sharp = move in ("crop", "flip")
    bright = pixels > 0.5
    agreement = (bright == (shape & ~void))[~void].float().mean()
    assert agreement == 1 if sharp else agreement > 0.95  # interpolation blurs the border of a shape
    assert set(moved["mask"].unique().tolist()) <= {0, 1, 2, scenes.VOID}
    if move != "flip":
        assert (pixels[void] < 0.5).all()  # what came from outside is void, and black
    assert ground.any()


@pytest.mark.parametrize("move", MOVES)
def test_augmentation_moves_boxes_with_the_pixels(move, batch):
    """A box is where the bright pixels are: to the pixel for crops and flips, to two where pixels are interpolated."""
    reseed(0, "test")
    moved = Augmentation(**MOVES[move]).on_batch(batch, Reads(SPEC))
    pixels, boxes = SPEC.image.denormalize(moved["image"])[:, 0], moved["boxes"][:, 0]
    kept = boxes[:, 4] == 0  # squares: of a cross that the border cuts the pixels may end before its box
    assert (boxes[:, 4] >= 0).float().mean() > 0.7
    assert (boxes[boxes[:, 4] < 0, :4] == 0).all()
    slack = 0 if move in ("crop", "flip") else 2
    for image, box in zip(pixels[kept], boxes[kept], strict=True):
        rows, columns = (image > 0.5).nonzero(as_tuple=True)
        found = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert ((found - box[:4]).abs() <= slack + 1e-3).all(), (found, box)
    assert torch.equal(moved["label"], batch["label"])


def test_a_box_of_which_too_little_is_left_goes(batch):
    far = {**batch, "image": batch["image"].clone()}
    far["boxes"] = torch.tensor([[[-4.0, 0, 1, 5, 0], [2, 2, 7, 7, 1]]]).expand(64, 2, 5).clone()
    moved = Augmentation(crop=0, flip=False, cutout=2).on_batch(far, Reads(SPEC))
    assert moved["boxes"][:, 0, 4].unique().tolist() == [-1]  # a fifth of it is in the picture
    assert moved["boxes"][:, 1].unique(dim=0).tolist() == [[2, 2, 7, 7, 1]]


def test_two_unpaired_images_have_draws_of_their_own():
    side = scenes.TwoSides.spec
    image = torch.randn(32, 1, 12, 12)
    moved = Augmentation(crop=3, flip=True).on_batch({"image_a": image, "image_b": image}, Reads(side))
    assert not torch.equal(moved["image_a"], moved["image_b"])


def test_mixup_and_cutmix_mix_labels_and_weights_as_they_mix_losses(batch):
    """The loss of a mixed sample is the mixture of the two weighted losses, exactly."""
    spec = SPEC.narrow(LabeledImages)
    many = replace(spec, label=Label(classes=tuple(map(str, range(64)))))
    weight_B = torch.rand(64) * (torch.arange(64) % 3 > 0)
    given = {name: batch[name] for name in ("image", "label", "index")}
    nll_BK = -torch.randn(64, 2).log_softmax(1)  # of each mixed sample, for each class
    for part in (Mixup(alpha=1.0), CutMix(probability=1.0)):
        reseed(0, "mix")
        mixed = part.on_batch({**given, "weight": weight_B}, Reads(spec))
        reseed(0, "mix")
        share_BB = part.on_batch({**given, "label": torch.arange(64)}, Reads(many))["label"]  # of each sample in each
        assert torch.allclose(share_BB.sum(1), torch.ones(64))
        assert (share_BB.diagonal() < 1).float().mean() > 0.9
        own_BB = nll_BK[:, batch["label"]]  # the mixed sample's loss against each sample's label
        wanted_B = (share_BB * weight_B * own_BB).sum(1)
        loss_B = mixed["weight"] * (mixed["label"] * nll_BK).sum(1)
        torch.testing.assert_close(loss_B, wanted_B)


def test_smoothing_and_noise_leave_the_rest(batch):
    narrow = SPEC.narrow(LabeledImages)
    smooth = LabelSmoothing(epsilon=0.2).on_batch(batch, Reads(narrow))
    assert torch.allclose(smooth["label"].sum(1), torch.ones(64))
    assert torch.equal(smooth["image"], batch["image"])
    noisy = InputNoise(std=0.1).on_batch(batch, Reads(SPEC))
    assert not torch.equal(noisy["image"], batch["image"])
    for name in ("boxes", "mask", "label", "caption", "proposals"):
        assert torch.equal(noisy[name], batch[name])


def test_boosting_with_mixup_does_not_learn_what_weighs_nothing(call):
    """Digits 5 to 9 weigh nothing: what is left of the classes is half right, with mixup as without."""
    import numpy as np

    from dlx.config import build, build_shared

    config = compose(["model=mlp"])
    source = build_shared(config, "dataset").split(build(config, "dataset"))["train"].source
    np.save("weights.npy", (source.tensors["label"] < 5).double().numpy())
    words = ("model=mlp", "dataset.weights=weights.npy", "trainer.epochs=8", "trainer.threads=1", "--json")
    accuracy = {}
    for reg in ("[]", "[mixup]", "[cutmix]"):
        told = json.loads(call("train", *words, f"reg={reg}").out)
        accuracy[reg] = told["metrics"]["test/accuracy"]
    assert all(0.4 < value < 0.56 for value in accuracy.values()), accuracy
