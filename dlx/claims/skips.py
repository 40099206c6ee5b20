"""FCN's skips: scores of finer maps bring back where things are (Long, Shelhamer, Darrell 2015, arXiv:1411.4038, 4.2).

FCN-32s enlarges the coarsest map's scores by 32; 16s adds those of the map at stride 16 first, 8s those at 8 too.
"""

from __future__ import annotations

import textwrap
from itertools import pairwise
from typing import Any

import torch

from dlx.claims.claim import Claim, Figure, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals, mean_and_error, picture_pixels, picture_text, plus_minus
from dlx.config import Config
from dlx.config.checks import at_least
from dlx.training.trained import open_all

STRIDES = (32, 16, 8)
METRICS = {"miou": "mean IoU", "boundary_accuracy": "accuracy within 2 pixels of a border"}
SHOWN = 3  # images


class Skips(Claim):
    """seeds: trainings of each network; the pictures are of the first."""

    claim = "Skips make borders sharper: on boundary pixels FCN-8s is better than 16s, and 16s than 32s"
    size = (13, 5.4)

    def __init__(self, *, seeds: int = 3) -> None:
        at_least(1, seeds=seeds)
        self.seeds = seeds

    def variants(self, base: Config) -> Variants:
        return {f"{stride}s": [f"model.stride={stride}"] for stride in STRIDES}

    def measure(self, base: Config, runs: Runs) -> Measured:
        found: Measured = {name: {metric: finals(runs[name], f"test/{metric}") for metric in METRICS} for name in runs}
        pictures: list[Any] = []
        for name in runs:
            opened = open_all(runs[name][0], trust=base.trust)
            (batch, *_) = opened.loader("test").eval_batches()
            image, mask = batch["image"][:SHOWN], batch["mask"][:SHOWN]
            system: Any = opened.system
            with torch.no_grad():
                predicted = system.predict({"image": image})["mask"]
            if not pictures:
                pictures += [system.spec.image.draw(image), *(system.spec.mask.draw(one) for one in (mask, predicted))]
            else:
                pictures.append(system.spec.mask.draw(predicted))
        rows = [
            torch.cat([row.cpu().expand(*row.shape[:2], 3) for row in column], 1)
            for column in zip(*pictures, strict=True)
        ]
        return {**found, "picture": picture_text(torch.cat(rows))}

    def draw(self, measured: Measured, figure: Figure) -> None:
        names = [f"{stride}s" for stride in STRIDES]
        photo, *panels = figure.subplots(1, 1 + len(METRICS), width_ratios=[2.6, 1, 1])
        pixels = picture_pixels(measured["picture"])
        photo.imshow(pixels)
        columns = ["image", "truth", *(f"FCN-{name}" for name in names)]
        width = pixels.shape[1] / len(columns)
        photo.set_xticks([width * (number + 0.5) for number in range(len(columns))], columns)
        photo.xaxis.tick_top()
        photo.set_yticks([])
        photo.tick_params(length=0)
        for axes, (metric, title) in zip(panels, METRICS.items(), strict=True):
            for number, name in enumerate(names):
                mean, error = mean_and_error(measured[name][metric])
                axes.errorbar(number, mean, error, marker="o", capsize=4, color="tab:blue")
                axes.annotate(f"{mean:.3f}", (number, mean), xytext=(8, 0), textcoords="offset points", va="center")
            axes.set_xticks(range(len(names)), names)
            axes.set(title=textwrap.fill(title, 24), xlim=(-0.4, len(names) - 0.3))
            axes.margins(y=0.15)

    def verdict(self, measured: Measured) -> Verdict:
        pairs = {
            metric: {f"{stride}s": mean_and_error(measured[f"{stride}s"][metric]) for stride in STRIDES}
            for metric in METRICS
        }
        at_borders = [mean for mean, _ in pairs["boundary_accuracy"].values()]
        each = "; ".join(
            f"{title} " + ", ".join(f"{name} {plus_minus(pair)}" for name, pair in pairs[metric].items())
            for metric, title in METRICS.items()
        )
        return Verdict(all(before < after for before, after in pairwise(at_borders)), each)
