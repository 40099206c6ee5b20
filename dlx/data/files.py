"""Files on disk: where data is kept, downloads, and images and rows as tensors."""

from __future__ import annotations

import os
import shutil
import uuid
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from dlx.config.errors import UserError
from dlx.tasks.spec import ImageSpec, VectorSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from dlx.tasks.spec import Spec


def data_root(root: str | None) -> Path:
    """dataset.root, else $DLX_DATA, else ~/.cache/dlx/data."""
    return Path(root or os.environ.get("DLX_DATA") or "~/.cache/dlx/data").expanduser()


def _beside(path: Path) -> Path:
    """A name for what is not whole yet; no other process, on this or another host, takes the same."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"dataset.root: cannot write to {folder} ({error.strerror}); choose another folder") from error


def download(url: str, path: Path, md5: str) -> None:
    """Fetches a file under a temporary name, checks it, renames it: a cut-off download is never taken for whole.

    Raises OSError without a network or a usable answer, RuntimeError for a wrong checksum.
    """
    from http.client import HTTPException

    from torchvision.datasets.utils import download_url

    make_folder(path.parent)
    partial = _beside(path)
    try:
        download_url(url, str(path.parent), filename=partial.name, md5=md5)
        partial.replace(path)
    except HTTPException as error:  # no OSError: what a proxy answers that is not HTTP
        raise OSError(f"no usable answer: {error!r}") from error
    finally:
        partial.unlink(missing_ok=True)


def kept_folder(folder: Path, fill: Callable[[Path], None]) -> Path:
    """`folder`; where it is not there, `fill` writes a temporary one that is then renamed, so it is whole or absent."""
    if folder.is_dir():
        return folder
    partial = _beside(folder)
    make_folder(partial)
    try:
        fill(partial)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def read_array(path: Path) -> Tensor:
    """A .npy file, memory-mapped; what is written to the tensor stays private."""
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def decode_image(content: bytes, channels: int, size: tuple[int, int] | None = None) -> np.ndarray:
    """An encoded image as uint8 [C, H, W]; 1 channel is gray, 3 are RGB.

    size: (height, width) to scale to; what sticks out of that shape is cut off evenly. Raises what Pillow raises for
    a damaged file, ValueError for 16-bit and float images (Pillow would clip them).
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        opened = Image.open(BytesIO(content))
    except UnidentifiedImageError:
        raise ValueError("no image of a known format") from None
    with opened as image:
        if image.mode[0] in "IF":
            raise ValueError("16-bit and float images are not supported, only 8 bits a channel")
        upright = ImageOps.exif_transpose(image)  # cameras store how they were held
        converted = upright.convert("L" if channels == 1 else "RGB")
    if size is not None and (converted.height, converted.width) != size:
        converted = ImageOps.fit(converted, size[::-1], Image.Resampling.BILINEAR)
    pixels = np.asarray(converted).reshape(converted.height, converted.width, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def read_inputs(path: Path, spec: Spec) -> Tensor:
    """A file as a normalized batch for a trained system: an image [1, C, H, W], or rows [N, F] of .csv or .npy.

    A .csv may begin with a line of names.
    """
    if isinstance(spec, ImageSpec):
        return spec.normalize(read_image(path, spec).unsqueeze(0))
    if not isinstance(spec, VectorSpec):
        raise UserError(f"{path}: files can be read for images and feature vectors, not for {type(spec).__name__}")
    try:
        rows = np.load(path, allow_pickle=False) if path.suffix == ".npy" else _read_csv(path)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: {str(error).partition('; use `usecols`')[0]}") from error
    if rows.size == 0:
        raise UserError(f"{path}: holds no rows")
    values = torch.from_numpy(np.atleast_2d(rows)).float()
    if values.dim() != 2 or values.shape[1] != spec.num_features:
        raise UserError(f"{path}: must have {spec.num_features} numbers per row, got shape {tuple(values.shape)}")
    return values


def _read_csv(path: Path) -> np.ndarray:
    lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if lines and not any(_is_number(cell) for cell in lines[0].split(",")):
        del lines[0]
    return np.loadtxt(lines, delimiter=",", ndmin=2) if lines else np.empty((0, 0))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_image(path: Path, spec: ImageSpec) -> Tensor:
    """An image file in the spec's channels, size and scale, uint8 [C, H, W]."""
    try:
        pixels = decode_image(path.read_bytes(), spec.channels, (spec.height, spec.width))
    except Exception as error:  # Pillow's decoders raise errors of many kinds
        raise UserError(f"{path}: not an image that can be read ({error})") from error
    return torch.from_numpy(np.round(pixels.astype(np.float32) * (spec.scale / 255)).astype(np.uint8))
