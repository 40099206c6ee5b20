"""Photos: a source whose images are decoded when they are taken, for more than a disk holds as arrays."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from dlx.config.errors import UserError
from dlx.tasks.reading import decode_mask, decode_whole

if TYPE_CHECKING:
    from torch import Tensor

    from dlx.tasks.system import Batch

Shape = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True)
class Decoder:
    """How files become arrays. class_of: the class of each number of a label image, uint8 [256]; void: what a mask is
    beyond its image."""

    channels: int
    background: float
    class_of: np.ndarray
    void: int

    def image(self, content: bytes, shape: Shape) -> np.ndarray:
        """uint8 [C, H, W], the whole picture."""
        return decode_whole(content, self.channels, shape, self.background)

    def mask(self, content: bytes, shape: Shape) -> np.ndarray:
        """uint8 [H, W]"""
        return self.class_of[decode_mask(content, shape)]


class Photos:
    """Images (and label images) below a folder by name; a batch is padded to its largest.

    tensors: the other entries, with `size` (int64 [N, 2]), which images are scaled to.
    """

    lengths: Mapping[str, Tensor] | None = None
    keys: Sequence[str] | None = None

    def __init__(
        self, folder: Path, images: Sequence[str], masks: Sequence[str], decoder: Decoder, **tensors: Tensor
    ) -> None:
        self.folder, self.decoder, self.tensors, self.size = folder, decoder, tensors, tensors["size"]
        self.files = {"image": images, **({"mask": masks} if masks else {})}

    def __len__(self) -> int:
        return len(self.size)

    def take(self, index: Tensor, draw: int = 0) -> Batch:
        batch = {name: tensor[index] for name, tensor in self.tensors.items()}
        height, width = self.size[index].amax(0).tolist() if len(index) else (1, 1)
        for kind in self.files:
            inner = (self.decoder.channels, height, width) if kind == "image" else (height, width)
            padded = np.full((len(index), *inner), 0 if kind == "image" else self.decoder.void, np.uint8)
            for row, number in enumerate(index.tolist()):
                h, w = self.size[number].tolist()
                padded[row, ..., :h, :w] = self._decoded(kind, self.folder / self.files[kind][number], (h, w))
            batch[kind] = torch.from_numpy(padded)
        return batch

    def _decoded(self, kind: str, path: Path, shape: Shape) -> np.ndarray:
        try:
            content = path.read_bytes()
            return self.decoder.image(content, shape) if kind == "image" else self.decoder.mask(content, shape)
        except Exception as error:  # Pillow's decoders raise errors of many kinds
            raise UserError(f"dataset.path: {path}: cannot be decoded ({error})") from error

    def only(self, names: Collection[str]) -> Photos:
        source = copy(self)
        source.files = {name: files for name, files in self.files.items() if name in names}
        source.tensors = {name: tensor for name, tensor in self.tensors.items() if name in names}
        return source
