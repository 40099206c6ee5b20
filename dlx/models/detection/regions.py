"""What the R-CNN family shares: box coding, which regions count as what, and the head that classifies regions.

Boxes are x1, y1, x2, y2. Everything is padded, with a mask, so that a step waits for no count from the device.
Shapes: B images, N regions or anchors of an image, M objects, R sampled regions, K classes (background is class K).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.tasks.average_precision import MOST, box_iou

LARGEST = math.log(1000 / 16)  # of a predicted log of a size: what exp makes of more is no box
SCALES = (0.1, 0.1, 0.2, 0.2)  # of the targets of a head: their standard deviations, about (Fast R-CNN's code)


def encode(box: Tensor, reference: Tensor) -> Tensor:
    """(Gx - Px) / Pw, (Gy - Py) / Ph, ln(Gw / Pw), ln(Gh / Ph) with centres (R-CNN, appendix C), [..., 4]."""
    size, size_0 = ((x[..., 2:] - x[..., :2]).clamp_min(1e-3) for x in (box, reference))
    centre, centre_0 = ((x[..., :2] + x[..., 2:]) / 2 for x in (box, reference))
    return torch.cat([(centre - centre_0) / size_0, (size / size_0).log()], -1)


def decode(delta: Tensor, reference: Tensor) -> Tensor:
    """The inverse of `encode`."""
    size_0 = reference[..., 2:] - reference[..., :2]
    centre = (reference[..., :2] + reference[..., 2:]) / 2 + delta[..., :2] * size_0
    half = delta[..., 2:].clamp_max(LARGEST).exp() * size_0 / 2
    return torch.cat([centre - half, centre + half], -1)


def clip(box: Tensor, size: Tensor) -> Tensor:
    """Boxes cut by the border of the image. size: its height and width, [..., 2]."""
    return torch.minimum(box.clamp_min(0), torch.cat([size.flip(-1)] * 2, -1).to(box.dtype))


def anchors(rows: int, columns: int, stride: int, sizes: tuple[float, ...], ratios: tuple[float, ...]) -> Tensor:
    """[rows columns A, 4], around the middle of each cell, ratio by ratio; ratios are height over width. Rounded as in
    the published code, whose base is a cell: with stride 16 and sizes 128, 256, 512 they are its nine."""
    shapes = []
    for ratio in ratios:
        width = round(math.sqrt(stride**2 / ratio))
        height = round(width * ratio)
        shapes += [(width * size / stride, height * size / stride) for size in sizes]
    half_A2 = torch.tensor(shapes) / 2
    middle_RC2 = torch.stack(
        [
            ((torch.arange(columns) + 0.5) * stride).expand(rows, columns),
            ((torch.arange(rows) + 0.5) * stride).unsqueeze(1).expand(rows, columns),
        ],
        -1,
    )
    low, high = (middle_RC2.unsqueeze(2) + sign * half_A2 for sign in (-1, 1))
    return torch.cat([low, high], -1).view(-1, 4)


def assign(
    iou_BNM: Tensor, there_BM: Tensor, *, high: float, low: float, least: float = 0.0, best_too: bool = False
) -> tuple[Tensor, Tensor]:
    """The object that each region overlaps most, int64 [B, N], and its state, int64 [B, N]: 1 from `high` on, 0 from
    `least` to below `low`, -1 between and below. best_too: of each object the regions with its best overlap are 1,
    however small (Faster R-CNN, 3.1.2)."""
    iou_BNM = iou_BNM.masked_fill(~there_BM.unsqueeze(1), -1.0)
    best_BN, object_BN = iou_BNM.max(2)
    best_BN = best_BN.clamp_min(0)
    state_BN = torch.where(best_BN >= high, 1, torch.where((best_BN < low) & (best_BN >= least), 0, -1))
    if best_too:
        top_BM = iou_BNM.amax(1)
        is_best_BNM = (iou_BNM >= top_BM.unsqueeze(1) - 1e-6) & (top_BM > 0).unsqueeze(1)
        state_BN = torch.where(is_best_BNM.any(2), 1, state_BN)
    return object_BN, state_BN


def sample(state_BN: Tensor, count: int, share: float) -> Tensor:
    """A mask of `count` regions of an image, or as many as there are: of those of state 1 `share` of them at most, the
    rest of state 0; both at random."""
    draw_BN = torch.rand(state_BN.shape, device=state_BN.device)

    def rank(wanted_BN: Tensor) -> Tensor:
        return draw_BN.masked_fill(~wanted_BN, 2.0).argsort(1).argsort(1)

    positive_BN, negative_BN = state_BN == 1, state_BN == 0
    taken_BN = positive_BN & (rank(positive_BN) < int(count * share))
    left_B1 = count - taken_BN.sum(1, keepdim=True)
    return taken_BN | (negative_BN & (rank(negative_BN) < left_B1))


def sample_regions(
    regions_BN4: Tensor, valid_BN: Tensor, boxes_BM5: Tensor, *, count: int, share: float, low: float = 0.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a head learns from: of each image `count` regions, its objects among them [B, R, 4], the object that each
    overlaps most [B, R, 5], whether it is positive (an overlap of 0.5 or more), and whether it counts.

    share: of the positive ones at most. low: overlap of the others, at least. valid: which regions are no padding.
    """
    there_BM = boxes_BM5[..., 4] >= 0
    regions_BN4 = torch.cat([regions_BN4, boxes_BM5[..., :4]], 1)
    valid_BN = torch.cat([valid_BN, there_BM], 1)
    object_BN, state_BN = assign(box_iou(regions_BN4, boxes_BM5[..., :4]), there_BM, high=0.5, low=0.5, least=low)
    taken_BN = sample(state_BN.where(valid_BN, -1), count, share)
    chosen_BR = taken_BN.float().topk(min(count, taken_BN.shape[1]), dim=1).indices
    taken_BR, object_BR, state_BR = (x.gather(1, chosen_BR) for x in (taken_BN, object_BN, state_BN))
    regions_BR4 = regions_BN4.gather(1, chosen_BR.unsqueeze(-1).expand(-1, -1, 4))
    matched_BR5 = boxes_BM5.gather(1, object_BR.unsqueeze(-1).expand(-1, -1, 5))
    return regions_BR4, matched_BR5, (state_BR == 1) & taken_BR, taken_BR


