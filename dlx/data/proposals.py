"""Proposals: regions of an image that may hold an object, as an entry that any source with images can offer.

`dataset.proposals={name: windows}` adds the entry `proposals` to the dataset's spec. They are made where a system reads
them, for all images of a source at once, in threads, and kept by the images' content.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.config.screen import track
from dlx.data.dataset import TensorSource, only
from dlx.data.files import cached_dir, data_root, read_array
from dlx.tasks.spec import Images, Proposals

if TYPE_CHECKING:
    from torch import Tensor

    from dlx.data.dataset import Source
    from dlx.tasks.spec import Spec
    from dlx.tasks.system import Batch

AT_ONCE = 256  # images
_FORMAT = 1  # of what is kept; part of its key


class Proposer:
    """Base of all ways to propose regions. most: boxes of an image, at most; the first ones count most."""

    most: int

    slow: ClassVar[bool] = False
    """Whether an image takes so long that several processes pay."""

    def __call__(self, image_HWC: np.ndarray) -> np.ndarray:
        """Boxes [M, 4] of an image uint8 [H, W, C]: x1, y1, x2, y2 in pixels, the best first."""
        raise NotImplementedError(f"{type(self).__name__} proposes nothing")


class SlidingWindows(Proposer):
    """sizes: sides of a square of the same area, in shares of the image's longer side. ratios: height over width.
    stride: from a window to the next, in shares of its sides."""

    def __init__(
        self,
        *,
        sizes: Sequence[float] = (0.25, 0.5),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        stride: float = 0.5,
        most: int = 200,
    ) -> None:
        checks.above(0, sizes=min(sizes, default=0), ratios=min(ratios, default=0), stride=stride)
        checks.at_least(1, most=most)
        self.sizes, self.ratios, self.stride, self.most = sizes, ratios, stride, most

    def __call__(self, image_HWC: np.ndarray) -> np.ndarray:
        height, width = image_HWC.shape[:2]
        boxes = []
        for size in sorted(self.sizes, reverse=True):
            for ratio in self.ratios:
                side = size * max(height, width)
                h, w = min(height, round(side * ratio**0.5)), min(width, round(side / ratio**0.5))
                for y in _steps(height - h, self.stride * h):
                    boxes += [(x, y, x + w, y + h) for x in _steps(width - w, self.stride * w)]
        return np.array(list(dict.fromkeys(boxes)), np.float32)[: self.most]


def _steps(last: int, stride: float) -> list[int]:
    """Even steps from 0 to `last`, both among them, none wider than `stride`."""
    count = max(1, int(np.ceil(last / max(1.0, stride))))
    return [round(last * number / count) for number in range(count + 1)] if last else [0]


def with_proposals(spec: Spec, proposer: Proposer | None) -> Spec:
    """The spec with the entry that a proposer adds. Raises UserError for data without images."""
    if proposer is None:
        return spec
    if not isinstance(spec, Images):
        raise UserError(f"dataset.proposals: are of images, and {type(spec).__name__} has none")
    return replace(spec, proposals=Proposals(most=proposer.most))


class Proposed:
    """A source of images with proposals, which are made when they are first read."""

    def __init__(self, source: Source, proposer: Proposer, root: str | None = None) -> None:
        self.source, self.proposer, self.root = source, proposer, data_root(root)
        self.lengths = getattr(source, "lengths", None)
        self.labels = getattr(source, "labels", None)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the source, for code that reads labels."""
        return getattr(self.source, "tensors", {})

    def __len__(self) -> int:
        return len(self.source)

    def take(self, index: Tensor, draw: int = 0) -> Batch:
        batch = self.source.take(index, draw)
        return {**batch, "proposals": self.proposals[index]}

    def only(self, names: Collection[str]) -> Any:
        """The source itself if nobody reads proposals; else one with proposals, in memory if the source is."""
        if "proposals" not in names:
            return only(self.source, names)
        if type(self.source) is not TensorSource:
            return self
        source = TensorSource(**{**self.source.tensors, "proposals": self.proposals})
        source.lengths = self.lengths
        return source.only(names)

    @cached_property
    def proposals(self) -> Tensor:
        """[N, most, 4], padded with -1."""
        settings = json.dumps(vars(self.proposer), sort_keys=True, default=str)
        digest = hashlib.sha256(f"{_FORMAT} {type(self.proposer).__qualname__} {settings}".encode())
        for start in range(0, len(self), AT_ONCE):
            digest.update(self._images(start).tobytes())
        folder = cached_dir(self.root / "proposals" / digest.hexdigest()[:32], self._make)
        return read_array(folder / "proposals.npy")

    def _images(self, start: int) -> np.ndarray:
        index = torch.arange(start, min(start + AT_ONCE, len(self)))
        return self.source.take(index)["image"].numpy()

    def _make(self, into: Path) -> None:
        starts = range(0, len(self), AT_ONCE)
        found = np.full((len(self), self.proposer.most, 4), -1, np.float32)
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start in track(starts, "proposing regions", len(starts)):
                images = self._images(start).transpose(0, 2, 3, 1)
                for number, boxes in enumerate(pool.map(self.proposer, images), start):
                    found[number, : len(boxes)] = boxes[: self.proposer.most]
        np.save(into / "proposals.npy", found)
