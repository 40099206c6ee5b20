"""Faster R-CNN (Ren, He, Girshick, Sun 2015, arXiv:1506.01497): the network proposes its regions itself.

A small network slides over the trunk's maps and says of each anchor whether an object is there, and how to move it
(RPN); the best of them are regions for Fast R-CNN's head on the same maps. Both learn at once (approximate joint
training), or in turns (alternating training); no gradient goes through the places of the proposals. With a pyramid of
maps (FPN, Lin et al. 2017) both look at all of them.
Shapes: B images, N anchors, P proposals, M objects, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.models.detection.fpn import FPN
from dlx.models.detection.regions import RegionHead, anchors, assign, clip, decode, encode, sample, smooth_l1
from dlx.models.layers import check_stride, frozen, maps_at
from dlx.tasks.average_precision import box_iou
from dlx.tasks.detection import Detector, padded
from dlx.tasks.spec import BoxedImages, SizedBoxedImages
from dlx.tasks.system import Batch, Objective, Trunk

ALTERNATION = ("rpn", "head", "shared_rpn", "shared_head")  # what learns in the four stages of alternating training
POOLED = 4  # maps of a pyramid that regions are pooled from: P2 to P5


class RPN(nn.Module):
    """A 3x3 convolution, and 1x1 ones for two logits and four corrections of each anchor of a cell (section 3.1)."""

    def __init__(self, in_channels: int, channels: int, per_cell: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.score = nn.Conv2d(channels, 2 * per_cell, 1)
        self.box = nn.Conv2d(channels, 4 * per_cell, 1)
        for layer in (self.conv, self.score, self.box):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits [B, N, 2] (no object, object) and corrections [B, N, 4], map by map, the anchors of a cell next to
        each other."""
        hidden = [F.relu(self.conv(maps_BCHW)) for maps_BCHW in maps]
        logits, delta = (
            torch.cat([layer(x).permute(0, 2, 3, 1).reshape(len(x), -1, size) for x in hidden], 1)
            for layer, size in ((self.score, 2), (self.box, 4))
        )
        return logits, delta


