"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): 70,000 images of 28x28."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from dlx.config.errors import UserError
from dlx.data.dataset import Dataset, Source, TensorSource
from dlx.data.files import data_root, download
from dlx.tasks.spec import ImageSpec


def read_idx(path: Path, md5: str) -> np.ndarray:
    """An idx file (.gz) as an array. Raises UserError for one whose checksum is not the published one."""
    content = path.read_bytes()
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise UserError(f"{path}: damaged or not the published file (its md5 is not {md5}); delete it to fetch it anew")
    data = gzip.decompress(content)
    dimensions = data[3]
    shape = np.frombuffer(data, ">u4", dimensions, 4).astype(int)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


class MNIST(Dataset):
    """60,000 training and 10,000 test images. root: where the four files are, or are downloaded to."""

    spec: ImageSpec = ImageSpec(
        channels=1, height=28, width=28, classes=tuple("0123456789"), mean=(0.1307,), std=(0.3081,)
    )
    folder: ClassVar[str] = "mnist"
    url: ClassVar[str] = "https://ossci-datasets.s3.amazonaws.com/mnist/"
    places: ClassVar[tuple[str, ...]] = ()
    sums: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    }

    def __init__(self, *, root: str | None = None) -> None:
        self.root = data_root(root) / self.folder

    def _locate(self, name: str) -> Path:
        for place in (self.root, *map(Path, self.places)):
            if (place / name).is_file():
                return place / name
        path = self.root / name
        try:
            download(self.url + name, path, self.sums[name])
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"dataset {self.folder}: {name} is not there and cannot be downloaded ({type(error).__name__}). "
                f"Put {', '.join(self.sums)} into {self.root}/, or say where they are with dataset.root="
            ) from None
        return path

    def splits(self) -> dict[str, Source]:
        arrays = [torch.from_numpy(read_idx(self._locate(name), md5).copy()) for name, md5 in self.sums.items()]
        train_image, train_label, test_image, test_label = arrays
        return {
            "train": TensorSource(image=train_image.unsqueeze(1), label=train_label.long()),
            "test": TensorSource(image=test_image.unsqueeze(1), label=test_label.long()),
        }


class FashionMNIST(MNIST):
    """Clothing in MNIST's form; Debian's package dataset-fashion-mnist is found too."""

    spec: ImageSpec = ImageSpec(
        channels=1,
        height=28,
        width=28,
        classes=(
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ),
        mean=(0.2860,),
        std=(0.3530,),
    )  # fmt: skip
    folder = "fashion_mnist"
    url = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    places = ("/usr/share/datasets/fashion-mnist",)
    sums: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    }
