"""Proposals: regions of an image that may hold an object, as an entry that any source with images can offer.

`dataset.proposals=selective_search` adds the entry `proposals` to the dataset's spec. They are made where a system
reads them, by several processes, and kept in the folder `proposals` of `dataset.root` by the images' content.
"""

from __future__ import annotations

import copy
import fcntl
import hashlib
import json
import multiprocessing
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.config.screen import note, track
from dlx.data.dataset import TensorSource, only
from dlx.data.files import data_root, make_folder
from dlx.data.workers import Workers
from dlx.runs.files import no_room, write_all
from dlx.tasks.spec import Images, Proposals

if TYPE_CHECKING:
    from torch import Tensor

    from dlx.data.dataset import Dataset, Source
    from dlx.tasks.spec import Image, Spec
    from dlx.tasks.system import Batch

TOGETHER = 16  # images that a process takes at a time
KEY = 16  # bytes of an image's hash
_FORMAT = 2  # of what is kept, and of how images are hashed


class Proposer:
    """Base of all ways to propose regions. most: boxes of an image, at most; the first ones count most."""

    most: int

    slow: ClassVar[bool] = False
    """Whether an image takes so long that several processes pay."""

    def __call__(self, image_HWC: np.ndarray) -> np.ndarray:
        """Boxes [M, 4] of an image uint8 [H, W, C]: x1, y1, x2, y2 in pixels, the best first."""
        raise NotImplementedError(f"{type(self).__name__} proposes nothing")

    def load(self) -> None:
        """Imports what it needs: called once, before processes are forked that share it."""


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


def proposed(dataset: Dataset, proposer: Proposer) -> dict[str, Any]:
    """The dataset's sources with proposals. Raises UserError as above."""
    with_proposals(dataset.spec, proposer)
    assert isinstance(dataset.spec, Images)
    scale, root = dataset.spec.image.scale, getattr(dataset, "root", None)
    return {name: Proposed(source, proposer, scale=scale, root=root) for name, source in dataset.sources.items()}


def propose(proposer: Proposer, batch: Batch, image: Image) -> Tensor:
    """Proposals of a batch of images that are no dataset's, float32 [B, most, 4]. image: as what they are normalized.

    The same images of a dataset have the same proposals; these are not kept.
    """
    levels = image.levels(batch["image"].cpu())
    sizes = {"size": batch["size"].cpu()} if "size" in batch else {}
    images = _Images(TensorSource(image=levels, **sizes), image.scale)
    proposer.load()
    walk = _walk(_Boxes(images, proposer), torch.arange(len(levels)), processes=proposer.slow)
    return torch.cat([found["proposals"] for _, found in walk]).to(batch["image"].device)


