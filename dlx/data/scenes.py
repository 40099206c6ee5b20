"""What rendered scenes share: the centres of objects that lie apart, and the boxes around them.

Shapes: N scenes, M objects of a scene at most, S side in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

TRIES = 40  # places that an object may be tried at before it is left out
GAP = 2  # pixels between separate objects


def find_centres(
    radius_NM: Tensor, there_NM: Tensor, side: int, rng: torch.Generator, *, overlap: bool = False
) -> tuple[Tensor, Tensor]:
    """Centres [N, M, 2] of objects in the square of `radius` around them, and which objects there are: one that finds
    no place is left out. They are GAP pixels apart; overlap: they hide at most half of one."""
    N, M = radius_NM.shape
    there_NM = there_NM.clone()
    centre_NM2 = torch.zeros(N, M, 2)
    for m in range(M):
        r_N11 = radius_NM[:, m, None, None]
        tried_NT2 = r_N11 + 1 + (side - 2 * r_N11 - 2) * torch.rand(N, TRIES, 2, generator=rng)
        if m == 0:
            centre_NM2[:, 0] = tried_NT2[:, 0]
            continue
        own_N1, others_Nm = radius_NM[:, m : m + 1], radius_NM[:, :m]
        reach_N1m = (torch.maximum(own_N1, others_Nm) if overlap else own_N1 + others_Nm + GAP).unsqueeze(1)
        far_NTm = (tried_NT2.unsqueeze(2) - centre_NM2[:, None, :m]).abs().amax(-1)  # boxes, not circles
        free_NT = ((far_NTm >= reach_N1m) | ~there_NM[:, None, :m]).all(-1)
        first_N = free_NT.float().argmax(1)  # the first that is free
        there_NM[:, m] &= free_NT.any(1)
        centre_NM2[:, m] = tried_NT2[torch.arange(N), first_N]
    return centre_NM2, there_NM


def tight_boxes(inside_NSS: Tensor, kind_N: Tensor) -> Tensor:
    """The smallest box around the pixels of an object, and its kind, [N, 5]; zeros and -1 where there are none."""
    rows_NS, columns_NS = inside_NSS.any(2), inside_NSS.any(1)
    S = rows_NS.shape[1]
    first = [seen.float().argmax(1) for seen in (columns_NS, rows_NS)]
    last = [S - seen.flip(1).float().argmax(1) for seen in (columns_NS, rows_NS)]
    there_N1 = rows_NS.any(1, keepdim=True)
    box_N4 = torch.stack([*first, *last], 1).float() * there_N1
    return torch.cat([box_N4, torch.where(there_N1[:, 0], kind_N, -1).unsqueeze(1).float()], 1)


def padding_last(boxes_NM5: Tensor) -> Tensor:
    """The boxes of each scene in their order, those of class -1 behind the others."""
    order_NM = (boxes_NM5[..., 4] >= 0).float().argsort(dim=1, descending=True, stable=True)
    return boxes_NM5.gather(1, order_NM.unsqueeze(-1).expand_as(boxes_NM5))
