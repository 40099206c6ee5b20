"""Convolutional networks: two convolutions and a dense layer, or LeNet-5 (LeCun et al. 1998, Proc. IEEE 86)."""

from __future__ import annotations

from itertools import islice
from typing import Literal

from torch import Tensor, nn

from dlx.config import checks
from dlx.models.layers import make_norm, require_size
from dlx.tasks.spec import LabeledImages
from dlx.tasks.supervised import Supervised


class CNN(Supervised):
    """variant: `cnn` is conv3 32 - pool2 - conv3 64 - pool2 - dense 128; `lenet5` its modern form of 1998's network.

    norm: after each convolution. dropout: rate before the dense layers.
    """

    def __init__(
        self,
        *,
        spec: LabeledImages,
        variant: Literal["cnn", "lenet5"] = "cnn",
        norm: Literal["none", "batch", "layer", "group"] = "none",
        dropout: float = 0.0,
        loss: str | None = None,
    ) -> None:
        super().__init__(spec=spec, loss=loss)
        checks.between("[0, 1)", dropout=dropout)
        checks.one_of(("cnn", "lenet5"), variant=variant)
        require_size(spec.image, 4 if variant == "cnn" else 24, f"variant {variant}")
        layers = _two_convolutions if variant == "cnn" else _lenet5
        trunk, dense = layers(spec, self.num_outputs, norm, dropout)
        self._trunk = len(trunk)
        self.net = nn.Sequential(*trunk, *dense)

    def features(self, x_BCHW: Tensor) -> Tensor:
        """The last pooled maps, [B, C, h, w]."""
        for layer in islice(self.net, self._trunk):
            x_BCHW = layer(x_BCHW)
        return x_BCHW

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = self.features(x_BCHW)
        for layer in islice(self.net, self._trunk, None):
            x = layer(x)
        return x


def _convolution(conv: nn.Conv2d, norm: str) -> list[nn.Module]:
    return [conv] if norm == "none" else [conv, make_norm(norm, conv.out_channels, dim=2)]


def _two_convolutions(
    spec: LabeledImages, classes: int, norm: str, dropout: float
) -> tuple[list[nn.Module], list[nn.Module]]:
    """The layers up to the last maps, and those after them; of a trunk (no classes) none."""
    trunk = [
        *_convolution(nn.Conv2d(spec.image.channels, 32, 3, padding=1), norm),
        nn.ReLU(),
        nn.MaxPool2d(2),
        *_convolution(nn.Conv2d(32, 64, 3, padding=1), norm),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
    if not classes:
        return trunk, []
    dense = [
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(64 * (spec.image.height // 4) * (spec.image.width // 4), 128),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(128, classes),
    ]
    return trunk, dense


def _lenet5(spec: LabeledImages, classes: int, norm: str, dropout: float) -> tuple[list[nn.Module], list[nn.Module]]:
    """ReLU and max-pooling for scaled tanh and trained averages, full connections in the second convolution, softmax
    for radial outputs: 61,706 parameters on 32x32, or 28x28 padded by 2 (1998's has 60,000)."""
    padding = 2 if spec.image.height < 32 else 0
    sides = (spec.image.height, spec.image.width)
    height, width = ((((side + 2 * padding - 4) // 2) - 4) // 2 for side in sides)
    trunk = [
        *_convolution(nn.Conv2d(spec.image.channels, 6, 5, padding=padding), norm),
        nn.ReLU(),
        nn.MaxPool2d(2),
        *_convolution(nn.Conv2d(6, 16, 5), norm),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
    if not classes:
        return trunk, []
    dense = [
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(16 * height * width, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    ]
    return trunk, dense
