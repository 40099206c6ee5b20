"""What a classifier mixes up: figures of each class, the confusion matrix as a picture, and its worst mistakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlx.tasks.spec import ImageSpec
    from dlx.tasks.system import Batch

COUNTS = 20  # classes up to which each cell shows its count
NAMES = 60  # classes up to which the axes show names


def per_class(confusion_KK: Tensor, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """`class`, `precision`, `recall`, `f1` and `count` (samples) of each class; rows of the matrix are true classes.

    A class that is never predicted has no precision and one without samples no recall: NaN. F1, 2 hits over what was
    predicted and what is there, is 0 in both cases, and NaN in neither's presence.
    """
    confusion_KK = confusion_KK.cpu().double()
    hits_K, there_K, predicted_K = confusion_KK.diagonal(), confusion_KK.sum(1), confusion_KK.sum(0)
    figures = {
        "precision": hits_K / predicted_K,
        "recall": hits_K / there_K,
        "f1": 2 * hits_K / (predicted_K + there_K),
        "count": there_K.long(),
    }
    columns = zip(*(column.tolist() for column in figures.values()), strict=True)
    return [{"class": name, **dict(zip(figures, row, strict=True))} for name, row in zip(classes, columns, strict=True)]


@dataclass(frozen=True)
class Mistake:
    """One image that was taken for another class; nll is its loss, -log of the true class's probability."""

    nll: float
    index: int
    label: int
    predicted: int
    probability: float  # of the predicted class
    image: Tensor


class Worst:
    """Collects, batch by batch, the wrong answers with the highest loss."""

    def __init__(self, count: int = 24) -> None:
        self.count = count
        self.mistakes: list[Mistake] = []

    def look(self, batch: Batch, logits_BK: Tensor) -> None:
        label_B, predicted_B = batch["label"], logits_BK.argmax(1)
        nll_B = F.cross_entropy(logits_BK.float(), label_B, reduction="none")
        wrong = (predicted_B != label_B).nonzero().flatten()
        worst = wrong[nll_B[wrong].argsort(descending=True)[: self.count]]
        probability = logits_BK[worst].float().softmax(1).amax(1)
        columns = (nll_B[worst], batch["index"][worst], label_B[worst], predicted_B[worst], probability)
        rows = zip(*(column.tolist() for column in columns), batch["image"][worst].cpu(), strict=True)
        found = [*self.mistakes, *(Mistake(*row) for row in rows)]
        self.mistakes = sorted(found, key=lambda one: -one.nll)[: self.count]


def draw_confusion(confusion_KK: Tensor, classes: tuple[str, ...], title: str = "") -> Figure:
    """A heat map: the color is the share of the true class (the row), the number the count."""
    from matplotlib.figure import Figure

    count_KK = confusion_KK.cpu().double()
    share_KK = count_KK / count_KK.sum(1, keepdim=True).clamp_min(1)
    size = min(max(4.5, 1.5 + 0.42 * len(classes)), 12)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(share_KK.numpy(), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if len(classes) <= COUNTS:
        for row, column in count_KK.nonzero().tolist():
            color = "white" if share_KK[row, column] > 0.6 else "black"
            axes.text(column, row, f"{int(count_KK[row, column])}", ha="center", va="center", color=color, fontsize=8)
    if len(classes) <= NAMES:
        names = [name if len(name) <= 20 else f"{name[:19]}…" for name in classes]
        upright = max(map(len, names)) > 3
        axes.set_xticks(range(len(names)), names, rotation=90 if upright else 0)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(labelsize=9 if len(classes) <= COUNTS else 6)
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="share of the true class")
    return figure


def draw_mistakes(mistakes: list[Mistake], spec: ImageSpec, title: str = "") -> Figure:
    """The images, worst first, with the true class, and below it the predicted one with its probability."""
    from matplotlib.figure import Figure

    columns = min(6, max(3, len(mistakes)))
    rows = max(1, -(-len(mistakes) // columns))
    figure = Figure(figsize=(1.5 * columns, 0.4 + 1.75 * rows), layout="constrained")
    figure.suptitle(title if mistakes else f"{title}: no mistakes", fontsize=10)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(mistakes) :]:
        axes.set_axis_off()
    for one, axes in zip(mistakes, grid.flat, strict=False):
        axes.set(xticks=[], yticks=[])
        pixels_HWC = spec.denormalize(one.image).clamp(0, 1).permute(1, 2, 0).squeeze(-1)
        axes.imshow(pixels_HWC.numpy(), cmap="gray_r", vmin=0, vmax=1)
        true, predicted = (spec.classes[number][:18] for number in (one.label, one.predicted))
        axes.set_title(f"true {true}\npred. {predicted} ({one.probability:.0%})", fontsize=8)
    return figure