def rows_of(regions_BR4: Tensor, dtype: torch.dtype) -> Tensor:
    """[B R, 5]: the number of its image before each region, as torchvision's pooling reads them."""
    B, R, _ = regions_BR4.shape
    image_BR1 = torch.arange(B, device=regions_BR4.device, dtype=regions_BR4.dtype).view(B, 1, 1).expand(B, R, 1)
    return torch.cat([image_BR1, regions_BR4], 2).flatten(0, 1).to(dtype)


def best_of(box_NK4: Tensor, score_NK: Tensor, least_score: float, overlap: float) -> Tensor:
    """Detections [D, 6] of an image, the best first: of two of a class that overlap more the better one is kept."""
    from torchvision.ops import batched_nms

    row, kind = (score_NK >= least_score).nonzero().unbind(1)
    box_D4, score_D = box_NK4[row, kind], score_NK[row, kind]
    kept = batched_nms(box_D4, score_D, kind, overlap)[:MOST]
    return torch.cat([box_D4[kept], kind[kept, None], score_D[kept, None]], 1)


def smooth_l1(x: Tensor, beta: float) -> Tensor:
    """x^2 / (2 beta) below beta, |x| - beta / 2 above, elementwise."""
    return F.smooth_l1_loss(x, torch.zeros_like(x), reduction="none", beta=beta)


def level_of(regions: Tensor, strides: Sequence[int], canonical: float) -> Tensor:
    """The number of the map that each region [..., 4] is pooled from: one of side `canonical` at stride 16, one twice
    as large at twice the stride; of maps at strides 4 to 32 it is floor(4 + log2(sqrt(w h) / canonical)) of P2 to P5
    (FPN, arXiv:1612.03144, equation 1)."""
    side = (regions[..., 2:] - regions[..., :2]).clamp_min(0).prod(-1).sqrt()
    level = (side * 16 / (canonical * strides[0])).clamp_min(1e-6).log2() + 1e-6  # a side of exactly 2^n is no less
    return level.floor().long().clamp(0, len(strides) - 1)


