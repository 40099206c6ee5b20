"""VGG (Simonyan, Zisserman 2014, arXiv:1409.1556): depth from 3x3 convolutions alone; two see 5x5, three see 7x7.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.models.layers import init_kaiming, require_size
from dlx.tasks.spec import LabeledImages
from dlx.tasks.supervised import Supervised

# depth -> convolutions per stage; configurations A, B, D, C, E of table 1.
CONVOLUTIONS: dict[int | str, tuple[int, ...]] = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    "16c": (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
CHANNELS = (64, 128, 256, 512, 512)
DENSE = 4096


class VGG(Supervised):
    """depth: layers with weights, 11 (configuration A), 13 (B), 16 (D), 19 (E); `16c` is configuration C, where the
    third convolution of a stage is 1x1. None is 11 for images below 64 pixels and 16 above.

    batch_norm: after each convolution (2015; the paper has none). dropout: rate after the two hidden dense layers.
    stem: `paper` pools after all five stages, for 224x224; the last maps of other sizes are averaged to 7x7, or
    repeated. `small` leaves out poolings of the first stages until the last maps have a pixel (8x8: three poolings
    remain), and takes the last maps as they are. None is paper from 64 pixels up. width: share of the paper's channels
    and dense units; None is 1 with the paper's stem and 1/4 with the small one.
    """

    def __init__(
        self,
        *,
        spec: LabeledImages,
        depth: Literal[11, 13, 16, "16c", 19] | None = None,
        batch_norm: bool = False,
        dropout: float = 0.5,
        stem: Literal["paper", "small"] | None = None,
        width: float | None = None,
        loss: str | None = None,
    ) -> None:
        super().__init__(spec=spec, loss=loss)
        side = min(spec.image.height, spec.image.width)
        if depth is None:
            depth = 16 if side >= 64 else 11
        checks.one_of(CONVOLUTIONS, depth=depth)
        checks.between("[0, 1)", dropout=dropout)
        checks.one_of(("paper", "small"), stem=stem)
        checks.above(0, width=width)
        self.is_small = stem == "small" if stem else side < 64
        require_size(spec.image, *((4, "stem small") if self.is_small else (32, "stem paper")))
        share = width or (0.25 if self.is_small else 1.0)
        poolings = min(5, side.bit_length() - 1)

        stages, in_channels = [], spec.image.channels
        for stage, count in enumerate(CONVOLUTIONS[depth]):
            channels = max(1, round(share * CHANNELS[stage]))
            layers: list[nn.Module] = []
            for number in range(count):
                kernel = 1 if depth == "16c" and number == 2 else 3
                layers.append(nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(channels))
                layers.append(nn.ReLU(inplace=True))
                in_channels = channels
            if stage >= 5 - poolings:
                layers.append(nn.MaxPool2d(2))
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        if self.num_outputs:  # else it is a trunk
            units = max(1, round(share * DENSE))
            sides = (spec.image.height, spec.image.width)
            last_height, last_width = (size >> poolings if self.is_small else 7 for size in sides)
            self.dense = nn.Sequential(
                nn.Linear(in_channels * last_height * last_width, units),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
                nn.Linear(units, units),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
            )
            self.fc8 = nn.Linear(units, self.num_outputs)
        init_kaiming(self)  # deep variants then train without first training a shallow one
        if self.num_outputs:
            nn.init.normal_(self.fc8.weight, std=0.01)

    def maps(self, x_BCHW: Tensor) -> list[Tensor]:
        """The maps of each stage before its pooling and after it, the finest first. Of a stride, pool4 and then conv5,
        FCN reads the first and detectors the last."""
        found = []
        for stage in self.stages:
            assert isinstance(stage, nn.Sequential)
            for layer in stage:
                if isinstance(layer, nn.MaxPool2d):
                    found.append(x_BCHW)
                x_BCHW = layer(x_BCHW)
            found.append(x_BCHW)
        return found

    def features(self, x_BCHW: Tensor) -> Tensor:
        """The last stage's maps, [B, C, h, w]."""
        return self.stages(x_BCHW)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.features(x_BCHW)
        if not self.is_small:
            x_BCHW = F.adaptive_avg_pool2d(x_BCHW, 7)
        return self.fc8(self.dense(x_BCHW.flatten(1)))
