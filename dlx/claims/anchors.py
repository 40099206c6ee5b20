"""Anchors of Faster R-CNN's RPN: which objects they reach, how few proposals find them, and who says what
(Ren, He, Girshick, Sun 2015, arXiv:1506.01497, 3.1).

The RPN says whether an object is there; the head says of what class it is.
Shapes: B images, N anchors, P proposals, M objects, T overlaps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlx.claims.claim import Claim, Figure, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals, picture_pixels, picture_text
from dlx.config import Config, build, compose
from dlx.config.checks import rising
from dlx.config.errors import UserError
from dlx.runs.media import Overlay
from dlx.tasks.average_precision import box_iou
from dlx.tasks.detection import unpadded
from dlx.training.trained import open_all

if TYPE_CHECKING:
    from collections.abc import Iterable

PAPER = (128.0, 256.0, 512.0)
RATIOS = (0.5, 1.0, 2.0)
OVERLAPS = tuple(0.3 + 0.05 * step for step in range(13))
HALF, HIGH = 4, 8  # of them: 0.5, where an object counts as found, and 0.7, where an anchor is positive
RANKED = 5  # proposals that are drawn


class Anchors(Claim):
    """numbers: of the best proposals of an image, rising, at which their recall is measured."""

    claim = "Anchors of several sizes reach the objects; few proposals hold all of them, and the head names their class"
    size = (13, 6.8)

    def __init__(self, *, numbers: tuple[int, ...] = (1, 2, 3, 5, 10, 20, 50)) -> None:
        rising(2, numbers=numbers)
        self.numbers = numbers

    def variants(self, base: Config) -> Variants:
        if base.choices.get("model") != "faster_rcnn":
            raise UserError(f"model: anchors reads the parts of faster_rcnn, got {base.choices.get('model')}")
        return {"faster_rcnn": [f"model.proposals=[{base['model']['proposals'][0]},{self.numbers[-1]}]"]}

    def measure(self, base: Config, runs: Runs) -> Measured:
        run = runs["faster_rcnn"][0]
        opened = open_all(run, trust=base.trust)
        system: Any = opened.system
        batches = list(opened.loader("test").eval_batches())
        truths = objects(batches)
        found: Measured = {"anchors": {}, "reach": {}, "map50": finals([run], "test/map50")[0]}
        for name, words in self.sets(base).items():
            other: Any = build(compose(words, base=base), "model", spec=system.spec)
            with torch.no_grad():
                anchors_N4 = other.anchors_of(other.maps(batches[0]["image"][:1].cpu()))
            inside_N4 = within(anchors_N4, system.spec.image.height, system.spec.image.width)
            found["anchors"][name] = len(inside_N4)
            found["reach"][name] = share_from(best_overlaps([inside_N4] * len(truths), truths))
        regions, named = [], []
        with torch.no_grad():
            for batch in batches:
                maps = system.maps(batch["image"])
                regions_BP4, valid_BP = system.propose(
                    *system.rpn(maps), system.anchors_of(maps), system.image_sizes(batch), self.numbers[-1]
                )
                kind_BP = system.head(maps, regions_BP4)[0][..., :-1].argmax(-1)  # of the classes but the background
                for region_P4, valid_P, kind_P, boxes_M5 in zip(
                    regions_BP4, valid_BP, kind_BP, batch["boxes"], strict=True
                ):
                    regions.append(region_P4[valid_P].cpu())
                    named.append(right_names(region_P4[valid_P].cpu(), kind_P[valid_P].cpu(), unpadded(boxes_M5.cpu())))
            first = truths[: len(batches[0]["image"])]
            shown = next((at for at, boxes in enumerate(first) if len(boxes[:, 4].unique()) > 1), 0)
            batch = {name: x[shown : shown + 1] for name, x in batches[0].items() if isinstance(x, Tensor) and x.dim()}
            photo = system.spec.image.draw(batch["image"])[0]
            detected = unpadded(system.detect(batch)[0].cpu())
        for name, at in (("recall_50", HALF), ("recall_70", HIGH)):
            found[name] = [
                share_from(best_overlaps([region_P4[:number] for region_P4 in regions], truths))[at]
                for number in self.numbers
            ]
        ranked = [(tuple(row), f"{rank}.") for rank, row in enumerate(regions[shown][:RANKED].tolist(), 1)]
        whether = Overlay(photo.numpy(), [box for box, _ in ranked], [text for _, text in ranked])
        pictures = {"whether": whether, "what": system.overlay(photo, detected)}
        return {
            **found,
            "named": float(torch.cat(named).double().mean()),
            "pictures": {name: picture_text(picture) for name, picture in pictures.items()},
        }

    def sets(self, base: Config) -> Variants:
        """Overrides of the anchors that are compared."""
        sizes = tuple(base["model"]["sizes"])
        middle = sizes[len(sizes) // 2]
        choices = {
            f"{middle:g}": ((middle,), (1.0,)), ", ".join(f"{size:g}" for size in sizes): (sizes, (1.0,)),
            f"{', '.join(f'{size:g}' for size in sizes)} in three ratios": (sizes, RATIOS),
            f"{', '.join(f'{size:g}' for size in PAPER)} in three ratios": (PAPER, RATIOS),
        }  # fmt: skip
        return {
            name: [f"model.sizes={list(own)}", f"model.ratios={list(ratios)}"]
            for name, (own, ratios) in choices.items()
        }

    def draw(self, measured: Measured, figure: Figure) -> None:
        panels = figure.subplots(2, 2, width_ratios=[1.5, 1]).T.flat
        reach, recall, whether, what = panels
        for name, values in measured["reach"].items():
            reach.plot(OVERLAPS, values, "o-", markersize=4, label=f"{name} ({measured['anchors'][name]:,})")
        reach.axvline(OVERLAPS[HIGH], color="0.6", linestyle=":", linewidth=1)
        reach.set(title="objects that an anchor reaches", xlabel="overlap (IoU)", ylabel="share of the objects")
        reach.legend(title="sizes in pixels (anchors)", fontsize=8, title_fontsize=8)
        for name, style, least in (("recall_50", "o-", HALF), ("recall_70", "s--", HIGH)):
            recall.plot(self.numbers, measured[name], style, label=f"IoU {OVERLAPS[least]:.1f}")
        recall.set(xscale="log", title="objects that the best proposals hold", ylabel="share of the objects")
        recall.set(xlabel="proposals of an image")
        recall.set_xticks(self.numbers, map(str, self.numbers))
        recall.minorticks_off()
        recall.legend(fontsize=8)
        titles = {"whether": "the RPN says whether: its best proposals", "what": "the head says what: detections"}
        for axes, (name, title) in zip((whether, what), titles.items(), strict=True):
            axes.imshow(picture_pixels(measured["pictures"][name]))
            axes.set(title=title, xticks=[], yticks=[])

    def verdict(self, measured: Measured) -> Verdict:
        """One size reaches fewer objects than several at an overlap of 0.7, and the paper's sizes are none here."""
        one, several, _, paper = (values[HIGH] for values in measured["reach"].values())
        recall = measured["recall_50"][-1]
        reached = "; ".join(
            f"{name} reach {values[HALF]:.1%} at IoU 0.5, {values[HIGH]:.1%} at 0.7"
            for name, values in measured["reach"].items()
        )
        held = several > max(one, paper) and recall > 0.98 and measured["named"] > 0.9
        recalls = ", ".join(
            f"{number}: {value:.1%}" for number, value in zip(self.numbers, measured["recall_50"], strict=True)
        )
        return Verdict(
            held,
            f"anchors of {reached}; the best proposals of an image hold of the objects at IoU 0.5 {recalls}; the head "
            f"names {measured['named']:.1%} of those on an object rightly, and AP50 is {measured['map50']:.3f}",
        )


