"""Linear SVMs with hard negatives, and ridge regression of boxes: what R-CNN and SPPNet fit on a network's features.

One SVM for each class (R-CNN, arXiv:1311.2524, 2.3): its positives are the objects themselves, its negatives regions
that overlap no object of the class by 0.3. Features are scaled so that their mean norm is 20, which C and the ridge are
tuned to.
Shapes: N regions, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

NORM = 20.0  # mean norm of the scaled features
COST, POSITIVE_WEIGHT, BIAS = 1e-3, 2.0, 10.0  # C, of the hinge of positives, and what the bias is multiplied by
HARD = -1.0001  # score from which on a negative is kept
EASY = -1.2  # score below which a kept one is dropped
FIRST, MORE = 2000, 2000  # negatives that the first fit begins with, and new ones after which it is fitted again
RIDGE = 1000.0  # of the box regression


def objective(weight_F: Tensor, bias: float, x_NF: Tensor, y_N: Tensor, cost: float = COST) -> float:
    """|w|^2 / 2 + (b / 10)^2 / 2 + C (2 hinge of the positives + hinge of the negatives); y is 1 or -1."""
    hinge_N = (1 - y_N * (x_NF @ weight_F + bias)).clamp_min(0)
    weighted_N = hinge_N * torch.where(y_N > 0, POSITIVE_WEIGHT, 1.0)
    return float(weight_F.square().sum() / 2 + (bias / BIAS) ** 2 / 2 + cost * weighted_N.sum())


def fit_svm(positive_NF: Tensor, negative_NF: Tensor, cost: float = COST) -> tuple[Tensor, float]:
    """Weights [F] and bias of the least `objective`."""
    from sklearn.svm import LinearSVC

    x = torch.cat([positive_NF, negative_NF]).numpy()
    y = np.r_[np.ones(len(positive_NF)), -np.ones(len(negative_NF))]
    machine = LinearSVC(
        loss="hinge", C=cost, class_weight={1: POSITIVE_WEIGHT, -1: 1.0}, intercept_scaling=BIAS, max_iter=20_000,
        tol=1e-4, random_state=0,
    )  # fmt: skip
    machine.fit(x, y)
    return torch.from_numpy(machine.coef_[0]).float(), float(machine.intercept_[0])


def fit_with_hard_negatives(
    positive_NF: Tensor, negatives: Iterable[Tensor], cost: float = COST
) -> tuple[Tensor, float]:
    """One pass over the negatives of each image [N, F]: those that the machine of the moment scores above HARD are
    kept, and it is fitted again after MORE new ones; those below EASY are dropped."""
    kept = torch.zeros(0, positive_NF.shape[1])
    weight, bias, new = torch.zeros(positive_NF.shape[1]), 0.0, 0
    fitted = False
    for negative_NF in negatives:
        hard = negative_NF if not fitted else negative_NF[negative_NF @ weight + bias > HARD]
        kept, new = torch.cat([kept, hard]), new + len(hard)
        if new >= (MORE if fitted else FIRST):
            weight, bias = fit_svm(positive_NF, kept, cost)
            kept, new, fitted = kept[kept @ weight + bias > EASY], 0, True
    return fit_svm(positive_NF, kept, cost) if new or not fitted else (weight, bias)


def fit_ridge(x_NF: Tensor, y_N4: Tensor, ridge: float = RIDGE) -> Tensor:
    """[F + 1, 4], the last row the bias, which is not made smaller: argmin |x w + b - y|^2 + ridge |w|^2."""
    x, y = x_NF.double(), y_N4.double()
    mean_F, mean_4 = x.mean(0), y.mean(0)
    centred = x - mean_F
    gram = centred.T @ centred + ridge * torch.eye(x.shape[1], dtype=x.dtype)
    weight_F4 = torch.linalg.solve(gram, centred.T @ (y - mean_4))
    return torch.cat([weight_F4, (mean_4 - mean_F @ weight_F4).unsqueeze(0)]).float()
