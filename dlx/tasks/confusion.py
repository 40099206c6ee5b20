"""Metrics of each class, a picture of the confusion matrix, and the mistakes with the highest loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from dlx.runs.draw import drawable, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlx.tasks.spec import Image

COUNTS = 20  # classes up to which each cell shows its count
NAMES = 60  # classes up to which the axes show names


def per_class(confusion_KK: Tensor, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """`class`, `precision`, `recall`, `f1` and `count` (samples) of each class; rows of the matrix are true classes.

    A class that is never predicted has no precision and one without samples no recall: NaN. F1, 2 hits over what was
    predicted and what is there, is 0 in both cases, and NaN in neither's presence.
    """
    confusion_KK = confusion_KK.cpu().double()
    hits_K, there_K, predicted_K = confusion_KK.diagonal(), confusion_KK.sum(1), confusion_KK.sum(0)
    metrics = {
        "precision": hits_K / predicted_K,
        "recall": hits_K / there_K,
        "f1": 2 * hits_K / (predicted_K + there_K),
        "count": there_K.long(),
    }
    columns = zip(*(column.tolist() for column in metrics.values()), strict=True)
    return [{"class": name, **dict(zip(metrics, row, strict=True))} for name, row in zip(classes, columns, strict=True)]


@dataclass(frozen=True)
class Mistake:
    """One image that was taken for another class; nll is its loss, -log of the true class's probability."""

    nll: float
    index: int
    label: int
    predicted: int
    probability: float  # of the predicted class
    image: Tensor


MISTAKES = 24


class Mistakes(list[Mistake]):
    """Of two batches together those with the highest loss: a large split is not kept."""

    def __add__(self, other: list[Mistake]) -> Mistakes:  # type: ignore[override]
        return Mistakes(worst([*self, *other]))


def find_mistakes(logits_BK: Tensor, label_B: Tensor, index_B: Tensor, image_BCHW: Tensor) -> Mistakes:
    """The wrong answers in a batch with the highest loss."""
    predicted_B = logits_BK.argmax(1)
    nll_B = F.cross_entropy(logits_BK.float(), label_B, reduction="none")
    wrong = (predicted_B != label_B).nonzero().flatten()
    found = wrong[nll_B[wrong].argsort(descending=True)[:MISTAKES]]
    probability = logits_BK[found].float().softmax(1).amax(1)
    columns = (nll_B[found], index_B[found], label_B[found], predicted_B[found], probability)
    rows = zip(*(column.tolist() for column in columns), image_BCHW[found].cpu(), strict=True)
    return Mistakes(Mistake(*row) for row in rows)


def worst(mistakes: list[Mistake]) -> list[Mistake]:
    """Those with the highest loss, the highest first."""
    return sorted(mistakes, key=lambda one: -one.nll)[:MISTAKES]


def draw_confusion(confusion_KK: Tensor, classes: tuple[str, ...], title: str = "confusion matrix") -> Figure:
    """A heat map: the color is the share of the true class (the row), the number the count."""
    count_KK = confusion_KK.cpu().double()
    share_KK = count_KK / count_KK.sum(1, keepdim=True).clamp_min(1)
    size = min(max(4.5, 1.5 + 0.42 * len(classes)), 12)
    figure, axes = subplots(size=(size + 1, size))
    drawn = axes.imshow(share_KK.numpy(), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if len(classes) <= COUNTS:
        for row, column in count_KK.nonzero().tolist():
            color = "white" if share_KK[row, column] > 0.6 else "black"
            axes.text(column, row, f"{int(count_KK[row, column])}", ha="center", va="center", color=color, fontsize=8)
    if len(classes) <= NAMES:
        names = [drawable(name if len(name) <= 20 else f"{name[:19]}…") for name in classes]
        upright = max(map(len, names)) > 3
        axes.set_xticks(range(len(names)), names, rotation=90 if upright else 0)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(labelsize=9 if len(classes) <= COUNTS else 6)
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="share of the true class")
    return figure


def draw_mistakes(
    mistakes: list[Mistake], image: Image, classes: tuple[str, ...], title: str = "the mistakes with the highest loss"
) -> Figure:
    """The images, worst first, with the true class, and below it the predicted one with its probability."""
    columns = min(6, max(3, len(mistakes)))
    rows = max(1, -(-len(mistakes) // columns))
    figure, grid = subplots(rows, columns, size=(1.5 * columns, 0.4 + 1.75 * rows), squeeze=False)
    figure.suptitle(title if mistakes else f"{title}: no mistakes".lstrip(": "), fontsize=10)
    for axes in grid.flat[len(mistakes) :]:
        axes.set_axis_off()
    for one, axes in zip(mistakes, grid.flat, strict=False):
        axes.set(xticks=[], yticks=[])
        pixels_HWC = image.denormalize(one.image).clamp(0, 1).permute(1, 2, 0).squeeze(-1)
        axes.imshow(pixels_HWC.numpy(), cmap="gray", vmin=0, vmax=1)
        true, predicted = (drawable(classes[number][:18]) for number in (one.label, one.predicted))
        axes.set_title(f"true {true}\npred. {predicted} ({one.probability:.0%})", fontsize=8)
    return figure
