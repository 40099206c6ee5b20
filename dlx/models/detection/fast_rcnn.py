"""Fast R-CNN (Girshick 2015, arXiv:1504.08083): one pass over the image, and a class and a box for each proposal.

The proposals come with the data (`dataset.proposals`). Their features are pooled from the trunk's map, and classes and
boxes are learned together, in one network.
Shapes: B images, P proposals, M objects, C channels, H height, W width.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from dlx.config import checks
from dlx.models.detection.regions import RegionHead
from dlx.models.layers import check_stride, maps_at
from dlx.tasks.detection import Detector, padded
from dlx.tasks.spec import ProposedBoxes, SizedProposedBoxes
from dlx.tasks.system import Batch, Objective, Trunk


class FastRCNN(Detector):
    """trunk: a network that offers `maps` (vgg, resnet); stride: of the map that is used, of several the last
    (conv5 of VGG). units: of the head's dense layers. regions: that the head learns from, of an image, a quarter of
    them positive at most; negative ones overlap an object by `low` or more (0.1 in the paper: hard ones).
    """

    takes = ("weight",)
    spec: SizedProposedBoxes | ProposedBoxes

    def __init__(
        self,
        *,
        spec: SizedProposedBoxes | ProposedBoxes,
        trunk: Trunk,
        stride: int = 16,
        units: int = 4096,
        pooling: Literal["pool", "align"] = "pool",
        dropout: float = 0.5,
        regions: int = 64,
        low: float = 0.1,
        least_score: float = 0.05,
        overlap: float = 0.3,
    ) -> None:
        super().__init__(spec=spec)
        checks.at_least(1, units=units, regions=regions)
        checks.between("[0, 1)", dropout=dropout, least_score=least_score)
        checks.between("[0, 0.5)", low=low)
        checks.between("(0, 1)", overlap=overlap)
        checks.one_of(("pool", "align"), pooling=pooling)
        map_features = check_stride(trunk, stride, spec.image.channels)
        self.trunk: Any = trunk
        self.stride, self.least_score, self.overlap = stride, least_score, overlap
        self.head = RegionHead(
            map_features, len(self.classes), strides=(stride,), units=units, pooling=pooling, dropout=dropout,
            count=regions, low=low,
        )  # fmt: skip

    def maps(self, x_BCHW: Tensor) -> list[Tensor]:
        """The trunk's map of the stride, [B, C, H / stride, W / stride]."""
        return maps_at(self.trunk, x_BCHW, (self.stride,))

    def forward(self, image: Tensor, proposals: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, P, K + 1] and box corrections [B, P, K, 4] of each proposal."""
        found: tuple[Tensor, Tensor] = self.head(self.maps(image), proposals.clamp_min(0))
        return found

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        proposals = batch["proposals"]
        there_BP = proposals[..., 0] >= 0
        terms = self.head.losses(self.maps(batch["image"]), proposals.clamp_min(0), there_BP, batch["boxes"])
        return self.total(terms, batch)

    def detect(self, batch: Batch) -> Tensor:
        proposals = batch["proposals"]
        return padded(
            self.head.detections(
                self.maps(batch["image"]), proposals.clamp_min(0), proposals[..., 0] >= 0, self.image_sizes(batch),
                least_score=self.least_score, overlap=self.overlap,
            )
        )  # fmt: skip
