"""Files of a person's own as arrays: images and rows of numbers."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dlx.config.errors import UserError

if TYPE_CHECKING:
    from PIL import Image


def _open_image(content: bytes, channels: int) -> Image.Image:
    """Upright, gray (1 channel) or RGB (3). Raises what Pillow raises for a damaged file, ValueError for 16-bit and
    float images (Pillow would clip them)."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        opened = Image.open(BytesIO(content))
    except UnidentifiedImageError:
        raise ValueError("no image of a known format") from None
    with opened as image:
        if image.mode[0] in "IF":
            raise ValueError("16-bit and float images are not supported, only 8 bits a channel")
        upright = ImageOps.exif_transpose(image)  # cameras store how they were held
        return upright.convert("L" if channels == 1 else "RGB")


def _pixels(image: Image.Image, channels: int) -> np.ndarray:
    pixels = np.asarray(image).reshape(image.height, image.width, channels)
    return pixels.transpose(2, 0, 1).copy()  # Pillow's own is not writable


def decode_content(content: bytes, channels: int, size: tuple[int, int] | None = None) -> np.ndarray:
    """An encoded image as uint8 [C, H, W].

    size: (height, width) to scale to; what sticks out of that shape is cut off evenly. Raises as `_open_image`.
    """
    from PIL import Image, ImageOps

    image = _open_image(content, channels)
    if size is not None and (image.height, image.width) != size:
        image = ImageOps.fit(image, size[::-1], Image.Resampling.BILINEAR)
    return _pixels(image, channels)


def decode_image(path: Path, channels: int, size: tuple[int, int]) -> np.ndarray:
    """An image file as uint8 [C, H, W], scaled and cut to size. Raises UserError."""
    try:
        return decode_content(path.read_bytes(), channels, size)
    except Exception as error:  # Pillow's decoders raise errors of many kinds
        raise UserError(f"{path}: not an image that can be read ({error})") from error


def fit_inside(path: Path, channels: int, size: tuple[int, int]) -> tuple[np.ndarray, float]:
    """An image file, whole, scaled to fit into (height, width): uint8 [C, h, w], and the factor. Raises UserError."""
    from PIL import Image

    try:
        image = _open_image(path.read_bytes(), channels)
    except Exception as error:  # Pillow's decoders raise errors of many kinds
        raise UserError(f"{path}: not an image that can be read ({error})") from error
    scale = min(size[0] / image.height, size[1] / image.width)
    shape = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return _pixels(image.resize(shape, Image.Resampling.BILINEAR), channels), scale


def read_rows(path: Path, size: int) -> np.ndarray:
    """The rows of a .csv or .npy file, [N, size]. Raises UserError."""
    try:
        rows = np.load(path, allow_pickle=False) if path.suffix == ".npy" else _read_csv(path)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: {str(error).partition('; use `usecols`')[0]}") from error
    if rows.size == 0:
        raise UserError(f"{path}: holds no rows")
    rows = np.atleast_2d(rows)
    if rows.ndim != 2 or rows.shape[1] != size:
        raise UserError(f"{path}: must have {size} numbers per row, got shape {rows.shape}")
    return rows


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
