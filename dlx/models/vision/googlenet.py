"""GoogLeNet (Szegedy et al. 2014, arXiv:1409.4842): nine Inception blocks, each of four parallel branches, one of them
5x5, made cheap by 1x1 reductions; two auxiliary classifiers in between bring gradients to the lower half.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.models.layers import require_size
from dlx.tasks.spec import LabeledImages
from dlx.tasks.supervised import Supervised
from dlx.tasks.system import Batch, Objective

# Table 1 of the paper: channels of the 1x1 branch, 3x3 reduction, 3x3, 5x5 reduction, 5x5, projection after pooling.
BLOCKS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOLED_BEFORE = ("4a", "5a")
TAPPED = ("4a", "4d")


class Conv(nn.Sequential):
    """Convolution with a bias and ReLU, or convolution, batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, batch_norm: bool) -> None:
        conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=not batch_norm)
        norm = [nn.BatchNorm2d(out_channels, eps=1e-3)] if batch_norm else []
        super().__init__(conv, *norm, nn.ReLU(inplace=True))


class Inception(nn.Module):
    """Four branches over the same maps, concatenated: 1x1; 1x1 - 3x3; 1x1 - 5x5; 3x3 max-pool - 1x1."""

    def __init__(
        self, in_channels: int, channels: tuple[int, ...], *, branch3_kernel: int = 5, batch_norm: bool = False
    ) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, projection = channels
        self.out_channels = one + three + five + projection

        def conv(inside: int, outside: int, kernel: int) -> Conv:
            return Conv(inside, outside, kernel, batch_norm=batch_norm)

        self.branch1 = conv(in_channels, one, 1)
        self.branch2 = nn.Sequential(conv(in_channels, reduce3, 1), conv(reduce3, three, 3))
        self.branch3 = nn.Sequential(conv(in_channels, reduce5, 1), conv(reduce5, five, branch3_kernel))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), conv(in_channels, projection, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.cat([self.branch1(x_BCHW), self.branch2(x_BCHW), self.branch3(x_BCHW), self.branch4(x_BCHW)], 1)


class AuxiliaryHead(nn.Module):
    """4x4 averages - 1x1 convolution - dense - dropout - logits.

    The paper averages 5x5 windows at stride 3, which is defined for its maps of 14x14; maps of another size, and all
    maps where `any_size`, are averaged in a 4x4 grid.
    """

    def __init__(
        self, in_channels: int, width: float, classes: int, *, dropout: float, batch_norm: bool, any_size: bool
    ) -> None:
        super().__init__()
        self.any_size = any_size
        self.conv = Conv(in_channels, round(128 * width), 1, batch_norm=batch_norm)
        self.fc1 = nn.Linear(round(128 * width) * 16, round(1024 * width))
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(round(1024 * width), classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        windows = not self.any_size and x_BCHW.shape[-2:] == (14, 14)
        x_BCHW = F.avg_pool2d(x_BCHW, 5, 3) if windows else F.adaptive_avg_pool2d(x_BCHW, 4)
        return self.fc2(self.dropout(F.relu(self.fc1(self.conv(x_BCHW).flatten(1)))))


class GoogLeNet(Supervised):
    """stem: `paper` (7x7 at stride 2, 1x1, 3x3, two poolings: maps 8 times smaller) or `small` (3x3, 1x1, 3x3 without
    strides or poolings); None is paper from 64 pixels up. The nine blocks and the two poolings between them stay.

    width: factor of all channels; None is 1 with the paper's stem, 1/4 with the small one.
    batch_norm: after each convolution, which then has no bias; the paper has none. lrn: local response normalization in
    the stem (figure 3); None is on with the paper's stem and no batch norm. branch3_kernel: the paper's 5, or
    torchvision's 3. pools: torchvision's fourth pooling is 2x2, not 3x3, and its heads average any map in a 4x4 grid.
    aux_heads: whether there are auxiliary classifiers (after 4a and 4d, in training only); aux_weight: of their losses.
    dropout and aux_dropout: rates before the last layer of each classifier.
    """

    def __init__(
        self,
        *,
        spec: LabeledImages,
        aux_heads: bool = True,
        aux_weight: float = 0.3,
        batch_norm: bool = False,
        lrn: bool | None = None,
        branch3_kernel: Literal[3, 5] = 5,
        pools: Literal["paper", "torchvision"] = "paper",
        stem: Literal["paper", "small"] | None = None,
        width: float | None = None,
        dropout: float = 0.4,
        aux_dropout: float = 0.7,
        loss: str | None = None,
    ) -> None:
        super().__init__(spec=spec, loss=loss)
        side = min(spec.image.height, spec.image.width)
        checks.one_of(("paper", "small"), stem=stem)
        large = stem == "paper" if stem else side >= 64
        if width is None:
            width = 1.0 if large else 0.25
        checks.between("[0, 1)", dropout=dropout, aux_dropout=aux_dropout)
        checks.at_least(0, aux_weight=aux_weight)
        checks.one_of((3, 5), branch3_kernel=branch3_kernel)
        checks.one_of(("paper", "torchvision"), pools=pools)
        if width < 1 / 16:
            raise ValueError(f"width must be at least 1/16, where the narrowest branch has one channel, got {width}")
        require_size(spec.image, *((32, "the paper stem") if large else (4, "the small stem")))
        respond = (large and not batch_norm) if lrn is None else lrn

        def scaled(channels: int) -> int:
            return round(channels * width)

        first, third = scaled(64), scaled(192)
        self.aux_weight = aux_weight
        # k=1 and alpha divided by the 5 channels: the BVLC release of the network.
        lrns = [nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0) if respond else nn.Identity() for _ in range(2)]
        pooling = [nn.MaxPool2d(3, 2, ceil_mode=True) if large else nn.Identity() for _ in range(2)]
        self.stem = nn.Sequential(
            Conv(spec.image.channels, first, 7 if large else 3, 2 if large else 1, batch_norm=batch_norm),
            pooling[0],
            lrns[0],
            Conv(first, first, 1, batch_norm=batch_norm),
            Conv(first, third, 3, batch_norm=batch_norm),
            lrns[1],
            pooling[1],
        )
        self.blocks, self.pools, self.heads = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        in_channels = third
        for name, channels in BLOCKS.items():
            if name in POOLED_BEFORE:
                kernel = 2 if name == "5a" and pools == "torchvision" else 3
                self.pools[name] = nn.MaxPool2d(kernel, 2, ceil_mode=True)
            scaled_channels = tuple(map(scaled, channels))
            block = Inception(in_channels, scaled_channels, branch3_kernel=branch3_kernel, batch_norm=batch_norm)
            self.blocks[name] = block
            in_channels = block.out_channels
            if aux_heads and self.num_outputs and name in TAPPED:
                self.heads[name] = AuxiliaryHead(
                    in_channels,
                    width,
                    self.num_outputs,
                    dropout=aux_dropout,
                    batch_norm=batch_norm,
                    any_size=pools == "torchvision",
                )
        self.dropout = nn.Dropout(dropout)
        self.fc = self.make_head(in_channels)
        self._initialize()

    def _initialize(self) -> None:
        """As in BVLC's release, the paper gives none: variance 1 / fan_in, biases of 0.2. With He's 2 / fan_in the
        maxima of 13 poolings add up, and the loss of 10 classes on 64x64 begins at 5.6 and not near ln 10 = 2.3."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                bound = (3 / module.weight[0].numel()) ** 0.5
                nn.init.uniform_(module.weight, -bound, bound)
                if module.bias is not None:
                    nn.init.constant_(module.bias, 0.2)

    def _maps(self, x_BCHW: Tensor) -> dict[str, Tensor]:
        """Each block's output by its name."""
        x_BCHW = self.stem(x_BCHW)
        maps = {}
        for name, block in self.blocks.items():
            if name in self.pools:
                x_BCHW = self.pools[name](x_BCHW)
            maps[name] = x_BCHW = block(x_BCHW)
        return maps

    def features(self, x_BCHW: Tensor) -> Tensor:
        """The last block's maps, [B, C, h, w]."""
        return self._maps(x_BCHW)["5b"]

    def _classify(self, x_BCHW: Tensor) -> Tensor:
        return self.fc(self.dropout(x_BCHW.mean((2, 3))))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self._classify(self.features(x_BCHW))

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        """main + aux_weight (aux1 + aux2); the parts are logged as loss_main, loss_aux1 and loss_aux2."""
        maps = self._maps(batch[self.input_name])
        output = self._classify(maps["5b"])
        loss, logs = self.target.loss(output, batch), self.target.logs(output.detach(), batch)
        if not self.training or not self.heads:
            return loss, logs
        logs["loss_main"] = loss.detach()
        for number, (name, head) in enumerate(self.heads.items(), start=1):
            aux = self.target.loss(head(maps[name]), batch)
            loss = loss + self.aux_weight * aux
            logs[f"loss_aux{number}"] = aux.detach()
        return loss, logs
