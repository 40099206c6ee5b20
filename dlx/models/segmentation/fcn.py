"""FCN (Long, Shelhamer, Darrell 2015, arXiv:1411.4038): a classifier made convolutional gives a class to each pixel.

Dense layers become convolutions, so that the network takes any size and answers with a coarse map of scores; transposed
convolutions that begin as bilinear enlarge it, and finer maps of the trunk add what the coarse ones lost (skips).
Shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.models.layers import check_maps, map_channels
from dlx.tasks.segmentation import Segmentation
from dlx.tasks.spec import MaskedImages, SizedMaskedImages
from dlx.tasks.system import Trunk

BORDER = 100  # pixels that the paper's first convolution pads with
PAPER_KERNEL = 7
CROPS = {32: 19, 16: 27, 8: 31}  # of the paper's last map
SKIP_CROPS = {16: 5, 8: 9}  # of the scores of the trunk's map at that stride


class FCN(Segmentation):
    """stride: of the finest map whose scores are used: 32 none but the last, 16 one skip, 8 two.

    trunk: a network that offers `maps`, those after each of its stages (vgg, resnet). units: of the two convolutions
    that the dense layers became, kernel x kernel and 1x1. padding: `same` keeps the maps aligned with the image;
    `paper` pads the image with 100 pixels and cuts the last map, as the published networks do. learn_upsampling: else
    the enlargement stays bilinear.
    """

    def __init__(
        self,
        *,
        spec: SizedMaskedImages | MaskedImages,
        trunk: Trunk,
        stride: Literal[32, 16, 8] = 8,
        units: int = 4096,
        kernel: int = 7,
        dropout: float = 0.5,
        padding: Literal["same", "paper"] = "same",
        learn_upsampling: bool = True,
    ) -> None:
        super().__init__(spec=spec)
        checks.one_of((32, 16, 8), stride=stride)
        checks.one_of(("same", "paper"), padding=padding)
        checks.at_least(1, units=units, kernel=kernel)
        checks.between("[0, 1)", dropout=dropout)
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, so that its maps stay aligned, got {kernel}")
        if padding == "paper" and kernel != PAPER_KERNEL:
            raise ValueError(
                f"kernel must be {PAPER_KERNEL} with padding paper, whose cuts are made for it, got {kernel}"
            )
        check_maps(trunk)
        self.trunk: Any = trunk
        self.stride, self.padding = stride, padding
        K, channels = self.num_classes, map_channels(trunk, spec.image.channels, first=True)
        self.coarsest = max(channels)
        if missing := [at for at in (16, 8) if at >= stride and at < self.coarsest and at not in channels]:
            raise ValueError(
                f"stride {stride} needs a map of the trunk at stride {missing[0]}; it has {sorted(channels)}"
            )
        if stride > self.coarsest:
            raise ValueError(f"stride must be at most {self.coarsest}, that of the trunk's last maps, got {stride}")
        self.head = nn.Sequential(
            nn.Conv2d(channels[self.coarsest], units, kernel, padding=kernel // 2 if padding == "same" else 0),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(units, units, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        for layer in self.head:
            if isinstance(layer, nn.Conv2d):
                assert layer.bias is not None
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        self.score = nn.Conv2d(units, K, 1)
        self.skips = [at for at in (16, 8) if stride <= at < self.coarsest]
        self.skip_scores = nn.ModuleList(nn.Conv2d(channels[at], K, 1) for at in self.skips)
        for layer in (self.score, *self.skip_scores):  # scores begin at 0, as in the paper
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        finest = self.skips[-1] if self.skips else self.coarsest
        self.upsampling = nn.ModuleList(upsampling(K, 2, padding) for _ in self.skips)
        self.last = upsampling(K, finest, padding)
        for layer in (*self.upsampling, self.last):
            layer.requires_grad_(learn_upsampling)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        H, W = x_BCHW.shape[-2:]
        # To a whole number of the coarsest cells: Caffe's poolings round up. The first convolution pads with one more.
        border = BORDER - 1 if self.padding == "paper" else 0
        missing = (-(size + 2 * border) % self.coarsest for size in (W, H))
        padded = F.pad(x_BCHW, [side for more in missing for side in (border, border + more)])
        maps = self.trunk.maps(padded)
        # Of several at a stride the first: pool4, not conv5.
        by_stride = {round(padded.shape[-1] / each.shape[-1]): each for each in reversed(maps)}
        scores = self.score(self.head(maps[-1]))
        for at, score, up in zip(self.skips, self.skip_scores, self.upsampling, strict=True):
            scores = up(scores)
            offset = SKIP_CROPS[at] if self.padding == "paper" else 0
            scores = scores + cut(score(by_stride[at]), offset, *scores.shape[-2:])
        finest = self.skips[-1] if self.skips else self.coarsest
        return cut(self.last(scores), CROPS[finest] if self.padding == "paper" else 0, H, W)


def cut(x_BKHW: Tensor, offset: int, height: int, width: int) -> Tensor:
    return x_BKHW[..., offset : offset + height, offset : offset + width]


def bilinear_kernel(size: int) -> Tensor:
    """[size, size], the weights of bilinear interpolation around the centre."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    weight = 1 - (torch.arange(size) - centre).abs() / factor
    return weight.unsqueeze(1) * weight.unsqueeze(0)


def upsampling(num_classes: int, factor: int, padding: str = "same") -> nn.ConvTranspose2d:
    """A transposed convolution that begins as bilinear interpolation of each class by `factor`. padding: `same` gives
    maps of exactly `factor` times the size, `paper` the whole of them, to be cut."""
    layer = nn.ConvTranspose2d(
        num_classes, num_classes, 2 * factor, factor, padding=factor // 2 if padding == "same" else 0, bias=False
    )
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[range(num_classes), range(num_classes)] = bilinear_kernel(2 * factor).to(layer.weight.device)
    return layer