class Proposed:
    """A source of images with proposals, which are made for the images that are read, when they first are.

    scale: the value of full brightness in stored images; a proposer sees 0..255.
    """

    def __init__(self, source: Source, proposer: Proposer, *, scale: float = 255.0, root: str | None = None) -> None:
        self.source, self.proposer, self.scale = source, proposer, scale
        self.lengths = getattr(source, "lengths", None)
        self.labels = getattr(source, "labels", None)
        self.keys = getattr(source, "keys", None)
        settings = json.dumps(vars(proposer), sort_keys=True, default=str)
        made_by = hashlib.sha256(f"{_FORMAT} {type(proposer).__qualname__} {settings}".encode()).hexdigest()
        self.kept = KeptBoxes(data_root(root) / "proposals" / made_by[:32], proposer.most)
        self.row_N = torch.full((len(source),), -1)  # where an image's boxes are kept

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the source, for code that reads labels."""
        return getattr(self.source, "tensors", {})

    def __len__(self) -> int:
        return len(self.source)

    def take(self, index: Tensor, draw: int = 0) -> Batch:
        self.make(index)
        batch = self.source.take(index, draw)
        return {**batch, "proposals": torch.from_numpy(self.kept.read(self.row_N[index].numpy()))}

    def only(self, names: Collection[str], index: Tensor | None = None) -> Any:
        """The source itself if nobody reads proposals; else one that has them for the samples at `index` (default:
        all), in memory if the source is."""
        if "proposals" not in names:
            return only(self.source, names)
        self.make(torch.arange(len(self)) if index is None else index)
        if type(self.source) is not TensorSource:
            narrow = copy.copy(self)
            narrow.source = only(self.source, {*names, "image", "size"})
            return narrow
        proposals = torch.full((len(self), self.proposer.most, 4), -1.0)
        there = self.row_N >= 0
        proposals[there] = torch.from_numpy(self.kept.read(self.row_N[there].numpy()))
        source = TensorSource(**{**self.source.tensors, "proposals": proposals})
        source.lengths, source.keys = self.lengths, self.keys
        return source.only(names)

    def make(self, index: Tensor) -> None:
        """Finds the boxes of the images at `index` among those that are kept, and makes and keeps what is missing."""
        index = index.unique()
        index = index[self.row_N[index] < 0]
        if not len(index):
            return
        images = _Images(self.source, self.scale)
        decoded = type(self.source) is TensorSource
        hashed = [batch["key"] for _, batch in _walk(_Hashed(images), index, processes=not decoded)]
        key_N = [row.tobytes() for row in torch.cat(hashed).numpy()]
        row_of = self.kept.rows()
        if not row_of.keys() >= set(key_N):
            with self.kept.locked():
                self._make_missing(images, index, key_N)
            row_of = self.kept.rows()
        self.row_N[index] = torch.tensor([row_of[key] for key in key_N])

    def _make_missing(self, images: _Images, index: Tensor, key_N: list[bytes]) -> None:
        known = self.kept.rows()
        first = {key: number for number, key in reversed([*enumerate(key_N)]) if key not in known}
        key_of = {int(index[number]): key for key, number in first.items()}
        missing = torch.tensor(sorted(key_of), dtype=torch.int64)
        self.proposer.load()
        walk = _walk(_Boxes(images, self.proposer), missing, processes=self.proposer.slow)
        what = f"proposing regions of {len(missing):,} images"
        for part, batch in track(walk, what, -(-len(missing) // TOGETHER)):
            self.kept.append([key_of[number] for number in part.tolist()], batch["proposals"].numpy())


class _Images:
    """Images of a source as a proposer sees them: uint8 [H, W, C] in 0..255, without padding."""

    def __init__(self, source: Source, scale: float) -> None:
        self.source, self.scale = only(source, ("image", "size")), scale
        self.keys = getattr(source, "keys", None)

    def take(self, index: Tensor) -> list[np.ndarray]:
        batch = self.source.take(index)
        image_BHWC = batch["image"].permute(0, 2, 3, 1)
        if self.scale != 255 or image_BHWC.dtype != torch.uint8:
            image_BHWC = (image_BHWC * (255 / self.scale)).round().clamp(0, 255).to(torch.uint8)
        sizes = batch["size"].tolist() if "size" in batch else [image_BHWC.shape[1:3]] * len(index)
        return [
            np.ascontiguousarray(image[:height, :width].numpy())
            for image, (height, width) in zip(image_BHWC, sizes, strict=True)
        ]


class _Hashed:
    """Hashes of images, which workers can take."""

    def __init__(self, images: _Images) -> None:
        self.images, self.keys = images, images.keys

    def __len__(self) -> int:
        return len(self.images.source)

    def take(self, index: Tensor, draw: int = 0) -> Batch:
        keys = [
            hashlib.blake2b(f"{image.shape}".encode() + image.tobytes(), digest_size=KEY).digest()
            for image in self.images.take(index)
        ]
        return {"key": torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).view(-1, KEY)}


class _Boxes(_Hashed):
    """Proposals of images, float32 [B, most, 4], padded with -1."""

    def __init__(self, images: _Images, proposer: Proposer) -> None:
        super().__init__(images)
        self.proposer = proposer

    def take(self, index: Tensor, draw: int = 0) -> Batch:
        found = torch.full((len(index), self.proposer.most, 4), -1.0)
        for row, image in zip(found, self.images.take(index), strict=True):
            boxes = torch.from_numpy(self.proposer(image)[: self.proposer.most])
            row[: len(boxes)] = boxes
        return {"proposals": found}


def _walk(source: Source, index: Tensor, *, processes: bool) -> Iterator[tuple[Tensor, Batch]]:
    """A few samples at a time, each time with their positions; taken by a process for each core where that pays."""
    parts = index.split(TOGETHER)
    count = min(_cores(), len(parts)) if processes and not multiprocessing.current_process().daemon else 0
    yield from zip(parts, Workers(source, 0 if count < 2 else count, seed=0).take(parts, 0), strict=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class KeptBoxes:
    """Boxes of images that a proposer found, by a hash of the image: `boxes` holds float32 [most, 4] for each, `keys`
    its hash. Both files only grow. Boxes reach the disk before their hash is written, so that what has a hash is whole,
    whenever the process is killed."""

    def __init__(self, folder: Path, most: int) -> None:
        self.folder, self.most = folder, most

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process makes boxes; others wait, then find them made. Raises UserError."""
        make_folder(self.folder)
        try:
            file = (self.folder / "lock").open("w")
        except OSError as error:
            raise UserError(f"dataset.proposals: {self.folder}: cannot be written ({error.strerror})") from error
        with file:
            try:
                # Not flock, which worker processes would inherit and hold after this one is killed.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                note("dataset.proposals: waits for another process, which makes them")
                fcntl.lockf(file, fcntl.LOCK_EX)
            except OSError as error:
                raise UserError(
                    f"dataset.proposals: {self.folder}: the file system has no locks ({error.strerror}); "
                    "set $DLX_DATA to a folder of another"
                ) from error
            yield

    def rows(self) -> dict[bytes, int]:
        """The place of each image's boxes, by its hash."""
        count = self._count()
        keys = (self.folder / "keys").read_bytes() if count else b""
        return {keys[row * KEY : (row + 1) * KEY]: row for row in range(count)}

    def read(self, row_N: np.ndarray) -> np.ndarray:
        """float32 [N, most, 4]"""
        count = self._count()
        if not count:
            return np.zeros((0, self.most, 4), np.float32)
        return np.memmap(self.folder / "boxes", np.float32, "r", shape=(count, self.most, 4))[row_N]

    def append(self, keys: Sequence[bytes], boxes: np.ndarray) -> None:
        """Adds to both files, and cuts off what a killed process left half written. Raises UserError on a full disk."""
        count = self._count()
        try:
            _write_at(self.folder / "boxes", count * self._row_bytes, boxes.astype(np.float32).tobytes())
            _write_at(self.folder / "keys", count * KEY, b"".join(keys))
        except OSError as error:
            raise UserError(f"dataset.proposals: {no_room(self.folder, error)}") from error

    @property
    def _row_bytes(self) -> int:
        return self.most * 4 * np.dtype(np.float32).itemsize

    def _count(self) -> int:
        """How many images have both their boxes and their hash."""
        sizes = [(self.folder / name, each) for name, each in (("keys", KEY), ("boxes", self._row_bytes))]
        return min(path.stat().st_size // each if path.is_file() else 0 for path, each in sizes)


def _write_at(path: Path, start: int, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.ftruncate(descriptor, start)
        os.lseek(descriptor, start, os.SEEK_SET)
        write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
