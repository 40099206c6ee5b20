"""A classifier's dense layers as convolutions: one pass over a larger picture gives a map of classes
(Long, Shelhamer, Darrell 2015, arXiv:1411.4038, 3.1; LeCun et al. 1998 for LeNet-5).

Shapes: B pictures, K classes, N crops, R rows and C columns of the heat map.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dlx.claims.claim import Claim, Figure, Measured, Runs, Variants, Verdict
from dlx.claims.common import picture_pixels, picture_text
from dlx.config import Config, build, compose
from dlx.config.checks import at_least
from dlx.config.errors import UserError
from dlx.tasks.segmentation import convolutional_head
from dlx.training.trained import open_all

REPEATS = 5  # timed passes of each, of which the fastest counts


class Convolutionalization(Claim):
    """larger: side of the pictures of the heat maps, in pixels. objects: in each picture. scenes: pictures."""

    claim = "A dense head as convolutions has the same parameters and outputs, and its heat map costs less than crops"
    size = (13, 4.2)

    def __init__(self, *, larger: int = 128, objects: int = 6, scenes: int = 100) -> None:
        at_least(1, larger=larger, objects=objects)
        at_least(20, scenes=scenes)
        self.larger, self.objects, self.scenes = larger, objects, scenes

    def variants(self, base: Config) -> Variants:
        if base.choices.get("model") != "cnn":
            raise UserError(f"model: convolutionalization reads the layers of cnn, got {base.choices.get('model')}")
        return {"classifier": []}

    def measure(self, base: Config, runs: Runs) -> Measured:
        opened = open_all(runs["classifier"][0], trust=base.trust)
        # In float64 differences are those of the method; every layer is as in the training.
        classifier: Any = opened.system.cpu().double().eval()
        image, side = classifier.spec.image, classifier.spec.image.height
        with torch.no_grad():
            maps = classifier.features(torch.zeros(1, image.channels, side, side, dtype=torch.float64))
            layers = list(classifier.net)
            dense = layers[next(at for at, layer in enumerate(layers) if isinstance(layer, nn.Flatten)) :]
            head = convolutional_head(dense, *maps.shape[1:]).eval()

            def network(x_BCHW: Tensor) -> Tensor:
                heat_BKRC: Tensor = head(classifier.features(x_BCHW))
                return heat_BKRC

            (batch, *_) = opened.loader("test").eval_batches()
            x_BCHW = batch["image"].cpu().double()
            same = float((network(x_BCHW)[..., 0, 0] - classifier(x_BCHW)).abs().max())

            dataset = build(compose(self.larger_words(base, side), base=base), "dataset")
            drawn = dataset.splits()["train"].take(torch.arange(self.scenes))
            larger_BCHW = image.normalize(drawn["image"]).double()
            heat_BKRC = network(larger_BCHW)
            stride = (self.larger - side) // max(1, heat_BKRC.shape[-1] - 1)
            first = larger_BCHW[:1]
            crops_NCHW = windows(first, side, stride)
            by_crops = classifier(crops_NCHW).T.view(1, -1, *heat_BKRC.shape[2:])
            costs = [flops(network, first), flops(classifier, crops_NCHW)]
            window = float((by_crops - heat_BKRC[:1]).abs().max())
            classifier.float()  # as it would be used
            head.float()
            times = [seconds(network, first.float()), seconds(classifier, crops_NCHW.float())]
            return {
                "parameters": [
                    sum(p.numel() for part in parts for p in part.parameters()) for parts in (dense, [head])
                ],
                "same": same,
                "window": window,
                "cells": list(heat_BKRC.shape[2:]),
                "stride": stride,
                "found": named_rightly(heat_BKRC, drawn["boxes"], side, stride),
                "flops": costs,
                "seconds": times,
                "classes": list(dataset.spec.label.classes),
                "picture": picture_text(drawn["image"][0].movedim(0, -1)),
                "boxes": [row for row in drawn["boxes"][0].tolist() if row[4] >= 0],
                "heat": heat_BKRC[0].softmax(0).tolist(),
                "side": side,
            }

    def larger_words(self, base: Config, side: int) -> list[str]:
        """Overrides of the pictures: objects of the classifier's sizes, in pixels."""
        low, high = (share * side / self.larger for share in base["dataset"]["extent"])
        words = [f"dataset.side={self.larger}", f"dataset.objects=[{self.objects},{self.objects}]"]
        return [*words, f"dataset.extent=[{low},{high}]", f"dataset.samples={self.scenes}", "dataset.data_seed=1"]

    def draw(self, measured: Measured, figure: Figure) -> None:
        from matplotlib.patches import Rectangle

        classes, side, stride = measured["classes"], measured["side"], measured["stride"]
        axes = figure.subplots(1, len(classes) + 2, width_ratios=[*[1] * (len(classes) + 1), 0.75])
        axes[0].imshow(picture_pixels(measured["picture"]), extent=(0, self.larger, self.larger, 0))
        axes[0].set_title(f"{self.larger} pixels, and a crop")
        axes[0].add_patch(Rectangle((2, 2), side, side, fill=False, edgecolor="white", linestyle="--"))
        first, last = (side - stride) / 2, self.larger - (side - stride) / 2  # cells lie in the middle of their windows
        for number, (panel, name, heat) in enumerate(zip(axes[1:-1], classes, measured["heat"], strict=True)):
            image = panel.imshow(heat, cmap="inferno", vmin=0, vmax=1, extent=(first, last, last, first))
            for x1, y1, x2, y2, kind in measured["boxes"]:
                color, width = ("deepskyblue", 2.0) if kind == number else ("0.6", 0.8)
                panel.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=width))
            panel.set(
                title=f"p({name}), and where one is", xlim=(0, self.larger), ylim=(self.larger, 0), facecolor="0.9"
            )
        rows, columns = measured["cells"]
        label = "one pass of the convolutional head; it knows no background, and names a class everywhere"
        figure.colorbar(image, ax=axes[1:-1], location="bottom", shrink=0.5, label=label)
        for panel in axes[:-1]:
            panel.set(xticks=[], yticks=[])
        names = ["one pass", f"{rows * columns}\ncrops"]
        bars = axes[-1].bar(names, [1e3 * value for value in measured["seconds"]], color=["tab:blue", "tab:orange"])
        texts = [
            f"{1e3 * value:.3g} ms\n{count / 1e6:.3g} M FLOPs"
            for value, count in zip(measured["seconds"], measured["flops"], strict=True)
        ]
        axes[-1].bar_label(bars, texts, padding=3, fontsize=9)
        axes[-1].set(title="cost of the map", ylabel="ms, this CPU")
        axes[-1].margins(y=0.25)

    def verdict(self, measured: Measured) -> Verdict:
        (dense, convolutional), (whole, crops) = measured["parameters"], measured["flops"]
        equal = max(measured["same"], measured["window"]) < 1e-9
        rows, columns = measured["cells"]
        fast, slow = measured["seconds"]
        return Verdict(
            dense == convolutional and equal and whole < crops and measured["found"] > 0.9,
            f"{dense:,} parameters as dense layers, {convolutional:,} as convolutions; their outputs differ by "
            f"{measured['same']:.1g} on {measured['side']} pixels, and the {rows}x{columns} heat map of a picture of "
            f"{self.larger} by {measured['window']:.1g} from the classifier on each crop; one pass takes "
            f"{whole / 1e6:.3g} million FLOPs and {1e3 * fast:.3g} ms, the crops {crops / 1e6:.3g} and {1e3 * slow:.3g}"
            f"; of the objects in {self.scenes} pictures {measured['found']:.1%} get their class where they are",
        )


