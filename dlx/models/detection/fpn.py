"""FPN (Lin, Dollár, Girshick, He, Hariharan, Belongie 2017, arXiv:1612.03144): maps of several strides, all deep.

From the coarsest map down each is enlarged and added to the trunk's own map of the next stride, so that fine maps know
what coarse ones found. An FPN is itself a trunk: it offers `maps`.
Shapes: B images, C channels, H height, W width.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.models.layers import check_maps, map_channels, maps_at

STRIDES = (4, 8, 16, 32)  # of the trunk's maps that are read: C2 to C5


class FPN(nn.Module):
    """trunk: a network that offers maps at strides 4, 8, 16 and 32 (vgg, resnet). channels: of all maps of the pyramid
    (256 in the paper). Raises ValueError naming `trunk` where it lacks one."""

    strides = (*STRIDES, 64)  # P2 to P6

    def __init__(self, *, trunk: Any, in_channels: int, channels: int = 256) -> None:
        super().__init__()
        checks.at_least(1, channels=channels)
        check_maps(trunk)
        found = map_channels(trunk, in_channels)
        if missing := [stride for stride in STRIDES if stride not in found]:
            raise ValueError(f"trunk must offer maps at strides {list(STRIDES)} for a pyramid, it has no {missing}")
        self.trunk, self.channels = trunk, channels
        self.lateral = nn.ModuleList(nn.Conv2d(found[stride], channels, 1) for stride in STRIDES)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in STRIDES)
        for layer in (*self.lateral, *self.output):
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)

    def maps(self, x_BCHW: Tensor) -> list[Tensor]:
        """P2 to P6, the finest first: [B, C, H / 4, W / 4] to [B, C, H / 64, W / 64], the last one each second cell of
        the one before."""
        return self.top_down(maps_at(self.trunk, x_BCHW, STRIDES))

    def top_down(self, maps: list[Tensor]) -> list[Tensor]:
        """The pyramid over the maps of the trunk, C2 to C5."""
        sides = [lateral(each) for lateral, each in zip(self.lateral, maps, strict=True)]
        merged = [sides[-1]]
        for side in reversed(sides[:-1]):
            merged.append(side + F.interpolate(merged[-1], size=side.shape[-2:], mode="nearest"))
        found = [layer(each) for layer, each in zip(self.output, reversed(merged), strict=True)]
        return [*found, F.max_pool2d(found[-1], 1, stride=2)]
