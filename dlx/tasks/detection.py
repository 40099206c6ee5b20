"""Detection: boxes with a class and a score, against the boxes of the objects of an image.

Detections are padded: float32 [B, M, 6] of x1, y1, x2, y2 in pixels of the batch's images, class, score; rows of class
-1 are none. Shapes: B batch, M boxes, K classes.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dlx.runs.draw import drawable, subplots
from dlx.runs.media import Curve, Overlay, grid, overlay_pixels
from dlx.tasks.answer import Answer, Report
from dlx.tasks.average_precision import COCO, box_iou, curves, mean_ap, right
from dlx.tasks.spec import BoxedImages
from dlx.tasks.system import System

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlx.runs.draw import Figure
    from dlx.tasks.average_precision import Pair
    from dlx.tasks.system import Batch, Statistics

SHOWN = 6  # images of a picture
WORST = 9  # images that a report shows
ERRORS = ("class", "place", "class and place", "duplicate", "background", "missed")


class Detector(System):
    """Base of all detectors. A subclass defines `detect` and `training_loss`.

    Metrics: map50, the mean over classes of the average precision at an overlap of 0.5 (COCO's 101 points), and map,
    its mean over overlaps from 0.5 to 0.95.
    """

    film = True
    shown_score: ClassVar[float] = 0.5
    """Least score of a box in pictures, in the words of an answer, and among the errors of a report."""

    spec: BoxedImages

    def __init__(self, *, spec: BoxedImages) -> None:
        super().__init__()
        self.spec = spec
        self.classes = spec.boxes.classes

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/map50", "max"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return "map50", "map"

    def detect(self, batch: Batch) -> Tensor:
        """Detections [B, M, 6] of an image each, the best first."""
        raise NotImplementedError(f"{type(self).__name__} defines no detect")

    def image_sizes(self, batch: Batch) -> Tensor:
        """Height and width of each image within the padded batch, [B, 2]."""
        image: Tensor = batch["image"]
        size: Tensor = batch["size"] if "size" in batch else image.new_tensor(image.shape[-2:]).expand(len(image), 2)
        return size

    def total(self, terms: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, the mean over images of the sum of its terms [B], and each term's mean to log."""
        loss_B = torch.stack(list(terms.values())).sum(0)
        loss = (loss_B * batch["weight"] if "weight" in batch else loss_B).mean()
        return loss, {name: value.detach().mean() for name, value in terms.items()}

    def evaluate(self, batch: Batch) -> Statistics:
        detected_BM6, truth_BM5 = self.detect(batch), batch["boxes"]
        pairs = [(unpadded(a).cpu(), unpadded(b).cpu()) for a, b in zip(detected_BM6, truth_BM5, strict=True)]
        found: Statistics = {"pairs": pairs}
        if "report" in batch:
            found["photos"] = self.photos(batch)
        return found

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        values = [mean_ap(of_classes) for of_classes in curves(statistics["pairs"], len(self.classes))]
        return {"map50": values[0], "map": sum(values) / len(values)}

    def report(self, statistics: Statistics) -> Report:
        """AP of each class, curves of precision over recall, what kinds of errors there are, and the worst images."""
        pairs: list[Pair] = statistics["pairs"]
        of_thresholds = curves(pairs, len(self.classes))
        rows = [
            {
                "class": name, "objects": of_thresholds[0][k].objects,
                "ap": sum(of_classes[k].ap() for of_classes in of_thresholds) / len(COCO),
                "ap50": of_thresholds[0][k].ap(), "voc_ap50": of_thresholds[0][k].ap("area"),
            }
            for k, name in enumerate(self.classes)
        ]  # fmt: skip
        lines = {
            drawable(name): (curve.recall.tolist(), curve.precision.tolist())
            for name, curve in zip(self.classes, of_thresholds[0], strict=True)
            if len(curve.recall)
        }
        errors = error_kinds(pairs, self.shown_score)
        media: dict[str, Any] = {
            "precision-recall": Curve(lines, "recall", "precision", "at an overlap of 0.5"),
            "errors": draw_errors(errors),
        }
        if photos := statistics.get("photos"):
            worst = sorted(range(len(pairs)), key=lambda n: -wrongs(pairs[n], self.shown_score))[:WORST]
            media["worst"] = self.sheet([photos[n] for n in worst], [pairs[n] for n in worst])
        return Report({"per_class": rows}, media, {"per_class": rows, "errors": errors})

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        return {"boxes": self.detect(batch)}

    def answer(self, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        """Boxes in pixels of the file, as COCO has them: x, y, width, height."""
        answers = []
        for number, boxes in enumerate(predicted["boxes"]):
            found = unpadded(boxes).cpu()
            scale = float(batch["scale"][number]) if "scale" in batch else 1.0
            in_file = found.clone()
            in_file[:, :4] /= scale
            if "file_size" in batch:  # rounding makes a scaled image up to half a pixel larger
                in_file[:, :4] = torch.minimum(in_file[:, :4], batch["file_size"][number].flip(0).repeat(2).cpu())
            detections = [
                {"class": self.classes[int(kind)], "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
                for x1, y1, x2, y2, kind, score in in_file.tolist()
            ]
            shown = [one for one in detections if one["score"] >= self.shown_score]
            words = (
                f"{one['class']} {one['score']:.0%} at {' '.join(f'{x:.0f}' for x in one['bbox'])}" for one in shown
            )
            own: Batch = {name: batch[name][number : number + 1] for name in ("image", "size") if name in batch}
            picture = partial(self._picture, own, found)
            answers.append(Answer("  ".join(words) or "nothing", {"detections": detections}, picture))
        return answers

    def results_file(self, predictions: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
        """COCO's results: for each detection image_id, category_id, bbox in the file's pixels and score, and file_name.

        An image's id is its file's number where all are named by one (000000397133.jpg), else they count from 1.
        """
        stems = [Path(one["file"]).stem for one in predictions]
        is_numbered = all(stem.isdecimal() for stem in stems) and len(set(map(int, stems))) == len(stems)
        ids = self.spec.boxes.ids or range(1, len(self.classes) + 1)
        id_of = dict(zip(self.classes, ids, strict=True))
        rows = [
            {
                "image_id": int(stem) if is_numbered else number, "category_id": id_of[found["class"]],
                "bbox": found["bbox"], "score": found["score"], "file_name": Path(one["file"]).name,
            }
            for number, (stem, one) in enumerate(zip(stems, predictions, strict=True), 1)
            for found in one["detections"]
        ]  # fmt: skip
        return "coco-results.json", json.dumps(rows)

    def _picture(self, batch: Batch, boxes_N6: Tensor, title: str) -> Overlay:
        return self.overlay(self.photos(batch)[0], boxes_N6)

    def photos(self, batch: Batch) -> list[Tensor]:
        """The images without padding as pixels, uint8 [H, W, C] each."""
        pairs = zip(self.spec.image.draw(batch["image"]), self.image_sizes(batch).long().tolist(), strict=True)
        return [photo[:height, :width] for photo, (height, width) in pairs]

    def overlay(self, photo: Tensor, boxes: Tensor, caption: str = "") -> Overlay:
        """An image with boxes [N, 5 or 6]; of detections those that are shown."""
        if boxes.shape[1] == 6:
            boxes = boxes[boxes[:, 5] >= self.shown_score]
        texts = [self.classes[int(row[4])] + (f" {row[5]:.2f}" if len(row) == 6 else "") for row in boxes.tolist()]
        kinds = boxes[:, 4].int().tolist()
        return Overlay(photo.numpy(), [tuple(row[:4]) for row in boxes.tolist()], texts, kinds=kinds, caption=caption)

    def sheet(self, photos: Sequence[Tensor], pairs: Sequence[Pair]) -> Any:
        """Images with their objects, each beside itself with the detections, as pixels."""
        pictures = [
            overlay_pixels(self.overlay(photo, boxes, caption))
            for photo, (detected, truth) in zip(photos, pairs, strict=True)
            for boxes, caption in ((truth, "objects"), (detected, "detected"))
        ]
        return grid(pictures, columns=min(6, len(pictures)), gap=4)

    def showcase(self, batch: Batch) -> dict[str, Any]:
        """Images with their objects, and beside each what is detected."""
        part = {name: value[:SHOWN] for name, value in batch.items() if isinstance(value, Tensor) and value.dim()}
        detected = self.detect(part)
        pairs = [(unpadded(a).cpu(), unpadded(b).cpu()) for a, b in zip(detected, part["boxes"], strict=True)]
        return {"detected": self.sheet(self.photos(part), pairs)}


def unpadded(boxes_MF: Tensor) -> Tensor:
    return boxes_MF[boxes_MF[:, 4] >= 0]


def padded(boxes: Sequence[Tensor]) -> Tensor:
    """Detections of several images, [N, 6] each, as [B, M, 6] with at least one row."""
    found = pad_sequence(list(boxes), batch_first=True, padding_value=-1.0)
    return found if found.shape[1] else torch.full((len(boxes), 1, 6), -1.0, device=found.device)


def wrongs(pair: Pair, least_score: float) -> int:
    """Objects of an image that are missed, and detections from a score on that are none."""
    detected, truth = pair
    found = detected[detected[:, 5] >= least_score]
    hits = sum(
        int(right(found[found[:, 4] == kind], truth[truth[:, 4] == kind], (0.5,)).sum())
        for kind in sorted(set(truth[:, 4].tolist()))
    )
    return len(truth) + len(found) - 2 * hits


def error_kinds(pairs: Sequence[Pair], least_score: float = 0.5) -> dict[str, int]:
    """What is wrong with the detections from a score on (after Hoiem et al. 2012, Bolya et al. 2020,
    arXiv:2008.08115): class: it overlaps an object of another class; place: one of its class by 0.1 to 0.5; duplicate:
    the object was found already; background: nothing is there; missed: objects that no detection is of."""
    count = dict.fromkeys(ERRORS, 0)
    for detected, truth in pairs:
        found = detected[detected[:, 5] >= least_score]
        found = found[found[:, 5].argsort(descending=True, stable=True)]
        taken = torch.zeros(len(truth), dtype=torch.bool)
        iou_NM = box_iou(found, truth) if len(truth) else torch.zeros(len(found), 0)
        for row, iou_M in zip(found, iou_NM, strict=True):
            same_M = truth[:, 4] == row[4]
            free = iou_M.masked_fill(~same_M | taken, -1.0)
            if len(truth) and free.max() >= 0.5:
                taken[free.argmax()] = True
                continue
            own, other = (float(iou_M[mask].max()) if mask.any() else 0.0 for mask in (same_M, ~same_M))
            if own >= 0.5:
                count["duplicate"] += 1
            elif other >= 0.5:
                count["class"] += 1
            elif own >= 0.1:
                count["place"] += 1
            else:
                count["class and place" if other >= 0.1 else "background"] += 1
        count["missed"] += int((~taken).sum())
    return count


def draw_errors(errors: Mapping[str, int]) -> Figure:
    figure, axes = subplots(size=(6, 2.8))
    bars = axes.barh(list(errors), list(errors.values()), color="tab:red")
    axes.bar_label(bars, padding=3)
    axes.invert_yaxis()
    axes.set(xlabel="number", title="what is wrong with the detections that are shown")
    axes.margins(x=0.12)
    return figure