def objects(batches: Iterable[Any]) -> list[Tensor]:
    """The objects [M, 5] of each image."""
    return [unpadded(boxes_M5.cpu()) for batch in batches for boxes_M5 in batch["boxes"]]


def within(anchors_N4: Tensor, height: int, width: int) -> Tensor:
    """Those that do not leave the image: the others are not trained (3.3)."""
    return anchors_N4[(anchors_N4[:, :2] >= 0).all(1) & (anchors_N4[:, 2] <= width) & (anchors_N4[:, 3] <= height)]


def best_overlaps(boxes: list[Tensor], truths: list[Tensor]) -> Tensor:
    """Of each object of all images the best overlap with a box of its image, 0 without one."""
    best = [
        box_iou(box_N4, truth_M5).max(0).values if len(box_N4) else torch.zeros(len(truth_M5))
        for box_N4, truth_M5 in zip(boxes, truths, strict=True)
    ]
    return torch.cat(best)


def share_from(overlap: Tensor) -> list[float]:
    """The shares from each of the OVERLAPS on."""
    return [float((overlap >= least).double().mean()) for least in OVERLAPS]


def right_names(regions_P4: Tensor, kind_P: Tensor, truth_M5: Tensor) -> Tensor:
    """Of the regions that overlap an object by half, whether they have its class."""
    if not len(truth_M5):
        return torch.zeros(0, dtype=torch.bool)
    best_P, object_P = box_iou(regions_P4, truth_M5).max(1)
    hit_P = best_P >= OVERLAPS[HALF]
    return kind_P[hit_P] == truth_M5[object_P[hit_P], 4].long()