class RegionHead(nn.Module):
    """Regions of maps to a class each and a box for each class (Fast R-CNN, arXiv:1504.08083).

    strides: of the maps, each twice the one before; of a pyramid a region is pooled from the map that `level_of` says.
    pooling: `pool` takes the greatest value of each bin, of whole cells; `align` interpolates (arXiv:1703.06870).
    maps: [B, C, H, W] of each stride; further ones are not read.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        strides: Sequence[int],
        canonical: float = 224,
        units: int = 4096,
        bins: int = 7,
        pooling: Literal["pool", "align"] = "pool",
        dropout: float = 0.5,
        count: int = 64,
        share: float = 0.25,
        low: float = 0.0,
        beta: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.strides, self.canonical = num_classes, tuple(strides), canonical
        self.bins, self.pooling = bins, pooling
        self.count, self.share, self.low, self.beta = count, share, low, beta
        self.layers = nn.Sequential(
            nn.Linear(channels * bins**2, units), nn.ReLU(inplace=True), nn.Dropout(dropout),
            nn.Linear(units, units), nn.ReLU(inplace=True), nn.Dropout(dropout),
        )  # fmt: skip
        self.score = nn.Linear(units, num_classes + 1)
        self.box = nn.Linear(units, 4 * num_classes)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.normal_(self.box.weight, std=0.001)
        for layer in (self.score, self.box):
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor], regions_BR4: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, R, K + 1] and box corrections [B, R, K, 4] of regions in pixels of the image."""
        B, R, _ = regions_BR4.shape
        x = self.layers(self.pool(maps, regions_BR4).flatten(1))
        return self.score(x).view(B, R, -1), self.box(x).view(B, R, self.num_classes, 4)

    def pool(self, maps: Sequence[Tensor], regions_BR4: Tensor) -> Tensor:
        """[B R, C, bins, bins]. Each map pools all regions, those of others as an empty one in a corner, which costs
        little: the host does not know how many are its own."""
        from torchvision import ops

        rows_N5 = rows_of(regions_BR4, maps[0].dtype)
        level_N = level_of(regions_BR4, self.strides, self.canonical).flatten()
        found = rows_N5
        for number, (maps_BCHW, stride) in enumerate(zip(maps, self.strides, strict=False)):
            own_N = level_N == number
            own_rows_N5 = rows_N5.masked_fill(~own_N[:, None], 0)
            if self.pooling == "pool":
                pooled: Tensor = ops.roi_pool(maps_BCHW, own_rows_N5, self.bins, 1 / stride)
            else:
                pooled = ops.roi_align(maps_BCHW, own_rows_N5, self.bins, 1 / stride, sampling_ratio=2, aligned=True)
            found = torch.where(own_N[:, None, None, None], pooled, found) if number else pooled
        return found

    def losses(
        self, maps: Sequence[Tensor], regions_BN4: Tensor, valid_BN: Tensor, boxes_BM5: Tensor
    ) -> dict[str, Tensor]:
        """class and box, [B]: over `count` of an image's regions and its objects, `share` of them from an overlap of
        0.5 with an object on, the others from `low` to 0.5. Both are means over the sampled regions, and a box is the
        sum over its four numbers."""
        regions_BR4, matched_BR5, positive_BR, taken_BR = sample_regions(
            regions_BN4, valid_BN, boxes_BM5, count=self.count, share=self.share, low=self.low
        )
        kind_BR = matched_BR5[..., 4].long().clamp_min(0)

        logits_BRK, delta_BRK4 = self(maps, regions_BR4)
        label_BR = torch.where(positive_BR, kind_BR, self.num_classes)
        class_BR = F.cross_entropy(logits_BRK.float().movedim(-1, 1), label_BR, reduction="none")
        own_BR4 = delta_BRK4.gather(2, kind_BR[..., None, None].expand(-1, -1, 1, 4))[:, :, 0].float()
        aim_BR4 = encode(matched_BR5[..., :4], regions_BR4) / own_BR4.new_tensor(SCALES)
        box_BR = smooth_l1(own_BR4 - aim_BR4, self.beta).sum(-1)
        count_B = taken_BR.sum(1).clamp_min(1)
        return {
            "class": (class_BR * taken_BR).sum(1) / count_B,
            "box": (box_BR * positive_BR).sum(1) / count_B,
        }

    def detections(
        self,
        maps: Sequence[Tensor],
        regions_BN4: Tensor,
        valid_BN: Tensor,
        size_B2: Tensor,
        *,
        least_score: float,
        overlap: float,
    ) -> list[Tensor]:
        """Of each image [D, 6]: of every class the regions, moved, of which of two that overlap more the better one is
        kept."""
        logits_BNK, delta_BNK4 = self(maps, regions_BN4)
        score_BNK = logits_BNK.float().softmax(-1)[..., :-1] * valid_BN.unsqueeze(-1)
        delta_BNK4 = delta_BNK4.float() * delta_BNK4.new_tensor(SCALES).float()
        box_BNK4 = clip(decode(delta_BNK4, regions_BN4.unsqueeze(2)), size_B2[:, None, None])
        pairs = zip(box_BNK4, score_BNK, strict=True)
        return [best_of(box_NK4, score_NK, least_score, overlap) for box_NK4, score_NK in pairs]