class FasterRCNN(Detector):
    """trunk: a network that offers `maps` (vgg, resnet); stride: of the map that is used, of several the last
    (conv5 of VGG). sizes: of the anchors, sides of a square in pixels; ratios: height over width. channels: of the
    RPN. units: of the head's dense layers.

    fpn: channels of a pyramid of maps at strides 4 to 64 (256 in the paper), used instead of the one of `stride`; then
    each has anchors of one of five `sizes` (32 to 512 in the paper), and a region of side `canonical` is pooled at
    stride 16, one of half the side at half the stride, down to 4 and up to 32. Of the proposals of all maps together
    those that overlap a better one are left out.

    training: `joint` learns all at once. `alternating` has four stages of a quarter of the steps each (section 3.2):
    the RPN with a trunk of its own; the head with another trunk, on proposals of the first; the RPN on the head's
    trunk, which stays as it is; the head on it again. Both trunks begin with the same weights, as the paper's two do
    with those of a classifier; the first one is in the checkpoint, but has no part in the answer. Layers that learn
    again go on from where they were.

    anchors_sampled: of an image, half of them positive at most: from an overlap of 0.7 on, or an object's best;
    negative below 0.3. proposals: the best that are kept, in training and in evaluation, after those that overlap a
    better one by 0.7 are left out. regions: that the head learns from, of an image. beta: of both smooth L1 losses,
    where they become linear.
    """

    takes = ("weight",)

    def __init__(
        self,
        *,
        spec: SizedBoxedImages | BoxedImages,
        trunk: Trunk,
        stride: int = 16,
        training: Literal["joint", "alternating"] = "joint",
        fpn: int | None = None,
        canonical: float = 224,
        sizes: tuple[float, ...] = (128, 256, 512),
        ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
        channels: int = 512,
        units: int = 4096,
        pooling: Literal["pool", "align"] = "pool",
        dropout: float = 0.5,
        anchors_sampled: int = 256,
        proposals: tuple[int, int] = (2000, 300),
        regions: int = 128,
        beta: float = 1 / 9,
        least_score: float = 0.05,
        overlap: float = 0.3,
    ) -> None:
        super().__init__(spec=spec)
        checks.at_least(1, channels=channels, units=units, anchors_sampled=anchors_sampled, regions=regions)
        checks.at_least(1, proposals=min(proposals))
        checks.above(0, sizes=min(sizes, default=0), ratios=min(ratios, default=0), beta=beta, canonical=canonical)
        checks.between("[0, 1)", dropout=dropout, least_score=least_score)
        checks.between("(0, 1)", overlap=overlap)
        checks.one_of(("pool", "align"), pooling=pooling)
        checks.one_of(("joint", "alternating"), training=training)
        self.trunk: Any = trunk
        if fpn is None:
            self.strides, map_features = (stride,), check_stride(trunk, stride, spec.image.channels)
            self.sizes = [tuple(sizes)]
        else:
            self.trunk = FPN(trunk=trunk, in_channels=spec.image.channels, channels=fpn)
            self.strides, map_features = self.trunk.strides, fpn
            self.sizes = [(size,) for size in sizes]
            if len(sizes) != len(self.strides):
                raise ValueError(
                    f"sizes must be {len(self.strides)}, one of each map of the pyramid, got {list(sizes)}"
                )
        self.ratios = tuple(ratios)
        self.first_trunk: Any = None
        if training == "alternating":
            self.first_trunk = deepcopy(self.trunk)
            self.is_shared = nn.Buffer(torch.zeros((), dtype=torch.bool))  # whether the RPN reads the head's trunk
        self.anchors_sampled, self.proposals, self.beta = anchors_sampled, proposals, beta
        self.least_score, self.overlap = least_score, overlap
        self.rpn = RPN(map_features, channels, len(self.sizes[0]) * len(self.ratios))
        self.head = RegionHead(
            map_features, len(self.classes), strides=self.strides[:POOLED], canonical=canonical, units=units,
            pooling=pooling, dropout=dropout, count=regions, beta=beta,
        )  # fmt: skip

    def maps(self, x_BCHW: Tensor, trunk: Any = None) -> list[Tensor]:
        """A trunk's map of each stride, [B, C, H / stride, W / stride]; None is the one that is kept in the end."""
        trunk = self.trunk if trunk is None else trunk
        return trunk.maps(x_BCHW) if isinstance(trunk, FPN) else maps_at(trunk, x_BCHW, self.strides)

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """What the RPN says of each anchor."""
        found: tuple[Tensor, Tensor] = self.rpn(self.maps(x_BCHW))
        return found

    def anchors_of(self, maps: Sequence[Tensor]) -> Tensor:
        of_maps = zip(maps, self.strides, self.sizes, strict=True)
        found = [anchors(each.shape[2], each.shape[3], stride, sizes, self.ratios) for each, stride, sizes in of_maps]
        return torch.cat(found).to(maps[0].device)

    def stage_starts(self, total_steps: int) -> list[int]:
        if self.first_trunk is None:
            return [0]
        if total_steps < len(ALTERNATION):
            raise ValueError(f"training: alternating takes {len(ALTERNATION)} steps or more, got {total_steps}")
        return [stage * total_steps // len(ALTERNATION) for stage in range(len(ALTERNATION))]

    def objectives(self, stage: int = 0) -> list[Objective]:
        if self.first_trunk is None:
            return super().objectives(stage)
        parts = ((self.first_trunk, self.rpn), (self.trunk, self.head), (self.rpn,), (self.head,))
        return [Objective.of(ALTERNATION[stage], *parts[stage])]

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        """Jointly the RPN's terms and the head's; in turns those of the one that learns."""
        image, boxes_BM5, size_B2 = batch["image"], batch["boxes"], self.image_sizes(batch)
        turn = objective.name if objective.name in ALTERNATION else None
        proposer = self.first_trunk if turn in ALTERNATION[:2] else self.trunk
        if turn is not None:
            self.is_shared.fill_(proposer is self.trunk)
        with nullcontext() if turn in (None, "rpn") else frozen(proposer):
            maps = self.maps(image, proposer)
        with frozen(self.rpn) if turn in ("head", "shared_head") else nullcontext():
            logits_BN2, delta_BN4 = self.rpn(maps)
        anchors_N4 = self.anchors_of(maps)
        terms: dict[str, Tensor] = {}
        if turn in (None, "rpn", "shared_rpn"):
            terms |= self.rpn_losses(logits_BN2, delta_BN4, anchors_N4, boxes_BM5, size_B2)
        if turn in (None, "head", "shared_head"):
            with torch.no_grad():
                regions, valid = self.propose(logits_BN2, delta_BN4, anchors_N4, size_B2, self.proposals[0])
            maps = self.maps(image, self.trunk) if turn == "head" else maps
            terms |= self.head.losses(maps, regions, valid, boxes_BM5)
        return self.total(terms, batch)

    def rpn_losses(
        self, logits_BN2: Tensor, delta_BN4: Tensor, anchors_N4: Tensor, boxes_BM5: Tensor, size_B2: Tensor
    ) -> dict[str, Tensor]:
        """rpn_class and rpn_box, [B]: means over the sampled anchors. Anchors that leave the image do not count."""
        there_BM = boxes_BM5[..., 4] >= 0
        inside_BN = (anchors_N4[:, :2] >= 0).all(1) & (anchors_N4[:, 2:] <= size_B2.flip(1).unsqueeze(1)).all(2)
        iou_BNM = box_iou(anchors_N4.expand(len(boxes_BM5), -1, 4), boxes_BM5[..., :4])
        iou_BNM = iou_BNM * inside_BN.unsqueeze(2)  # none outside is an object's best
        object_BN, state_BN = assign(iou_BNM, there_BM, high=0.7, low=0.3, best_too=True)
        taken_BN = sample(state_BN.where(inside_BN, -1), self.anchors_sampled, 0.5)
        positive_BN = taken_BN & (state_BN == 1)
        matched_BN4 = boxes_BM5.gather(1, object_BN.unsqueeze(-1).expand(-1, -1, 5))[..., :4]
        class_BN = F.cross_entropy(logits_BN2.float().movedim(-1, 1), positive_BN.long(), reduction="none")
        box_BN = smooth_l1(delta_BN4.float() - encode(matched_BN4, anchors_N4), self.beta).sum(-1)
        count_B = taken_BN.sum(1).clamp_min(1)
        return {
            "rpn_class": (class_BN * taken_BN).sum(1) / count_B,
            "rpn_box": (box_BN.masked_fill(~positive_BN, 0)).sum(1) / count_B,
        }

    def propose(
        self, logits_BN2: Tensor, delta_BN4: Tensor, anchors_N4: Tensor, size_B2: Tensor, count: int
    ) -> tuple[Tensor, Tensor]:
        """The best proposals of each image, [B, P, 4], padded, and which there are, [B, P]."""
        from torchvision.ops import nms

        score_BN = logits_BN2[..., 1].float() - logits_BN2[..., 0].float()
        box_BN4 = clip(decode(delta_BN4.float(), anchors_N4), size_B2.unsqueeze(1))
        wide_BN = ((box_BN4[..., 2:] - box_BN4[..., :2]) >= 1).all(-1)
        first_BP = score_BN.masked_fill(~wide_BN, -torch.inf).topk(min(6 * count, score_BN.shape[1]), dim=1)
        regions = box_BN4.new_zeros(len(box_BN4), count, 4)
        valid = torch.zeros(len(box_BN4), count, dtype=torch.bool, device=box_BN4.device)
        for number, (score, index) in enumerate(zip(*first_BP, strict=True)):
            box = box_BN4[number, index]
            kept = nms(box, score, 0.7)[:count]
            regions[number, : len(kept)], valid[number, : len(kept)] = box[kept], score[kept] > -torch.inf
        return regions, valid

    def detect(self, batch: Batch) -> Tensor:
        image, size_B2 = batch["image"], self.image_sizes(batch)
        maps = self.maps(image, self.trunk)
        proposing = maps
        if self.first_trunk is not None and not self.is_shared:
            proposing = self.maps(image, self.first_trunk)
        logits_BN2, delta_BN4 = self.rpn(proposing)
        regions, valid = self.propose(logits_BN2, delta_BN4, self.anchors_of(maps), size_B2, self.proposals[1])
        return padded(
            self.head.detections(maps, regions, valid, size_B2, least_score=self.least_score, overlap=self.overlap)
        )
