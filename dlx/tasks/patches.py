"""Key patches of images: the boxes with the most edges that hardly overlap; where they are, what is in them.

Shapes: B batch, K patches, N boxes that are tried, C channels, H height, W width. A box is y, x, height, width
in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dlx.tasks.average_precision import box_iou

SHARES = (0.25, 0.325, 0.4)  # of the image's sides
STEPS = 16  # a box is tried at each of so many places along a side
OVERLAP = 0.1  # intersection over union of two patches is below this


def candidate_boxes(height: int, width: int, shares: Sequence[float] = SHARES) -> Tensor:
    """Boxes of these shares of the sides at evenly spaced places, int64 [N, 4]."""
    found = []
    for h, w in dict.fromkeys((max(1, round(share * height)), max(1, round(share * width))) for share in shares):
        y, x = (torch.arange(0, side - own + 1, stride(side)) for side, own in ((height, h), (width, w)))
        place_N2 = torch.cartesian_prod(y, x)
        found.append(torch.cat([place_N2, torch.tensor([h, w]).expand(len(place_N2), 2)], 1))
    return torch.cat(found)


def stride(side: int) -> int:
    return max(1, side // STEPS)


def overlaps(boxes_N4: Tensor, least: float = OVERLAP) -> Tensor:
    """Which two boxes have an intersection over union of at least this, bool [N, N]."""
    low_N2, size_N2 = boxes_N4.double().chunk(2, 1)
    corners_N4 = torch.cat([low_N2, low_N2 + size_N2], 1)
    return box_iou(corners_N4, corners_N4) >= least


def edge_energy(x_BCHW: Tensor) -> Tensor:
    """Squared differences to the next pixel in both directions, summed over channels, [B, H, W]."""
    down = F.pad((x_BCHW[:, :, 1:] - x_BCHW[:, :, :-1]).square(), (0, 0, 0, 1))
    right = F.pad((x_BCHW[..., 1:] - x_BCHW[..., :-1]).square(), (0, 1))
    return (down + right).sum(1)


def key_boxes(x_BCHW: Tensor, boxes_N4: Tensor, overlap_NN: Tensor, count: int) -> Tensor:
    """Numbers of the boxes, int64 [B, count]: the one with the most energy for its perimeter, then always the best of
    those that overlap none before. boxes, overlap: of `candidate_boxes` and `overlaps`."""
    total = F.pad(edge_energy(x_BCHW.float()), (1, 0, 1, 0)).cumsum(1).cumsum(2)  # of all above and left of a point
    y_N, x_N, h_N, w_N = boxes_N4.unbind(1)
    inside_BN = (
        total[:, y_N + h_N, x_N + w_N] - total[:, y_N, x_N + w_N] - total[:, y_N + h_N, x_N] + total[:, y_N, x_N]
    )
    score_BN = inside_BN / (h_N + w_N)
    chosen = []
    for _ in range(count):
        best_B = score_BN.argmax(1)
        chosen.append(best_B)
        score_BN = score_BN.masked_fill(overlap_NN[best_B], -torch.inf)
    return torch.stack(chosen, 1)


def crop_patches(x_BCHW: Tensor, boxes_BK4: Tensor) -> Tensor:
    """The boxes, each scaled to the whole image's size, [B, K, C, H, W]."""
    B, K = boxes_BK4.shape[:2]
    size_2 = torch.tensor(x_BCHW.shape[2:], device=x_BCHW.device)
    low_BK2, share_BK2 = boxes_BK4[..., :2] / size_2, boxes_BK4[..., 2:] / size_2
    middle_BK2 = 2 * low_BK2 + share_BK2 - 1  # in the -1..1 of `affine_grid`
    zero_BK = torch.zeros_like(share_BK2[..., 0])
    rows = [
        torch.stack([share_BK2[..., 1], zero_BK, middle_BK2[..., 1]], -1),
        torch.stack([zero_BK, share_BK2[..., 0], middle_BK2[..., 0]], -1),
    ]
    theta = torch.stack(rows, -2).flatten(0, 1)
    x = x_BCHW.repeat_interleave(K, 0)
    place = F.affine_grid(theta, list(x.shape), align_corners=False)
    patches: Tensor = F.grid_sample(x, place, padding_mode="border", align_corners=False)
    return patches.reshape(B, K, *x_BCHW.shape[1:])


def box_mask(boxes_BK4: Tensor, height: int, width: int) -> Tensor:
    """1 inside any of the boxes, else 0, float32 [B, 1, H, W]."""
    y_BK1, x_BK1, h_BK1, w_BK1 = boxes_BK4.unsqueeze(-1).unbind(2)
    row_H, column_W = (torch.arange(side, device=boxes_BK4.device) for side in (height, width))
    rows_BKH = (row_H >= y_BK1) & (row_H < y_BK1 + h_BK1)
    columns_BKW = (column_W >= x_BK1) & (column_W < x_BK1 + w_BK1)
    return (rows_BKH.unsqueeze(-1) & columns_BKW.unsqueeze(-2)).any(1, keepdim=True).float()
