"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 60,000 color images of 32x32 in 10 or 100 classes."""

from __future__ import annotations

import shutil
import tarfile
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np

from dlx.config.errors import UserError
from dlx.data.dataset import Dataset, Source, TensorSource
from dlx.data.files import cached_dir, data_root, fetch, read_array
from dlx.tasks.spec import Image, Label, LabeledImages

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
    """50,000 training and 10,000 test images.

    root: where the archive is, or torchvision's unpacked folder, or they are downloaded to, in it or in its folder
    `cifar10`; download: fetch what is not there. torchvision checks and decodes it once, to arrays that are kept.
    """

    spec: LabeledImages = LabeledImages(
        image=Image(channels=3, height=32, width=32, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)),
        label=Label(classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")),
    )
    folder: ClassVar[str] = "cifar10"
    url: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/"
    archive: ClassVar[str] = "cifar-10-python.tar.gz"
    md5: ClassVar[str] = "c58f30108f718f92721af3b95e74349a"

    def __init__(self, *, root: Path | None = None, download: bool = True) -> None:
        self.root, self.download = data_root(root), download

    def _locate(self) -> Path:
        """The archive, or the folder of the unpacked one. Raises UserError that says which file to put where."""
        from torchvision import datasets

        own = self.root / self.folder
        unpacked = getattr(datasets, type(self).__name__).base_folder
        for found in (own, self.root):
            if (found / unpacked).is_dir():
                return found
            if (found / self.archive).is_file():
                return found / self.archive
        advice = f"Put it from {self.url}{self.archive} into {own}/, or say with dataset.root= where it is."
        return fetch(self.url, own / self.archive, self.md5, allowed=self.download, advice=advice)

    def _decode(self, into: Path) -> None:
        """Images and labels as .npy files. torchvision knows the sum of each unpacked file and reads no other."""
        from torchvision import datasets
        from torchvision.datasets.utils import extract_archive

        found = self._locate()
        unpacked = found if found.is_dir() else into / "unpacked"
        try:
            if unpacked != found:
                extract_archive(str(found), str(unpacked))
            for name in ("train", "test"):
                data = getattr(datasets, type(self).__name__)(str(unpacked), train=name == "train", download=False)
                np.save(into / f"{name}_image.npy", np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)))
                np.save(into / f"{name}_label.npy", np.asarray(data.targets, np.int64))
        except (RuntimeError, EOFError, tarfile.TarError, zlib.error) as error:
            raise UserError(
                f"dataset {self.folder}: {found} is damaged ({error}); delete it to fetch it anew"
            ) from error
        if unpacked != found:
            shutil.rmtree(unpacked)

    def splits(self) -> dict[str, Source]:
        arrays = cached_dir(self.root / self.folder / "arrays", self._decode)
        return {
            name: TensorSource(
                image=read_array(arrays / f"{name}_image.npy"), label=read_array(arrays / f"{name}_label.npy")
            )
            for name in ("train", "test")
        }


class CIFAR100(CIFAR10):
    """The same images' form in 100 classes."""

    spec: LabeledImages = LabeledImages(
        image=Image(channels=3, height=32, width=32, mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762)),
        label=Label(classes=tuple(_CIFAR100.split())),
    )
    folder = "cifar100"
    archive = "cifar-100-python.tar.gz"
    md5 = "eb9058c3a382ffc7106e4002c42a8d85"
