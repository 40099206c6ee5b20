"""SPPNet (He, Zhang, Ren, Sun 2014, arXiv:1406.4729): one pass over the image, a pyramid of bins for each region.

Each region of the map is pooled into 6x6, 3x3, 2x2 and 1x1 bins, so that regions of any size give features of one
length. First all is trained together; then, as in the paper, where no gradient goes through the pyramid, the dense
layers alone.
Shapes: B images, R regions, C channels, H height, W width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlx.config import checks
from dlx.models.detection.region_classifier import RegionClassifier
from dlx.models.detection.regions import rows_of
from dlx.models.layers import check_stride, map_at
from dlx.tasks.spec import ProposedBoxes, SizedProposedBoxes
from dlx.tasks.system import Objective, Trunk

PYRAMID = (6, 3, 2, 1)  # bins of a side: 50 in all


class SPPNet(RegionClassifier):
    """trunk: a network that offers `maps` (vgg, resnet); stride: of the map that is used, of several the last
    (conv5 of VGG). together: share of the training in which the trunk learns too; 0 where it comes from a run. For
    the others see `RegionClassifier`."""

    def __init__(
        self,
        *,
        spec: SizedProposedBoxes | ProposedBoxes,
        trunk: Trunk,
        stride: int = 16,
        pyramid: tuple[int, ...] = PYRAMID,
        together: float = 0.5,
        units: int = 4096,
        dropout: float = 0.5,
        regions: int = 64,
        machines: bool = True,
        cost: float = 1e-3,
        refine: bool = True,
        overlap: float = 0.3,
    ) -> None:
        checks.at_least(1, pyramid=min(pyramid, default=0))
        checks.between("[0, 1]", together=together)
        map_features = check_stride(trunk, stride, spec.image.channels)
        bins = sum(size**2 for size in pyramid)
        super().__init__(
            spec=spec, map_features=bins * map_features, units=units, dropout=dropout, regions=regions,
            machines=machines, cost=cost, refine=refine, overlap=overlap,
        )  # fmt: skip
        network: Any = trunk
        self.trunk, self.stride, self.pyramid, self.together = network, stride, tuple(pyramid), together

    def stage_starts(self, total_steps: int) -> list[int]:
        alone = round(self.together * total_steps)
        if not 0 < alone < total_steps:
            return [0]
        return [0, alone]

    def objectives(self, stage: int = 0) -> list[Objective]:
        """The dense layers, and in the first stage the trunk too."""
        parts = [self.dense, self.score]
        if self.together > 0 and stage == 0:
            parts.append(self.trunk)
        return [Objective.of("loss", *parts)]

    def region_maps(self, image_BCHW: Tensor, regions_BR4: Tensor) -> Tensor:
        """[B R, C, 50]."""
        maps_BCHW = map_at(self.trunk, image_BCHW, self.stride)
        return spatial_pyramid(maps_BCHW, regions_BR4 / self.stride, self.pyramid)


def spatial_pyramid(maps_BCHW: Tensor, regions_BR4: Tensor, pyramid: tuple[int, ...] = PYRAMID) -> Tensor:
    """[B R, C, bins]: the greatest value of each bin, of the cells that a region touches.

    Bin i of n takes the cells from floor(i w / n) to ceil((i + 1) w / n) of the region's w, as adaptive max pooling
    does. regions: in cells.
    """
    from torchvision.ops import roi_pool

    H, W = maps_BCHW.shape[-2:]
    last_2 = maps_BCHW.new_tensor([W - 1, H - 1])
    first_BR2 = torch.minimum(regions_BR4[..., :2].floor().clamp_min(0), last_2)
    end_BR2 = torch.minimum(torch.maximum(regions_BR4[..., 2:].ceil() - 1, first_BR2), last_2)
    rows = rows_of(torch.cat([first_BR2, end_BR2], 2), maps_BCHW.dtype)
    return torch.cat([roi_pool(maps_BCHW, rows, size).flatten(2) for size in pyramid], 2)
