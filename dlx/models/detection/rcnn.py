"""R-CNN (Girshick, Donahue, Darrell, Malik 2014, arXiv:1311.2524): a network looks at a crop for each proposal.

Each region, with some context around it, is warped to a square of one size, whatever its shape. The network is trained
to tell the crops apart; on its features a linear SVM is fitted for each class and a regression that corrects boxes.
Shapes: B images, R regions, C channels, S side of a crop.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlx.config import checks
from dlx.models.detection.region_classifier import RegionClassifier
from dlx.models.detection.regions import rows_of
from dlx.models.layers import frozen
from dlx.tasks.spec import ProposedBoxes, SizedProposedBoxes
from dlx.tasks.system import Trunk

CONTEXT = 16 / 227  # of a crop's side, at each side of the region (section 2.1)


class RCNN(RegionClassifier):
    """trunk: a network that offers `features` (AlexNet in the paper); side: of a crop, in pixels. For the others see
    `RegionClassifier`."""

    def __init__(
        self,
        *,
        spec: SizedProposedBoxes | ProposedBoxes,
        trunk: Trunk,
        side: int = 227,
        units: int = 4096,
        dropout: float = 0.5,
        regions: int = 64,
        machines: bool = True,
        cost: float = 1e-3,
        refine: bool = True,
        overlap: float = 0.3,
    ) -> None:
        checks.at_least(8, side=side)
        network: Any = trunk
        with frozen(network):
            maps = network.features(torch.zeros(1, spec.image.channels, side, side))
        super().__init__(
            spec=spec, map_features=maps.numel(), units=units, dropout=dropout, regions=regions, machines=machines,
            cost=cost, refine=refine, overlap=overlap,
        )  # fmt: skip
        self.trunk, self.side = network, side

    def crops(self, image_BCHW: Tensor, regions_BR4: Tensor) -> Tensor:
        """[B R, C, S, S]: regions with their context, each warped to a square; what lies beyond the image is its mean
        colour, 0."""
        from torchvision.ops import roi_align

        size_BR2 = (regions_BR4[..., 2:] - regions_BR4[..., :2]).clamp_min(1)
        more_BR2 = size_BR2 * CONTEXT / (1 - 2 * CONTEXT)
        around_BR4 = torch.cat([regions_BR4[..., :2] - more_BR2, regions_BR4[..., :2] + size_BR2 + more_BR2], -1)
        rows = rows_of(around_BR4, image_BCHW.dtype)
        crops: Tensor = roi_align(image_BCHW, rows, self.side, sampling_ratio=2, aligned=True)
        return crops

    def region_maps(self, image_BCHW: Tensor, regions_BR4: Tensor) -> Tensor:
        maps: Tensor = self.trunk.features(self.crops(image_BCHW, regions_BR4))
        return maps