def windows(x_1CHW: Tensor, side: int, stride: int) -> Tensor:
    """All crops of a picture, [N, C, side, side], row by row."""
    crops = x_1CHW[0].unfold(1, side, stride).unfold(2, side, stride)
    return crops.movedim(0, 2).flatten(0, 1)


def named_rightly(heat_BKRC: Tensor, boxes_BM5: Tensor, side: int, stride: int) -> float:
    """The share of objects whose class is the likeliest in the cell whose window is centred nearest to theirs."""
    last = heat_BKRC.shape[-1] - 1
    centre_BM2 = (boxes_BM5[..., :2] + boxes_BM5[..., 2:4]) / 2
    cell_BM2 = ((centre_BM2 - side / 2) / stride).round().clamp(0, last).long()
    guess_BM = torch.stack(
        [
            heat_KRC.argmax(0)[cell_M2[:, 1], cell_M2[:, 0]]
            for heat_KRC, cell_M2 in zip(heat_BKRC, cell_BM2, strict=True)
        ]
    )
    there_BM = boxes_BM5[..., 4] >= 0
    return float((guess_BM == boxes_BM5[..., 4])[there_BM].double().mean())


def flops(network: Any, x: Tensor) -> int:
    """Of a pass; a multiply-add counts as 2."""
    with FlopCounterMode(display=False) as counter:
        network(x)
    return int(counter.get_total_flops())


def seconds(network: Any, x: Tensor) -> float:
    """Of the fastest of some passes."""
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        network(x)
        taken.append(time.perf_counter() - began)
    return min(taken)
