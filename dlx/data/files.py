"""Files on disk: where data is kept, downloads, and the inputs that a person wants predictions for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dlx.config.errors import UserError
from dlx.tasks.spec import ImageSpec

if TYPE_CHECKING:
    from dlx.tasks.spec import Spec


def data_root(root: str | None) -> Path:
    """dataset.root, else $DLX_DATA, else ~/.cache/dlx/data."""
    return Path(root or os.environ.get("DLX_DATA") or "~/.cache/dlx/data").expanduser()


def download(url: str, path: Path, md5: str) -> None:
    """Fetches a file under a temporary name, checks it, renames it: a cut-off download is never taken for whole."""
    from torchvision.datasets.utils import download_url

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.unlink(missing_ok=True)
    download_url(url, str(path.parent), filename=partial.name, md5=md5)
    partial.replace(path)


def save_array(path: Path, array: np.ndarray) -> None:
    """Writes a .npy file that is whole or absent."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.npy")
    np.save(partial, array)
    partial.replace(path)


def read_inputs(path: Path, spec: Spec) -> Tensor:
    """A file as a normalized batch for a trained system: an image [1, C, H, W], or rows [N, F] of .csv or .npy."""
    if isinstance(spec, ImageSpec):
        return spec.normalize(read_image(path, spec).unsqueeze(0))
    try:
        rows = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path, delimiter=",", ndmin=2)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    values = torch.from_numpy(np.atleast_2d(rows)).float()
    if values.dim() != 2 or values.shape[1] != spec.input_shape[0]:
        raise UserError(f"{path}: must have {spec.input_shape[0]} numbers per row, got shape {tuple(values.shape)}")
    return values


def read_image(path: Path, spec: ImageSpec) -> Tensor:
    """An image file in the spec's channels, size and scale, uint8 [C, H, W]."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            converted = image.convert("L" if spec.channels == 1 else "RGB")
            pixels = np.asarray(converted.resize((spec.width, spec.height), Image.Resampling.BILINEAR))
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{path}: not an image that can be read ({error})") from None
    scaled = np.round(pixels.astype(np.float32) * (spec.scale / 255)).astype(np.uint8)
    return torch.from_numpy(scaled.reshape(spec.height, spec.width, spec.channels).transpose(2, 0, 1).copy())
