"""Decision stump (Iba and Langley 1992): a decision tree with one split, fitted in closed form.

The weak learner that boosting was made for. Of all features and thresholds it takes the split whose two sides are the
purest: class labels by Gini impurity, real targets by squared error (CART, Breiman et al. 1984), samples weighted.
Shapes: N samples, F features, K outputs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from dlx.tasks.classification import soft_labels
from dlx.tasks.supervised import AnySamples, Supervised, training_samples
from dlx.tasks.system import Objective

FLOOR = 1e-6  # of a class's probability, so that its logarithm is finite
SORTED_AT_ONCE = 1 << 24  # numbers: features are looked at in parts of so many
TIE = 1e-12  # of the targets' scatter: gains that differ by less are rounding's


def find_split(x_NF: Tensor, target_NK: Tensor, weight_N: Tensor) -> tuple[int, float] | None:
    """The feature and threshold (left is at most the threshold) that leave the least weighted scatter of the targets
    within the two sides; of equals the lowest feature, then the lowest threshold. None where all samples are alike.

    Of one-hot targets the scatter is the Gini impurity: sum_k p_k (1 - p_k). Weights must be above 0.
    """
    center_K = (weight_N @ target_NK) / weight_N.sum()
    pull_NK = weight_N.unsqueeze(1) * (target_NK - center_K)  # sums to 0: what is left of a split is minus the right
    least = TIE * float((pull_NK * (target_NK - center_K)).sum())
    best, found = -math.inf, None
    for start in range(0, x_NF.shape[1], step := max(1, SORTED_AT_ONCE // pull_NK.numel())):
        value_NF, order_NF = x_NF[:, start : start + step].sort(dim=0, stable=True)
        mass_NF = weight_N[order_NF]
        left_NF, right_NF = mass_NF.cumsum(0)[:-1], mass_NF.flip(0).cumsum(0).flip(0)[1:]
        pull_NF = pull_NK[order_NF].cumsum(0)[:-1].square().sum(-1)
        gain_NF = (pull_NF * (1 / left_NF + 1 / right_NF)).where(value_NF[1:] > value_NF[:-1], -math.inf)
        top = float(gain_NF.max()) if gain_NF.numel() else -math.inf
        if top > best + least:
            best = top
            feature, row = (int(n) for n in torch.ge(gain_NF.T, best - least).nonzero()[0])
            low, high = value_NF[row, feature], value_NF[row + 1, feature]
            middle = low / 2 + high / 2
            found = start + feature, float(middle if middle < high else low)  # neighbours in float32
    return found


class Stump(Supervised):
    """Classifiers: logits are the logarithms of the class shares of the side that a sample falls on. Regressors: the
    side's mean. Images are taken as their pixels."""

    def __init__(self, *, spec: AnySamples) -> None:
        super().__init__(spec=spec)
        self.feature = nn.Buffer(torch.zeros(1, dtype=torch.int64))
        self.threshold = nn.Buffer(torch.zeros(1))
        self.leaves = nn.Buffer(torch.zeros(2, self.num_outputs))  # left, right

    def objectives(self, stage: int = 0) -> list[Objective]:
        return []

    def forward(self, x: Tensor) -> Tensor:
        value_B1 = x.flatten(1).index_select(1, self.feature)
        return torch.where(value_B1 <= self.threshold, self.leaves[0], self.leaves[1])

    def fit(self, data: Any) -> None:
        x, target, weight_N = training_samples(data, self)
        target_NK = (soft_labels(target, self.leaves.shape[1]) if self.is_classifier else target).double()
        counts = weight_N > 0
        x_NF, target_NK, weight_N = x.flatten(1)[counts], target_NK[counts], weight_N[counts]
        feature, threshold = find_split(x_NF, target_NK, weight_N) or (0, float(x_NF[0, 0]))
        is_left_N = x_NF[:, feature] <= threshold
        sides = [is_left_N, ~is_left_N if not is_left_N.all() else is_left_N]
        leaves_2K = torch.stack([(weight_N[side] @ target_NK[side]) / weight_N[side].sum() for side in sides])
        self.feature.fill_(feature)
        self.threshold.fill_(threshold)
        self.leaves.copy_(leaves_2K.clamp(min=FLOOR).log() if self.is_classifier else leaves_2K)
