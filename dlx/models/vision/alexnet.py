"""AlexNet (Krizhevsky, Sutskever, Hinton, NIPS 2012): five convolutions and three dense layers, ReLU and dropout.

Shapes: B batch, C channels, H height, W width, F features.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.models.layers import init_kaiming, require_size
from dlx.tasks.spec import LabeledImages
from dlx.tasks.supervised import Supervised

CHANNELS = {"original": (96, 256, 384, 384, 256), "torchvision": (64, 192, 384, 256, 256)}
DENSE = 4096


class AlexNet(Supervised):
    """variant: `original` is the paper's: two columns that meet in the third convolution and in the dense layers (here
    groups), and local response normalization; `torchvision` is its one column of 2014 (Krizhevsky, arXiv:1404.5997).

    stem: `paper` is an 11x11 convolution of stride 4 and a pooling, for 224x224; the last maps of other sizes are
    averaged to 6x6. `small` is a 3x3 convolution of stride 1 without pooling, the other two poolings round up, the last
    maps are taken as they are, and the weights begin as He's. None is paper from 64 pixels up. width: share of the
    paper's channels and dense units; None is 1 with the paper's stem and 1/4 with the small one. dropout: rate at the
    two hidden dense layers.
    """

    def __init__(
        self,
        *,
        spec: LabeledImages,
        variant: Literal["original", "torchvision"] = "original",
        stem: Literal["paper", "small"] | None = None,
        width: float | None = None,
        dropout: float = 0.5,
        loss: str | None = None,
    ) -> None:
        super().__init__(spec=spec, loss=loss)
        checks.one_of(CHANNELS, variant=variant)
        checks.one_of(("paper", "small"), stem=stem)
        checks.above(0, width=width)
        checks.between("[0, 1)", dropout=dropout)
        side = min(spec.image.height, spec.image.width)
        self.is_small = stem == "small" if stem else side < 64
        require_size(spec.image, *((4, "stem small") if self.is_small else (63, "stem paper")))
        self.variant = variant
        share = width or (0.25 if self.is_small else 1.0)
        c1, c2, c3, c4, c5 = (2 * max(1, round(share * count / 2)) for count in CHANNELS[variant])
        units = max(1, round(share * DENSE))
        original = variant == "original"
        groups = 2 if original else 1

        first = (3, 1, 1) if self.is_small else (11, 4, 2)  # kernel, stride, padding
        self.conv1 = nn.Conv2d(spec.image.channels, c1, *first)
        self.conv2 = nn.Conv2d(c1, c2, 5, padding=2, groups=groups)
        self.conv3 = nn.Conv2d(c2, c3, 3, padding=1)
        self.conv4 = nn.Conv2d(c3, c4, 3, padding=1, groups=groups)
        self.conv5 = nn.Conv2d(c4, c5, 3, padding=1, groups=groups)
        # The paper sums over 5 neighbours where torch takes their mean: alpha 1e-4 there is 5e-4 here.
        self.norm = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0) if original else nn.Identity()
        self.pool1 = nn.Identity() if self.is_small else nn.MaxPool2d(3, 2)
        self.pool = nn.MaxPool2d(3, 2, padding=1 if self.is_small else 0)
        if self.num_outputs:  # else it is a trunk
            sides = (spec.image.height, spec.image.width)
            last_height, last_width = (-(-size // 4) if self.is_small else 6 for size in sides)
            self.dropout = nn.Dropout(dropout)
            self.fc6 = nn.Linear(c5 * last_height * last_width, units)
            self.fc7 = nn.Linear(units, units)
            self.fc8 = nn.Linear(units, self.num_outputs)
        if self.is_small:
            # The paper's 0.01 suits sums over thousands of inputs, and a small network has few.
            init_kaiming(self)
            if self.num_outputs:
                nn.init.normal_(self.fc8.weight, std=0.01)
        elif original:
            self._initialize_as_the_paper()

    def _initialize_as_the_paper(self) -> None:
        """Standard deviation 0.01, and biases of 1 where they give a ReLU positive inputs to begin with (section 5)."""
        for name, parameter in self.named_parameters():
            layer, kind = name.split(".")
            if kind == "weight":
                nn.init.normal_(parameter, std=0.01)
            else:
                nn.init.constant_(parameter, 1.0 if layer in ("conv2", "conv4", "conv5", "fc6", "fc7") else 0.0)

    def features(self, x_BCHW: Tensor) -> Tensor:
        """The last maps, [B, C, h, w]."""
        x_BCHW = self.pool1(self.norm(F.relu(self.conv1(x_BCHW))))
        x_BCHW = self.pool(self.norm(F.relu(self.conv2(x_BCHW))))
        x_BCHW = F.relu(self.conv4(F.relu(self.conv3(x_BCHW))))
        return self.pool(F.relu(self.conv5(x_BCHW)))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.features(x_BCHW)
        if not self.is_small:
            x_BCHW = F.adaptive_avg_pool2d(x_BCHW, 6)
        x_BF = x_BCHW.flatten(1)
        if self.variant == "original":  # drops the outputs of hidden layers (section 4.2)
            x_BF = self.dropout(F.relu(self.fc6(x_BF)))
            return self.fc8(self.dropout(F.relu(self.fc7(x_BF))))
        x_BF = F.relu(self.fc6(self.dropout(x_BF)))
        return self.fc8(F.relu(self.fc7(self.dropout(x_BF))))
