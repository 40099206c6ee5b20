"""ResNet (He, Zhang, Ren, Sun 2015, arXiv:1512.03385): blocks that learn a residual, y = relu(F(x) + shortcut(x)).

Two families: depths 18 to 152 have four stages (table 1), depths 6n + 2 three narrow ones (section 4.2, CIFAR-10).
Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.models.layers import conv, drop_path, require_size
from dlx.tasks.spec import LabeledImages
from dlx.tasks.supervised import Supervised

Shortcut = Literal["identity", "projection", "projection_all", "none"]

# depth -> (blocks per stage, whether blocks are bottlenecks); table 1 of the paper.
IMAGENET = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
CIFAR = (20, 32, 44, 56, 110)


class Subsample(nn.Module):
    """Option A: every second pixel, and zeros for the channels that are new. No parameters."""

    def __init__(self, stride: int, new_channels: int) -> None:
        super().__init__()
        self.stride, self.new_channels = stride, new_channels

    def forward(self, x_BCHW: Tensor) -> Tensor:
        half, rest = divmod(self.new_channels, 2)
        return F.pad(x_BCHW[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half + rest))


class Block(nn.Module):
    """Two 3x3 convolutions, or a bottleneck 1x1 - 3x3 - 1x1 that widens fourfold; batch norm after each.

    drop: probability that a sample gets the shortcut alone, in training.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        *,
        bottleneck: bool,
        shortcut: Shortcut,
        stride_on: str,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        out_channels = 4 * width if bottleneck else width
        if bottleneck:
            first, second = (stride, 1) if stride_on == "1x1" else (1, stride)
            self.conv1, self.bn1 = conv(in_channels, width, 1, first), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = conv(width, width, 3, second), nn.BatchNorm2d(width)
            self.conv3, self.bn3 = conv(width, out_channels, 1), nn.BatchNorm2d(out_channels)
        else:
            self.conv1, self.bn1 = conv(in_channels, width, 3, stride), nn.BatchNorm2d(width)
            self.conv2, self.bn2 = conv(width, width, 3), nn.BatchNorm2d(width)
        self.bottleneck, self.drop = bottleneck, drop
        self.is_plain = shortcut == "none"
        changes = stride != 1 or in_channels != out_channels
        self.shortcut: nn.Module = nn.Identity()
        if changes and shortcut == "identity":
            self.shortcut = Subsample(stride, out_channels - in_channels)
        elif shortcut == "projection_all" or (changes and shortcut == "projection"):
            self.shortcut = nn.Sequential(conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        return self.bn3 if self.bottleneck else self.bn2

    def forward(self, x_BCHW: Tensor) -> Tensor:
        residual = F.relu(self.bn1(self.conv1(x_BCHW)), inplace=True)
        residual = self.bn2(self.conv2(residual))
        if self.bottleneck:
            residual = self.bn3(self.conv3(F.relu(residual, inplace=True)))
        residual = drop_path(residual, self.drop, self.training)
        if not self.is_plain:
            residual = residual + self.shortcut(x_BCHW)
        return F.relu(residual, inplace=True)


class ResNet(Supervised):
    """depth: 18, 34, 50, 101, 152, or 20, 32, 44, 56, 110; None is 20 for images below 64 pixels and 18 above.

    shortcut: where shapes change, `identity` is option A (no parameters), `projection` option B; `projection_all`
    (option C) projects in every block, and `none` leaves out every shortcut (the paper's plain network). None is A for
    the narrow family and B for the other, as in the paper. stem: `7x7` with stride 2 and pooling, which makes images 4
    times smaller, or `3x3`; None is 7x7 from 64 pixels up. stride_on: where a bottleneck (depth 50, 101, 152) strides;
    the paper's 1x1, or torchvision's 3x3. zero_init_residual: each block begins as its shortcut (Goyal et al. 2017).
    stochastic_depth: in training the last block's residual is dropped at this rate, the first ones' hardly, linearly in
    between (Huang et al. 2016, arXiv:1603.09382; 0.5 there). Drawn for each sample; the paper draws for the batch.
    """

    def __init__(
        self,
        *,
        spec: LabeledImages,
        depth: int | None = None,
        shortcut: Literal["identity", "projection", "projection_all", "none"] | None = None,
        stem: Literal["3x3", "7x7"] | None = None,
        stride_on: Literal["1x1", "3x3"] = "1x1",
        zero_init_residual: bool = False,
        stochastic_depth: float = 0.0,
        loss: str | None = None,
    ) -> None:
        super().__init__(spec=spec, loss=loss)
        side = min(spec.image.height, spec.image.width)
        if depth is None:
            depth = 18 if side >= 64 else 20
        checks.one_of((*IMAGENET, *CIFAR), depth=depth)
        checks.one_of(get_args(Shortcut), shortcut=shortcut)
        checks.one_of(("3x3", "7x7"), stem=stem)
        checks.one_of(("1x1", "3x3"), stride_on=stride_on)
        blocks, bottleneck = IMAGENET.get(depth, (((depth - 2) // 6,) * 3, False))
        if stride_on == "3x3" and not bottleneck:
            raise ValueError(f"stride_on=3x3 is for bottlenecks (depth 50, 101, 152), and depth {depth} has none")
        if zero_init_residual and shortcut == "none":
            raise ValueError("zero_init_residual needs a shortcut: without one every block would give zero")
        checks.between("[0, 1)", stochastic_depth=stochastic_depth)
        if stochastic_depth and shortcut == "none":
            raise ValueError("stochastic_depth needs a shortcut: without one a dropped block would give zero")
        narrow = depth in CIFAR
        large = stem == "7x7" if stem else side >= 64
        smallest = (4 if large else 1) * 2 ** (len(blocks) - 1)
        require_size(spec.image, smallest, f"depth {depth} with the {'7x7' if large else '3x3'} stem")
        chosen: Shortcut = shortcut or ("identity" if narrow else "projection")
        channels = 16 if narrow else 64

        self.conv1 = conv(spec.image.channels, channels, 7 if large else 3, 2 if large else 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.pool = nn.MaxPool2d(3, 2, padding=1) if large else nn.Identity()
        stages, in_channels, position = [], channels, 0
        for stage, count in enumerate(blocks):
            width = channels * 2**stage
            layers = []
            for number in range(count):
                stride = 2 if stage and not number else 1
                position += 1
                layers.append(
                    Block(
                        in_channels,
                        width,
                        stride,
                        bottleneck=bottleneck,
                        shortcut=chosen,
                        stride_on=stride_on,
                        drop=stochastic_depth * position / sum(blocks),
                    )
                )
                in_channels = 4 * width if bottleneck else width
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.fc = self.make_head(in_channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Block) and zero_init_residual:
                nn.init.zeros_(module.last_norm.weight)

    def maps(self, x_BCHW: Tensor) -> list[Tensor]:
        """The maps after each stage, the finest first."""
        x_BCHW = self.pool(F.relu(self.bn1(self.conv1(x_BCHW)), inplace=True))
        found = []
        for stage in self.stages:
            x_BCHW = stage(x_BCHW)
            found.append(x_BCHW)
        return found

    def features(self, x_BCHW: Tensor) -> Tensor:
        """The last stage's maps, [B, C, h, w]."""
        return self.stages(self.pool(F.relu(self.bn1(self.conv1(x_BCHW)), inplace=True)))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.fc(self.features(x_BCHW).mean((2, 3)))
