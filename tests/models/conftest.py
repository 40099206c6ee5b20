"""What the tests of models share: specs of any size, batches of noise."""

from __future__ import annotations

import pytest
import torch

from dlx.tasks.spec import ImageSpec


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def images():
    """A spec of images: images(channels, height, classes), square unless a width is given."""

    def make(channels: int = 1, height: int = 8, classes: int = 10, width: int | None = None) -> ImageSpec:
        return ImageSpec(
            channels=channels,
            height=height,
            width=width or height,
            classes=tuple(str(k) for k in range(classes)),
            mean=(0.5,) * channels,
            std=(0.25,) * channels,
        )

    return make


@pytest.fixture
def noise():
    """A batch of noise images with random labels."""

    def make(spec: ImageSpec, size: int = 16) -> dict[str, torch.Tensor]:
        return {
            "image": torch.randn(size, *spec.input_shape),
            "label": torch.randint(spec.num_outputs, (size,)),
            "index": torch.arange(size),
        }

    return make
