"""Average precision of detections: how many of the objects are found, over how many of the boxes are right.

A detection is right if it has the class of an object that no better detection took, and overlaps it by `threshold` of
their union or more; the best overlap is taken first. Sorted by score over the whole set, precision is the share of
right ones so far, recall the share of objects that they are. Three readings of the curve, which give different numbers:
the area under it (VOC 2010 and later), the mean of 11 points (VOC 2007), and of 101 points (COCO).
Shapes: N detections, M objects, T thresholds. A detection is x1, y1, x2, y2, class, score; an object the first five.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Reading = Literal["area", "11", "101"]
COCO = tuple(0.5 + 0.05 * step for step in range(10))
MOST = 100  # detections of an image that count, the best ones (COCO)
Pair = tuple[Tensor, Tensor]
"""The detections [N, 6] and the objects [M, 5] of an image, without padding."""


@dataclass(frozen=True)
class Curve:
    """Precision and recall after each detection, the best first, float64 [N]; objects: how many there are."""

    precision: Tensor
    recall: Tensor
    score: Tensor
    objects: int

    def ap(self, reading: Reading = "101") -> float:
        """NaN where there is no object."""
        if not self.objects:
            return float("nan")
        if not len(self.recall):
            return 0.0
        # What a lower score reaches is never worse: precision at a recall is the best at this recall or above.
        best = self.precision.flip(0).cummax(0).values.flip(0)
        if reading == "area":
            return float((self.recall.diff(prepend=torch.zeros(1, dtype=torch.float64)) * best).sum())
        points = torch.linspace(0, 1, int(reading), dtype=torch.float64)
        at = torch.searchsorted(self.recall, points - 1e-12)
        return float(torch.cat([best, torch.zeros(1, dtype=torch.float64)])[at].mean())


def pair_iou(a: Tensor, b: Tensor) -> Tensor:
    """Area of both over area of either, of pairs of boxes x1, y1, x2, y2, [..., 4 or more] each, [...]; without the
    pixel that older code adds to a width. A box without area has none."""
    both = (torch.minimum(a[..., 2:4], b[..., 2:4]) - torch.maximum(a[..., :2], b[..., :2])).clamp_min(0).prod(-1)
    area_a, area_b = ((x[..., 2:4] - x[..., :2]).clamp_min(0).prod(-1) for x in (a, b))
    return both / (area_a + area_b - both).clamp_min(1e-12)


def box_iou(a_N4: Tensor, b_M4: Tensor) -> Tensor:
    """`pair_iou` of each with each, [..., N, M]."""
    return pair_iou(a_N4.unsqueeze(-2), b_M4.unsqueeze(-3))


def right(detected_N6: Tensor, truth_M5: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Which detections of an image and a class are right, bool [T, N]. They come the best first."""
    found_TN = torch.zeros(len(thresholds), len(detected_N6), dtype=torch.bool)
    if not len(truth_M5):
        return found_TN
    iou_NM = box_iou(detected_N6.double(), truth_M5.double())
    least_T = torch.tensor(thresholds, dtype=torch.float64) - 1e-10
    taken_TM = torch.zeros(len(thresholds), len(truth_M5), dtype=torch.bool)
    rows_T = torch.arange(len(thresholds))
    for n, iou_M in enumerate(iou_NM):
        best_T = iou_M.masked_fill(taken_TM, -1.0).max(1)
        hit_T = best_T.values >= least_T
        found_TN[:, n] = hit_T
        taken_TM[rows_T[hit_T], best_T.indices[hit_T]] = True
    return found_TN


def curves(pairs: Sequence[Pair], num_classes: int, thresholds: Sequence[float] = COCO) -> list[list[Curve]]:
    """The curve of each threshold and class, [T][K]."""
    found: list[list[Curve]] = [[] for _ in thresholds]
    for kind in range(num_classes):
        scores, hits, objects = [torch.zeros(0)], [torch.zeros(len(thresholds), 0, dtype=torch.bool)], 0
        for detected, truth in pairs:
            own, wanted = detected[detected[:, 4] == kind], truth[truth[:, 4] == kind]
            own = own[own[:, 5].argsort(descending=True, stable=True)[:MOST]]
            scores.append(own[:, 5])
            hits.append(right(own, wanted, thresholds))
            objects += len(wanted)
        score_N, hit_TN = torch.cat(scores), torch.cat(hits, 1)
        order_N = score_N.argsort(descending=True, stable=True)
        count_N = torch.arange(1, len(order_N) + 1, dtype=torch.float64)
        for number, hit_N in enumerate(hit_TN[:, order_N]):
            right_N = hit_N.cumsum(0).double()
            found[number].append(Curve(right_N / count_N, right_N / max(1, objects), score_N[order_N], objects))
    return found


def mean_ap(of_classes: Sequence[Curve], reading: Reading = "101") -> float:
    """Mean over the classes that have an object; NaN where none has."""
    values = torch.tensor([curve.ap(reading) for curve in of_classes], dtype=torch.float64)
    return float(values.nanmean())
