"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): 70,000 images of 28x28."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from dlx.config.errors import UserError
from dlx.data.dataset import Dataset, Source, TensorSource
from dlx.data.files import data_root, fetch
from dlx.tasks.spec import Image, Label, LabeledImages


@dataclass(frozen=True)
class Idx:
    """A published file: its name, and the md5 of it as downloaded (.gz) and unpacked."""

    name: str
    packed: str
    unpacked: str


def read_idx(path: Path, md5: str) -> np.ndarray:
    """An idx file of bytes, .gz or raw, as an array.

    Layout: two zero bytes, type 8 (unsigned byte), the number of dimensions, each as a big-endian 32-bit number, then
    the values. Raises UserError unless `md5` is that of the unpacked content: packers differ (Debian's files are
    packed anew), the content must not.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete it to fetch it anew") from error
    if (found := hashlib.md5(content, usedforsecurity=False).hexdigest()) != md5:
        raise UserError(f"{path}: damaged, or not the published file (unpacked md5 {found}, not {md5})")
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, 4).astype(int)
    return np.frombuffer(bytearray(content), np.uint8, offset=4 + 4 * dimensions).reshape(shape)


class MNIST(Dataset):
    """60,000 training and 10,000 test images.

    root: where the four files are, packed or not, in it or in its folder `mnist`; download: fetch what is not there.
    """

    spec: LabeledImages = LabeledImages(
        image=Image(channels=1, height=28, width=28, mean=(0.1307,), std=(0.3081,)),
        label=Label(classes=tuple("0123456789")),
    )
    folder: ClassVar[str] = "mnist"
    url: ClassVar[str] = "https://ossci-datasets.s3.amazonaws.com/mnist/"
    search_dirs: ClassVar[tuple[str, ...]] = ()
    files: ClassVar[tuple[Idx, ...]] = (
        Idx("train-images-idx3-ubyte", "f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
        Idx("train-labels-idx1-ubyte", "d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
        Idx("t10k-images-idx3-ubyte", "9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
        Idx("t10k-labels-idx1-ubyte", "ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
    )

    def __init__(self, *, root: Path | None = None, download: bool = True) -> None:
        self.root, self.download = data_root(root), download

    def _locate(self, file: Idx) -> Path:
        """The file, downloaded if it is missing. Raises UserError that says which files to put where."""
        own = self.root / self.folder
        packed = f"{file.name}.gz"
        for folder in (own, self.root, *map(Path, self.search_dirs)):
            for name in (file.name, packed):
                if (folder / name).is_file():
                    return folder / name
        names = ", ".join(f"{file.name}.gz" for file in self.files)
        advice = f"Put {names} from {self.url} into {own}/, or say with dataset.root= where they are."
        return fetch(self.url, own / packed, file.packed, allowed=self.download, advice=advice)

    def splits(self) -> dict[str, Source]:
        arrays = [torch.from_numpy(read_idx(self._locate(file), file.unpacked)) for file in self.files]
        train_image, train_label, test_image, test_label = arrays
        return {
            "train": TensorSource(image=train_image.unsqueeze(1), label=train_label.long()),
            "test": TensorSource(image=test_image.unsqueeze(1), label=test_label.long()),
        }


class FashionMNIST(MNIST):
    """Clothing in MNIST's form; Debian's package dataset-fashion-mnist is found too."""

    spec: LabeledImages = LabeledImages(
        image=Image(channels=1, height=28, width=28, mean=(0.2860,), std=(0.3530,)),
        label=Label(classes=(
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        )),
    )  # fmt: skip
    folder = "fashion_mnist"
    url = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    search_dirs = ("/usr/share/datasets/fashion-mnist",)
    files = (
        Idx("train-images-idx3-ubyte", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
        Idx("train-labels-idx1-ubyte", "25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"),
        Idx("t10k-images-idx3-ubyte", "bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"),
        Idx("t10k-labels-idx1-ubyte", "bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"),
    )
