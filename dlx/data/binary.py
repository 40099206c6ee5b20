"""Binarized images: what densities of binary images are compared on.

Three ways, whose log-likelihoods do not compare (Salakhutdinov & Murray 2008 drew once; Burda et al. 2016,
arXiv:1509.00519, anew in each epoch), so that a run keeps its way and an evaluation may not change it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from dlx.config import checks
from dlx.data.dataset import Source, TensorSource
from dlx.data.digits import Digits
from dlx.data.mnist import MNIST, FashionMNIST
from dlx.random import derive, uniform_rows
from dlx.tasks.spec import Image, Label, LabeledImages

if TYPE_CHECKING:
    from dlx.tasks.system import Batch

Binarization = Literal["threshold", "fixed", "dynamic"]
WAYS = ("threshold", "fixed", "dynamic")
CHUNK = 4096  # images that are drawn at a time


class DrawnSource:
    """Binary images that are drawn anew with each `draw`: a pixel is 1 with the probability that is its gray value.

    gray: uint8 [N, C, H, W] of 0..scale. labels: int64 [N].
    """

    lengths = keys = None

    def __init__(self, gray: Tensor, labels: Tensor, scale: float, names: Collection[str] = ("image", "label")) -> None:
        self.gray, self.labels, self.scale, self.names = gray, labels, scale, names

    def __len__(self) -> int:
        return len(self.gray)

    def only(self, names: Collection[str]) -> DrawnSource:
        return DrawnSource(self.gray, self.labels, self.scale, names)

    def take(self, index: Tensor, draw: int = 0) -> Batch:
        taken = {"image": self.draw(index, draw), "label": self.labels[index]}
        return {name: value for name, value in taken.items() if name in self.names}

    def draw(self, index: Tensor, draw: int) -> Tensor:
        gray = self.gray[index]
        return (uniform_rows("binarize", index + draw, *gray.shape[1:]) * self.scale < gray).to(torch.uint8)


def binarized(source: Source, scale: float, way: str, seed: int) -> Source:
    """A source of gray images as one of binary images: threshold: 1 from half of the scale on; fixed: drawn once, a
    function of the seed; dynamic: drawn anew in each epoch."""
    assert isinstance(source, TensorSource)
    gray, labels = source.tensors["image"], source.tensors["label"]
    drawn = DrawnSource(gray, labels, scale)
    if way == "dynamic":
        return drawn
    if way == "threshold":
        image = (gray >= scale / 2).to(torch.uint8)
    else:
        parts = torch.arange(len(gray)).split(CHUNK)
        image = torch.cat([drawn.draw(part, derive(seed, "binarize")) for part in parts])
    return TensorSource(image=image, label=labels)


def _binary(gray: LabeledImages) -> LabeledImages:
    image = Image(channels=1, height=gray.image.height, width=gray.image.width, mean=(0.0,), std=(1.0,), scale=1.0)
    return LabeledImages(image=image, label=Label(classes=gray.label.classes))


class BinaryDigits(Digits):
    """The digits of scikit-learn as binary images of 8x8.

    binarization: threshold, 1 from level 8 of 16 on; fixed, drawn once by the gray values; dynamic, drawn anew in each
    epoch, and of val and test once for the seed of the run. data_seed: of the fixed draw.
    """

    spec: LabeledImages = _binary(Digits.spec)

    def __init__(self, *, binarization: Binarization = "threshold", data_seed: int = 0) -> None:
        checks.one_of(WAYS, binarization=binarization)
        self.binarization, self.data_seed = binarization, data_seed

    def splits(self) -> dict[str, Source]:
        scale, way = Digits.spec.image.scale, self.binarization
        return {name: binarized(part, scale, way, self.data_seed) for name, part in super().splits().items()}

    def fingerprint(self) -> dict[str, Any]:
        return {"binarization": self.binarization}


class BinaryMNIST(MNIST):
    """MNIST as binary images of 28x28.

    binarization: fixed, drawn once by the gray values; dynamic, drawn anew in each epoch; threshold, 1 from half of the
    scale on. The test split is drawn once in any case. data_seed: of what is drawn once.
    """

    spec: LabeledImages = _binary(MNIST.spec)

    def __init__(
        self,
        *,
        binarization: Binarization = "fixed",
        data_seed: int = 0,
        root: Path | None = None,
        download: bool = True,
    ) -> None:
        super().__init__(root=root, download=download)
        checks.one_of(WAYS, binarization=binarization)
        self.binarization, self.data_seed = binarization, data_seed

    def splits(self) -> dict[str, Source]:
        return binarized_splits(super().splits(), self.binarization, self.data_seed)

    def fingerprint(self) -> dict[str, Any]:
        return {"binarization": self.binarization}


class BinaryFashionMNIST(BinaryMNIST, FashionMNIST):
    """Fashion-MNIST as binary images of 28x28, as `BinaryMNIST`."""

    spec: LabeledImages = _binary(FashionMNIST.spec)


def binarized_splits(sources: Mapping[str, Source], way: str, seed: int) -> dict[str, Source]:
    """Of a dataset of bytes with a test split of its own, which is drawn once."""
    test = "fixed" if way == "dynamic" else way
    return {
        name: binarized(source, 255.0, test if name == "test" else way, derive(seed, name))
        for name, source in sources.items()
    }
