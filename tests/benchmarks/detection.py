"""Images a second of detectors and of FCN: in training against a bare loop, at work against torchvision's Faster R-CNN.

    make bench
    python tests/benchmarks/detection.py --rounds 5 --steps 6 --cpu

One thread, pinned to one core; the sides take turns within a round, and what is printed are medians, of the ratios
within a round too. In training all sides have the same module, scenes, batch, steps and optimizer (Adam, one kernel):

- bare: a loop over tensors in channels_last, as one writes it by hand for speed.
- reference: a loop in the manner of torchvision's references/detection and references/segmentation: a DataLoader that
  collates single samples, a schedule, and the loss read at each step.

At work yolo and faster_rcnn give detections; torchvision's FasterRCNN has the same trunk, anchors, proposals and
widths. Networks are not trained for it: 50 regions of an image go through the head on both sides. Last, which share of
an epoch of faster_rcnn the mean average precision of its validation takes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from loop import train_seconds
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dlx.config import build, compose
from dlx.data.dataset import Dataset, TensorSource
from dlx.data.shapes import Shapes
from dlx.models.layers import map_at
from dlx.tasks.system import System

SCENES = Shapes(samples=160)
TENSORS = SCENES.splits()["train"].take(torch.arange(160))
BATCH = {"faster_rcnn": 32, "fcn": 16}
TARGET = {"faster_rcnn": "boxes", "fcn": "mask"}


def make(name: str) -> System:
    """The network as `model=NAME` has it."""
    torch.manual_seed(0)
    system: System = build(compose([f"model={name}"]), "model", spec=SCENES.spec)
    return system.to(memory_format=torch.channels_last)


def samples(name: str) -> dict[str, Tensor]:
    image = SCENES.spec.image.normalize(TENSORS["image"]).contiguous(memory_format=torch.channels_last)
    return {"image": image, TARGET[name]: getattr(SCENES.spec, TARGET[name]).normalize(TENSORS[TARGET[name]])}


def bare(name: str, steps: int) -> float:
    system, data = make(name).train(), samples(name)
    (objective,) = system.objectives()
    optimizer = torch.optim.Adam(objective.params, lr=1e-3, fused=True)
    order = torch.cat([torch.randperm(len(data["image"])) for _ in range(steps)])
    begin = time.perf_counter()
    for index in order.split(BATCH[name])[:steps]:
        loss, _ = system.training_loss({key: x[index] for key, x in data.items()}, objective)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - begin


class _Scenes(Dataset):
    """As many of the scenes as the steps read, again and again."""

    spec = SCENES.spec

    def __init__(self, count: int) -> None:
        self.count = count

    def splits(self):
        index = torch.arange(self.count) % len(TENSORS["image"])
        few = TensorSource(**{key: x[:8] for key, x in TENSORS.items() if key != "index"})
        train = TensorSource(**{key: x[index] for key, x in TENSORS.items() if key != "index"})
        return {"train": train, "val": few, "test": few}


def dlx(name: str, steps: int) -> float:
    words = [f"model={name}", "trainer=default", "trainer.epochs=1", f"data.batch_size={BATCH[name]}"]
    return train_seconds(_Scenes(steps * BATCH[name]), words)


def reference(name: str, steps: int) -> float:
    system, (data, count) = make(name).train(), (samples(name), steps * BATCH[name])
    (objective,) = system.objectives()
    target = TARGET[name]

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return count

        def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
            number %= len(data["image"])
            return data["image"][number], data[target][number]

    loader = DataLoader(Rows(), BATCH[name], shuffle=True, drop_last=True)
    optimizer = torch.optim.Adam(objective.params, lr=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    logged = []
    begin = time.perf_counter()
    for image, wanted in loader:
        loss, terms = system.training_loss({"image": image, target: wanted}, objective)
        logged.append({"loss": loss.item(), **{key: value.item() for key, value in terms.items()}})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return time.perf_counter() - begin


SIDES: dict[str, Callable[[str, int], float]] = {"bare": bare, "dlx": dlx, "reference": reference}


class _Trunk(nn.Module):
    """The trunk of a system as a backbone for torchvision: one map."""

    def __init__(self, trunk: nn.Module, stride: int, channels: int) -> None:
        super().__init__()
        self.trunk, self.stride, self.out_channels = trunk, stride, channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"0": map_at(self.trunk, x, self.stride)}


def torchvision_detector() -> Callable[[Tensor], object]:
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.rpn import RPNHead
    from torchvision.ops import MultiScaleRoIAlign

    system, side = make("faster_rcnn"), SCENES.spec.image.height
    channels, units = system.rpn.conv.in_channels, system.head.layers[0].out_features
    network = FasterRCNN(
        _Trunk(system.trunk, system.strides[0], channels), min_size=side, max_size=side,
        rpn_anchor_generator=AnchorGenerator((system.sizes[0],), (system.ratios,)),
        rpn_head=RPNHead(channels, 9), rpn_pre_nms_top_n_test=6 * system.proposals[1],
        rpn_post_nms_top_n_test=system.proposals[1], box_roi_pool=MultiScaleRoIAlign(["0"], system.head.bins, 2),
        box_head=TwoMLPHead(channels * system.head.bins**2, units),
        box_predictor=FastRCNNPredictor(units, len(SCENES.kinds) + 1), box_score_thresh=system.least_score,
        box_nms_thresh=system.overlap, image_mean=(0.0,) * 3, image_std=(1.0,) * 3,
    ).to(memory_format=torch.channels_last).eval()  # fmt: skip
    return lambda image: network(list(image))


def detector(name: str) -> Callable[[Tensor], object]:
    system = make(name).eval()
    return lambda image: system.detect({"image": image})


DETECTORS: dict[str, Callable[[], Callable[[Tensor], object]]] = {
    "torchvision's faster_rcnn": torchvision_detector,
    "faster_rcnn": lambda: detector("faster_rcnn"),
    "yolo": lambda: detector("yolo"),
}


def seconds_of(detect: Callable[[Tensor], object], image: Tensor) -> float:
    begin = time.perf_counter()
    with torch.inference_mode():
        for part in image.split(16):
            detect(part)
    return time.perf_counter() - begin


def share_of_map(epoch: float, scenes: int) -> float:
    """The share of an epoch with validation that the average precision of 200 images takes, of 100 detections each:
    noise around the objects, as many as count."""
    system = make("faster_rcnn")
    boxes = TENSORS["boxes"][torch.arange(200) % 160]
    rng = torch.Generator().manual_seed(0)
    chosen = boxes[:, torch.arange(100) % boxes.shape[1]]
    there = chosen[..., 4:5] >= 0
    moved = chosen[..., :4] + 3 * torch.randn(200, 100, 4, generator=rng)
    detected = torch.cat([moved, chosen[..., 4:].where(there, 0), torch.rand(200, 100, 1, generator=rng)], 2)
    pairs = [(found, truth[truth[:, 4] >= 0]) for found, truth in zip(detected, boxes, strict=True)]
    begin = time.perf_counter()
    system.metrics({"pairs": pairs})
    spent = time.perf_counter() - begin
    return spent / (epoch * 1800 / scenes + spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", default="faster_rcnn,fcn")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--images", type=int, default=64, help="that are looked at")
    parser.add_argument("--cpu", action="store_true", help="seconds of this process, on a machine that others use")
    asked = parser.parse_args()
    if asked.cpu:
        time.perf_counter = time.process_time  # type: ignore[assignment]
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.chdir(tempfile.mkdtemp())
    epoch, scenes = 0.0, 1
    for name in asked.networks.split(","):
        seconds: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(asked.rounds):
            for side, times in seconds.items():
                times.append(SIDES[side](name, asked.steps))
        count = asked.steps * BATCH[name]
        print(f"\n{name}: training on {count} images of 96x96, medians of {asked.rounds} rounds")  # noqa: T201
        for side, times in seconds.items():
            ratio = statistics.median(t / b for t, b in zip(times, seconds["bare"], strict=True))
            print(f"  {side:<12}{count / statistics.median(times):8.1f} images/s   {ratio:6.2f} x bare")  # noqa: T201
        if name == "faster_rcnn":
            epoch, scenes = statistics.median(seconds["dlx"]), count
    image = samples("faster_rcnn")["image"][: asked.images]
    looking = {name: made() for name, made in DETECTORS.items()}
    spent: dict[str, list[float]] = {name: [] for name in looking}
    for _ in range(asked.rounds):
        for name, detect in looking.items():
            spent[name].append(seconds_of(detect, image))
    first = next(iter(spent.values()))
    print(f"\ndetections in {len(image)} images of 96x96")  # noqa: T201
    for name, times in spent.items():
        ratio = statistics.median(b / t for t, b in zip(times, first, strict=True))
        print(f"  {name:<28}{len(image) / statistics.median(times):8.1f} images/s   {ratio:6.2f} x as fast")  # noqa: T201
    if epoch:
        share = share_of_map(epoch, scenes)
        print(f"\naverage precision of 200 images: {share:.1%} of an epoch of 1,800")  # noqa: T201
    print(f"\ntorch {torch.__version__}, 1 thread, {Path('/proc/loadavg').read_text().split()[0]} load")  # noqa: T201


if __name__ == "__main__":
    main()
