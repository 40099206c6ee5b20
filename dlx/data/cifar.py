"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 60,000 color images of 32x32 in 10 or 100 classes."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from dlx.config.errors import UserError
from dlx.data.dataset import Dataset, Source, TensorSource
from dlx.data.files import data_root, save_array
from dlx.tasks.spec import ImageSpec

_CIFAR100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle "
    "caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant "
    "flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man "
    "maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree "
    "plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper "
    "snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train "
    "trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)


class CIFAR10(Dataset):
    """50,000 training and 10,000 test images. torchvision downloads and checks them once; arrays are kept beside."""

    spec: ImageSpec = ImageSpec(
        channels=3,
        height=32,
        width=32,
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    )
    folder: ClassVar[str] = "cifar10"
    archive: ClassVar[str] = "cifar-10-python.tar.gz"

    def __init__(self, *, root: str | None = None) -> None:
        self.root = data_root(root) / self.folder

    def _decode(self) -> None:
        """Images and labels as .npy files, by torchvision."""
        from torchvision import datasets

        kind = getattr(datasets, type(self).__name__)
        try:
            for name in ("train", "test"):
                data = kind(str(self.root), train=name == "train", download=True)
                save_array(self.root / f"{name}_image.npy", np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)))
                save_array(self.root / f"{name}_label.npy", np.asarray(data.targets, np.int64))
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"dataset {self.folder}: {self.archive} is not there and cannot be downloaded "
                f"({type(error).__name__}). Put it into {self.root}/, or say where it is with dataset.root="
            ) from None

    def _read(self, name: str, mapped: bool = False) -> torch.Tensor:
        path: Path = self.root / f"{name}.npy"
        return torch.from_numpy(np.load(path, mmap_mode="c" if mapped else None, allow_pickle=False))

    def splits(self) -> dict[str, Source]:
        if not (self.root / "test_label.npy").is_file():  # written last
            self._decode()
        return {
            name: TensorSource(image=self._read(f"{name}_image", mapped=True), label=self._read(f"{name}_label"))
            for name in ("train", "test")
        }


class CIFAR100(CIFAR10):
    """The same images' form in 100 classes."""

    spec: ImageSpec = ImageSpec(
        channels=3,
        height=32,
        width=32,
        classes=tuple(_CIFAR100.split()),
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
    )
    folder = "cifar100"
    archive = "cifar-100-python.tar.gz"
