"""What the tests of models share: specs of any size, batches of noise."""

from __future__ import annotations

import pytest
import torch

from dlx.tasks.spec import Image, Label, LabeledImages


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def images():
    """A spec of images: images(channels, height, classes), square unless a width is given."""

    def make(channels: int = 1, height: int = 8, classes: int = 10, width: int | None = None) -> LabeledImages:
        mean, std = (0.5,) * channels, (0.25,) * channels
        return LabeledImages(
            image=Image(channels=channels, height=height, width=width or height, mean=mean, std=std),
            label=Label(classes=tuple(map(str, range(classes)))),
        )

    return make


@pytest.fixture
def noise():
    """A batch of noise images with random labels."""

    def make(spec: LabeledImages, size: int = 16) -> dict[str, torch.Tensor]:
        return {
            "image": torch.randn(size, *spec.image.shape),
            "label": torch.randint(len(spec.label.classes), (size,)),
            "index": torch.arange(size),
        }

    return make
