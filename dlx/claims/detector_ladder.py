"""From R-CNN to YOLO: one pass of the network for each region, one for the image, and regions that are its own.

Each of the first four has the same trunk; YOLO's network is its own. Proposals are timed apart.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from dlx.claims.claim import Claim, Figure, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals, legend_beside
from dlx.config import Config, build, build_shared
from dlx.config.checks import at_least
from dlx.config.errors import UserError
from dlx.training.trained import open_all

if TYPE_CHECKING:
    from dlx.tasks.system import Batch

NAMES = {
    "rcnn": "R-CNN", "sppnet": "SPPNet", "fast_rcnn": "Fast R-CNN", "faster_rcnn": "Faster R-CNN", "yolo": "YOLO",
}  # fmt: skip
READ = ("rcnn", "sppnet", "fast_rcnn")  # those that need proposals
TRUNK = "model.trunk={name: vgg, depth: 11, width: 0.25, batch_norm: true}"


class DetectorLadder(Claim):
    """side: of R-CNN's crops, in pixels. images: of the test split, that are timed one by one."""

    claim = "One pass an image, not a region, made detectors fast; proposals were then what was left, and went too"
    size = (12, 4.4)
    varies = ("model",)

    def __init__(self, *, side: int = 32, images: int = 50) -> None:
        at_least(32, side=side)
        at_least(2, images=images)
        self.side, self.images = side, images

    def variants(self, base: Config) -> Variants:
        if not base["dataset"].get("proposals"):
            raise UserError("dataset.proposals: detector_ladder times them; leave them in, such as selective_search")
        words = {name: [f"model={name}", TRUNK] for name in NAMES if name != "yolo"}
        words["rcnn"] += [f"model.side={self.side}"]
        return {**words, "yolo": ["model=yolo"]}

    def measure(self, base: Config, runs: Runs) -> Measured:
        found: Measured = {"proposals": self.proposal_time(base), "detectors": {}}
        for name, (run, *_) in runs.items():
            opened = open_all(run, trust=base.trust)
            system: Any = opened.system
            images = [one for batch in opened.loader("test").eval_batches() for one in singles(batch)][: self.images]
            found["detectors"][name] = {
                "seconds": detection_time(system, images),
                "passes": passes(system, images[0]),
                "map50": finals([run], "test/map50")[0],
                "map": finals([run], "test/map")[0],
            }
        return found

    def proposal_time(self, base: Config) -> float:
        """Median seconds of an image's proposals, as made by one process."""
        dataset, settings = build(base, "dataset"), build_shared(base, "dataset")
        proposer = settings.proposals
        drawn = dataset.splits()["train"].take(torch.arange(self.images))["image"]
        scale = 255 / dataset.spec.image.scale
        photos = [(photo.movedim(0, -1) * scale).numpy().astype(np.uint8) for photo in drawn]
        proposer.load()
        return statistics.median(timed(lambda photo=photo: proposer(photo)) for photo in photos)

    def draw(self, measured: Measured, figure: Figure) -> None:
        names = list(measured["detectors"])
        labels = [NAMES[name] for name in names]
        cost, quality = figure.subplots(1, 2, width_ratios=[1.5, 1])
        network = [1e3 * found["seconds"] for found in measured["detectors"].values()]
        proposals = [1e3 * measured["proposals"] * (name in READ) for name in names]
        cost.barh(labels, network, color="tab:blue", label="the network")
        cost.barh(labels, proposals, left=network, color="tab:orange", label="proposals")
        for at, (name, found) in enumerate(measured["detectors"].items()):
            each = f"{found['passes']:,} passes" if found["passes"] > 1 else "1 pass"
            total = network[at] + proposals[at]
            cost.text(total, at, f"  {total:.3g} ms, {each}" + ("" if name != "yolo" else ", no regions"), va="center")
        cost.set(
            title="an image", xlabel="ms, this CPU", xlim=(0, 1.6 * max(map(sum, zip(network, proposals, strict=True))))
        )
        cost.invert_yaxis()
        cost.legend(loc="lower right", frameon=False)
        for metric, style, label in (("map50", "o-", "AP50"), ("map", "s--", "mAP, IoU 0.5 to 0.95")):
            quality.plot(labels, [found[metric] for found in measured["detectors"].values()], style, label=label)
        quality.set(title="how good, test split", ylim=(0, 1.02))
        quality.tick_params(axis="x", rotation=30)
        legend_beside(quality)

    def verdict(self, measured: Measured) -> Verdict:
        detectors, proposals = measured["detectors"], measured["proposals"]
        seconds = {name: found["seconds"] for name, found in detectors.items()}
        total = {name: value + proposals * (name in READ) for name, value in seconds.items()}
        once = all(found["passes"] == 1 for name, found in detectors.items() if name != "rcnn")
        held = (
            once
            and detectors["rcnn"]["passes"] > 1
            and seconds["rcnn"] > 2 * max(value for name, value in seconds.items() if name != "rcnn")
            and proposals > seconds["fast_rcnn"]
            and total["yolo"] < total["faster_rcnn"] < total["fast_rcnn"]
        )
        each = "; ".join(
            f"{NAMES[name]} {1e3 * found['seconds']:.3g} ms in {found['passes']} pass{'es' * (found['passes'] > 1)}"
            f"{f' + {1e3 * proposals:.3g} ms of proposals' if name in READ else ''}, AP50 {found['map50']:.3f}, mAP "
            f"{found['map']:.3f}"
            for name, found in detectors.items()
        )
        return Verdict(held, f"an image: {each}")


def singles(batch: Batch) -> list[Batch]:
    """Batches of one image each."""
    count = len(batch["image"])
    parts = {name: x for name, x in batch.items() if isinstance(x, Tensor) and x.dim() and len(x) == count}
    return [{name: x[at : at + 1] for name, x in parts.items()} for at in range(count)]


def timed(call: Any) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def detection_time(system: Any, images: list[Batch]) -> float:
    """Median seconds of an image, its detections read back."""
    with torch.no_grad():
        system.detect(images[0])
        return statistics.median(timed(lambda image=image: system.detect(image).cpu()) for image in images)


def passes(system: Any, image: Batch) -> int:
    """How many pictures the first convolution sees in a detection."""
    first = next(module for module in system.modules() if isinstance(module, nn.Conv2d))
    seen = 0

    def count(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        nonlocal seen
        seen += len(given[0])

    handle = first.register_forward_pre_hook(count)
    try:
        with torch.no_grad():
            system.detect(image)
    finally:
        handle.remove()
    return seen
