"""Segmentation: a class for each pixel, logits [B, K, H, W] against masks [B, H, W]; void pixels count nowhere.

Shapes: B batch, K classes, H height, W width.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.runs.media import LabelImage, Overlay, grid, overlay_pixels, with_legend
from dlx.tasks.answer import Answer, Report
from dlx.tasks.confusion import draw_confusion
from dlx.tasks.spec import MaskedImages
from dlx.tasks.system import System

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dlx.tasks.system import Batch, Objective, Statistics

SHOWN = 6  # images of a picture
WORST = 12  # images that a report shows
BORDER = 2  # pixels to a pixel of another class, of those that boundary_accuracy counts


class Worst(list[tuple[float, Tensor]]):
    """Images with the lowest share of right pixels: of two batches together those with the lowest."""

    def __add__(self, other: list[tuple[float, Tensor]]) -> Worst:  # type: ignore[override]
        return Worst(sorted([*self, *other], key=lambda one: one[0])[:WORST])


class Segmentation(System):
    """Base of all segmenters. A subclass defines `forward(x) -> logits [B, K, H, W]`.

    Metrics: loss (nats a pixel), miou (mean over classes of pixels in both over pixels in either, of the whole split),
    pixel_accuracy, mean_accuracy (mean over classes of the share of their pixels that is found), boundary_accuracy (of
    the pixels within 2 of one of another class).
    """

    film = True
    takes = ("weight",)
    spec: MaskedImages

    def __init__(self, *, spec: MaskedImages) -> None:
        super().__init__()
        self.spec = spec
        self.num_classes, self.void = len(spec.mask.classes), spec.mask.void

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/miou", "max"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return "miou", "loss", "pixel_accuracy", "mean_accuracy", "boundary_accuracy"

    def pixel_losses(self, logits_BKHW: Tensor, mask_BHW: Tensor) -> Tensor:
        """Softmax cross-entropy in nats, 0 at void pixels, [B, H, W]."""
        return F.cross_entropy(logits_BKHW.float(), mask_BHW, ignore_index=self.void, reduction="none")

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean over the pixels that count."""
        mask_BHW = batch["mask"]
        loss_BHW, counted_BHW = self.pixel_losses(self(batch["image"]), mask_BHW), mask_BHW != self.void
        if "weight" in batch:
            loss_BHW = loss_BHW * batch["weight"][:, None, None]
        return loss_BHW.sum() / counted_BHW.sum().clamp_min(1), {}

    def counted(self, batch: Batch) -> Tensor:
        mask_BHW: Tensor = batch["mask"]
        return (mask_BHW != self.void).sum()

    def evaluate(self, batch: Batch) -> Statistics:
        logits_BKHW, mask_BHW = self(batch["image"]), batch["mask"]
        predicted_BHW = logits_BKHW.argmax(1)
        found: Statistics = {
            "loss": self.pixel_losses(logits_BKHW, mask_BHW).double().sum(),
            "confusion": confusion(predicted_BHW, mask_BHW, self.num_classes, self.void),
        }
        border_BHW = at_border(mask_BHW, self.void)
        found["border"] = torch.stack([((predicted_BHW == mask_BHW) & border_BHW).sum(), border_BHW.sum()])
        if "report" in batch:
            found["worst"] = self._worst(batch, predicted_BHW)
        return found

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        confusion_KK = statistics["confusion"].double()
        count = confusion_KK.sum()
        hits_K, there_K = confusion_KK.diagonal(), confusion_KK.sum(1)
        right, border = statistics["border"].double()
        return {
            "miou": float(iou(confusion_KK).nanmean()),
            "loss": float(statistics["loss"] / count),
            "pixel_accuracy": float(hits_K.sum() / count),
            "mean_accuracy": float((hits_K / there_K).nanmean()),
            "boundary_accuracy": float(right / border),
        }

    def report(self, statistics: Statistics) -> Report:
        """IoU, accuracy and pixels of each class, the confusion of pixels, and the images with most wrong pixels."""
        confusion_KK = statistics["confusion"].cpu().double()
        hits_K, there_K = confusion_KK.diagonal(), confusion_KK.sum(1)
        columns = zip(there_K.long().tolist(), (hits_K / there_K).tolist(), iou(confusion_KK).tolist(), strict=True)
        rows = [
            {"class": name, "pixels": pixels, "accuracy": accuracy, "iou": share}
            for name, (pixels, accuracy, share) in zip(self.spec.mask.classes, columns, strict=True)
        ]
        media: dict[str, Any] = {"confusion": draw_confusion(confusion_KK, self.spec.mask.classes)}
        if worst := statistics.get("worst"):
            media["worst"] = self._sheet([strip[0] for _, strip in worst], columns=3)
        return Report({"per_class": rows}, media, {"per_class": rows, "confusion": confusion_KK.tolist()})

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """mask: int64 [B, H, W]; probability: of the predicted class, [B, H, W]."""
        probability_BHW, mask_BHW = self(batch["image"]).float().softmax(1).max(1)
        return {"mask": mask_BHW, "probability": probability_BHW}

    def answer(self, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        """The share of the image that each class has; the picture has the classes laid over the image, the label image
        their numbers, in the size of the file."""
        answers = []
        for number, mask_HW in enumerate(predicted["mask"].cpu()):
            if "size" in batch:
                height, width = batch["size"][number].tolist()
                mask_HW = mask_HW[:height, :width]
            share_K = torch.bincount(mask_HW.flatten(), minlength=self.num_classes) / mask_HW.numel()
            shares = {
                self.spec.mask.classes[k]: round(float(share_K[k]), 4)
                for k in share_K.argsort(descending=True).tolist()
                if share_K[k] > 0
            }
            line = "  ".join(f"{name} {share:.1%}" for name, share in shares.items())
            height, width = mask_HW.shape
            picture = partial(self._overlay, batch["image"][number : number + 1, :, :height, :width], mask_HW)
            shape = tuple(batch["file_size"][number].tolist()) if "file_size" in batch else (height, width)
            answers.append(Answer(line, {"shares": shares}, picture, partial(self._labels, mask_HW, shape)))
        return answers

    def _labels(self, mask_HW: Tensor, size: tuple[int, int]) -> LabelImage:
        """The classes scaled to (height, width), each pixel that of the nearest one."""
        found = F.interpolate(mask_HW[None, None].to(torch.uint8), size, mode="nearest-exact")[0, 0]
        return LabelImage(found.numpy(), self.spec.mask.palette.numpy())

    def _overlay(self, image_1CHW: Tensor, mask_HW: Tensor, title: str) -> Any:
        """With the names of the classes that are there. The first one, which is the background or the most common one,
        is left clear."""
        photo, palette = self.spec.image.draw(image_1CHW)[0], self.spec.mask.palette.numpy()
        over = Overlay(photo, mask=torch.where(mask_HW > 0, mask_HW, -1).cpu().numpy(), palette=palette)
        there = sorted(set(mask_HW.flatten().tolist()) - {0})
        return with_legend(overlay_pixels(over), title, [self.spec.mask.classes[k] for k in there], palette[there])

    def _strips(self, batch: Batch, predicted_BHW: Tensor) -> Tensor:
        """Image, truth and prediction beside each other, uint8 [B, H, 3 W, 3]; void is black."""
        photo = self.spec.image.draw(batch["image"])
        photo = photo.expand(*photo.shape[:3], 3)
        return torch.cat([photo, *(self.spec.mask.draw(mask) for mask in (batch["mask"], predicted_BHW))], 2)

    def _worst(self, batch: Batch, predicted_BHW: Tensor) -> Worst:
        counted_BHW = batch["mask"] != self.void
        right_B = ((predicted_BHW == batch["mask"]) & counted_BHW).flatten(1).sum(1)
        share_B = right_B / counted_BHW.flatten(1).sum(1).clamp_min(1)
        chosen = share_B.argsort()[:WORST]
        part = {name: batch[name][chosen] for name in ("image", "mask")}
        strips = self._strips(part, predicted_BHW[chosen])
        return Worst(zip(share_B[chosen].tolist(), strips.unsqueeze(1).unbind(), strict=True))

    def showcase(self, batch: Batch) -> dict[str, Any]:
        """Images, their true classes and the predicted ones."""
        part = {name: batch[name][:SHOWN] for name in ("image", "mask")}
        return {"segmented": self._sheet(list(self._strips(part, self(part["image"]).argmax(1))), columns=2)}

    def _sheet(self, strips: Sequence[Tensor], columns: int) -> Any:
        mask = self.spec.mask
        caption = "each image, its true classes, and the predicted ones"
        return with_legend(grid(strips, columns=columns), caption, mask.classes, mask.palette)


def confusion(predicted_BHW: Tensor, mask_BHW: Tensor, num_classes: int, void: int) -> Tensor:
    """Pixels of each true class (rows) that were given each class (columns), int64 [K, K], without void ones."""
    cell = torch.where(mask_BHW != void, mask_BHW * num_classes + predicted_BHW, num_classes**2).flatten()
    return torch.bincount(cell, minlength=num_classes**2 + 1)[:-1].view(num_classes, num_classes)


def at_border(mask_BHW: Tensor, void: int, distance: int = BORDER) -> Tensor:
    """Pixels that have one of another class within `distance` rows and columns, bool [B, H, W]; void is no class."""
    counted_BHW = mask_BHW != void
    class_BHW = mask_BHW.float()  # what pooling takes

    def highest(value_BHW: Tensor) -> Tensor:
        value_BHW = value_BHW.masked_fill(~counted_BHW, -torch.inf)
        for window in ((2 * distance + 1, 1), (1, 2 * distance + 1)):
            value_BHW = F.max_pool2d(value_BHW, window, 1, (window[0] // 2, window[1] // 2))
        return value_BHW

    return counted_BHW & (highest(class_BHW) != -highest(-class_BHW))


def iou(confusion_KK: Tensor) -> Tensor:
    """Pixels in both over pixels in either, [K]; NaN for a class that is neither there nor predicted."""
    hits_K = confusion_KK.diagonal()
    return hits_K / (confusion_KK.sum(0) + confusion_KK.sum(1) - hits_K)


def convolutional(dense: nn.Linear, channels: int, height: int, width: int) -> nn.Conv2d:
    """A dense layer on flattened maps [C, h, w] as a convolution of kernel h x w with the same parameters: on maps of
    that size it gives the same numbers, on larger ones those of each window."""
    if dense.in_features != channels * height * width:
        raise ValueError(f"dense has {dense.in_features} inputs, not {channels} x {height} x {width}")
    like = {"dtype": dense.weight.dtype, "device": dense.weight.device}
    layer = nn.Conv2d(channels, dense.out_features, (height, width), bias=dense.bias is not None, **like)  # type: ignore[arg-type]
    with torch.no_grad():
        layer.weight.copy_(dense.weight.view(dense.out_features, channels, height, width))
        if dense.bias is not None and layer.bias is not None:
            layer.bias.copy_(dense.bias)
    return layer


def convolutional_head(layers: Iterable[nn.Module], channels: int, height: int, width: int) -> nn.Sequential:
    """The dense layers of a classifier, which follow maps [C, h, w], as convolutions that take maps of any size."""
    found: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.Linear):
            found.append(convolutional(layer, channels, height, width))
            channels, height, width = layer.out_features, 1, 1
        elif not isinstance(layer, nn.Flatten):
            found.append(layer)
    return nn.Sequential(*found)
