import json

import numpy as np
import pytest
import torch

from dlx.data.binary import BinaryDigits, BinaryFashionMNIST, BinaryMNIST
from dlx.data.dataset import TensorSource
from dlx.data.digits import Digits
from dlx.data.mnist import MNIST


@pytest.fixture
def bytes_of_mnist(monkeypatch):
    gray = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 1, 28, 28), np.uint8))
    source = TensorSource(image=gray, label=torch.arange(40) % 10)
    monkeypatch.setattr(MNIST, "splits", lambda self: {"train": source, "test": source})
    return gray


def test_a_threshold_is_half_of_the_scale():
    gray = Digits().splits()["train"].tensors["image"]
    image = BinaryDigits().splits()["train"].tensors["image"]
    assert torch.equal(image, (gray >= 8).to(torch.uint8))
    assert float(image.float().mean()) == pytest.approx(0.323, abs=0.001)


@pytest.mark.parametrize("kind", [BinaryMNIST, BinaryFashionMNIST])
def test_fixed_is_drawn_once(kind, bytes_of_mnist):
    one, again, other = (kind(data_seed=seed).splits() for seed in (0, 0, 1))
    first = one["train"].tensors["image"]
    assert torch.equal(first, again["train"].tensors["image"])
    assert not torch.equal(first, other["train"].tensors["image"])
    assert not torch.equal(first, one["test"].tensors["image"])
    high = first[bytes_of_mnist > 200].float().mean()
    assert float(high) == pytest.approx(float(bytes_of_mnist[bytes_of_mnist > 200].float().mean()) / 255, abs=0.02)
    assert set(first.unique().tolist()) == {0, 1}


def test_dynamic_is_drawn_anew_in_each_epoch_and_never_for_the_test(bytes_of_mnist):
    sources = BinaryMNIST(binarization="dynamic").splits()
    index = torch.tensor([3, 5, 3])
    first, second = (sources["train"].take(index, draw)["image"] for draw in (1, 2))
    assert torch.equal(first[0], first[2])  # a sample's draw does not depend on its batch
    assert torch.equal(first[1], sources["train"].take(index[1:2], 1)["image"][0])
    assert not torch.equal(first, second)
    assert torch.equal(sources["test"].take(index, 1)["image"], sources["test"].take(index, 2)["image"])
    mean = torch.stack([sources["train"].take(index[:1], draw)["image"].float() for draw in range(500)]).mean(0)
    assert torch.allclose(mean, bytes_of_mnist[3:4] / 255, atol=0.12)


def test_only_what_is_asked_for(bytes_of_mnist):
    source = BinaryMNIST(binarization="dynamic").splits()["train"]
    assert set(source.only({"image"}).take(torch.arange(2))) == {"image"}
    assert len(source) == 40


def test_a_training_sees_other_draws_in_each_epoch(dlx_call):
    words = ("train", "model=independent_pixels", "model.by=gradient", "data.binarization=dynamic", "trainer.epochs=1")
    found = [json.loads(dlx_call(*words, "--json").out)["metrics"]["test/nll"] for _ in range(2)]
    assert found[0] == found[1]


def test_a_way_that_there_is_not():
    with pytest.raises(ValueError, match="binarization must be threshold, fixed or dynamic"):
        BinaryDigits(binarization="noise")
