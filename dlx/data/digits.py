"""Handwritten digits of the UCI repository, as they come with scikit-learn: 1,797 images of 8x8 pixels, 17 levels."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import torch

from dlx.config.errors import UserError
from dlx.data.dataset import Dataset, Source, TensorSource
from dlx.tasks.spec import Image, Label, LabeledImages


class Digits(Dataset):
    """One source in the order of the file, which is by writer; `SplitSettings` holds out a stratified fifth as test."""

    # Mean and standard deviation of all 1,797 images, over 16.
    spec: LabeledImages = LabeledImages(
        image=Image(channels=1, height=8, width=8, mean=(0.3053,), std=(0.3760,), scale=16.0),
        label=Label(classes=tuple("0123456789")),
    )

    def splits(self) -> dict[str, Source]:
        # Read from the file: importing scikit-learn's datasets takes 1.3 s.
        package = importlib.util.find_spec("sklearn")
        if package is None or package.origin is None:
            raise UserError(
                "dataset digits: it comes with scikit-learn, which is not installed (pip install scikit-learn)"
            )
        with gzip.open(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz") as file:
            rows = np.loadtxt(file, delimiter=",", dtype=np.uint8)
        image = torch.from_numpy(rows[:, :-1].reshape(-1, 1, 8, 8).copy())
        return {"train": TensorSource(image=image, label=torch.from_numpy(rows[:, -1].astype(np.int64)))}
