"""Network in Network (Lin, Chen, Yan 2013, arXiv:1312.4400): a small network slides over the image (1x1 convolutions).

Shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from dlx.config import checks
from dlx.models.layers import init_kaiming, require_size
from dlx.tasks.spec import LabeledImages
from dlx.tasks.supervised import Supervised


def mlpconv(in_channels: int, widths: tuple[int, int, int], kernel: int) -> nn.Sequential:
    """A convolution and two 1x1 convolutions: a network of three layers at each position, ReLU after each."""
    layers: list[nn.Module] = [nn.Conv2d(in_channels, widths[0], kernel, padding=kernel // 2), nn.ReLU(inplace=True)]
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class NiN(Supervised):
    """Three mlpconv layers; the last has a map for each class, whose mean is the class's logit: no dense layer.

    stem: the first convolution, 5x5 in the `paper` (the CIFAR-10 network), 3x3 in `small`. None is paper from 28 pixels
    up, MNIST's size and the smallest of the paper. width: share of the paper's channels (192, 160 and 96); None is 1
    with the paper's stem and 1/2 with the small one. dropout: rate after the first two mlpconv layers.
    """

    def __init__(
        self,
        *,
        spec: LabeledImages,
        stem: Literal["paper", "small"] | None = None,
        width: float | None = None,
        dropout: float = 0.5,
        loss: str | None = None,
    ) -> None:
        super().__init__(spec=spec, loss=loss)
        if not self.num_outputs:
            raise ValueError("spec must have a label: the maps of a NiN are those of its classes")
        checks.one_of(("paper", "small"), stem=stem)
        checks.above(0, width=width)
        checks.between("[0, 1)", dropout=dropout)
        side = min(spec.image.height, spec.image.width)
        is_small = stem == "small" if stem else side < 28
        require_size(spec.image, *((4, "stem small") if is_small else (8, "stem paper")))
        share = width or (0.5 if is_small else 1.0)
        wide, middle, narrow = (max(1, round(share * channels)) for channels in (192, 160, 96))
        # The poolings round up, as cuda-convnet's did: 32 - 16 - 8.
        self.net = nn.Sequential(
            mlpconv(spec.image.channels, (wide, middle, narrow), 3 if is_small else 5),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Dropout(dropout),
            mlpconv(narrow, (wide, wide, wide), 5),
            nn.AvgPool2d(3, 2, ceil_mode=True),
            nn.Dropout(dropout),
            mlpconv(wide, (wide, wide, self.num_outputs), 3),
        )
        init_kaiming(self)
        # A class whose map is zero everywhere gets no gradient: all classes start alike, at 1.
        *_, weight, bias = self.parameters()
        nn.init.normal_(weight, std=0.01)
        nn.init.ones_(bias)

    def features(self, x_BCHW: Tensor) -> Tensor:
        """The evidence for each class at each position, [B, K, h, w]."""
        return self.net(x_BCHW)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.features(x_BCHW).mean((2, 3))
