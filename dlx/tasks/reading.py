"""Files of a person's own as arrays: images and rows of numbers."""

from __future__ import annotations

import csv
import math
import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dlx.config.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image


# What Pillow decodes itself. Asked for any format, it hands PostScript in a .png to another program.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MAX_PIXELS = 100_000_000  # of an image: 300 MB as RGB


def _open(content: bytes) -> Image.Image:
    """Its header alone is read. Raises ValueError for what is no image of these formats, or is too large."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError("no image of a known format") from None
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are read")
    return image


def image_size(content: bytes) -> tuple[int, int]:
    """Height and width as it is shown, from the header. Raises as `_open`, and what Pillow raises for a damaged one."""
    with _open(content) as image:
        turned = image.getexif().get(0x0112, 1) >= 5  # cameras store how they were held
        return (image.width, image.height) if turned else (image.height, image.width)


def size_of_file(path: Path) -> tuple[int, int]:
    """Height and width of an image file. Raises UserError."""
    try:
        return image_size(path.read_bytes())
    except Exception as error:  # Pillow's decoders raise errors of many kinds
        raise UserError(f"{path}: not an image that can be read ({error})") from error


def _open_image(content: bytes, channels: int, background: float) -> Image.Image:
    """Upright, gray (1 channel) or RGB (3); what is transparent lies on the background, 0 black to 1 white. Raises what
    Pillow raises for a damaged file, ValueError for 16-bit and float images (Pillow would clip them)."""
    from PIL import Image, ImageOps

    with _open(content) as image:
        if image.mode[0] in "IF":
            raise ValueError("16-bit and float images are not supported, only 8 bits a channel")
        upright = ImageOps.exif_transpose(image)
        if upright.has_transparency_data:
            level = round(255 * background)
            ground = Image.new("RGBA", upright.size, (level, level, level, 255))
            upright = Image.alpha_composite(ground, upright.convert("RGBA"))
        return upright.convert("L" if channels == 1 else "RGB")


def _pixels(image: Image.Image, channels: int) -> np.ndarray:
    pixels = np.asarray(image).reshape(image.height, image.width, channels)
    return pixels.transpose(2, 0, 1).copy()  # Pillow's own is not writable


def decode_content(
    content: bytes, channels: int, size: tuple[int, int] | None = None, background: float = 1.0
) -> np.ndarray:
    """An encoded image as uint8 [C, H, W].

    size: (height, width) to scale to; what sticks out of that shape is cut off evenly. Raises as `_open_image`.
    """
    from PIL import Image, ImageOps

    image = _open_image(content, channels, background)
    if size is not None and (image.height, image.width) != size:
        image = ImageOps.fit(image, size[::-1], Image.Resampling.BILINEAR)
    return _pixels(image, channels)


def decode_image(path: Path, channels: int, size: tuple[int, int], background: float = 1.0) -> np.ndarray:
    """An image file as uint8 [C, H, W], scaled and cut to size. Raises UserError."""
    try:
        return decode_content(path.read_bytes(), channels, size, background)
    except Exception as error:  # Pillow's decoders raise errors of many kinds
        raise UserError(f"{path}: not an image that can be read ({error})") from error


def size_inside(size: tuple[int, int], bound: tuple[int, int]) -> tuple[tuple[int, int], float]:
    """Height and width of a whole picture that is scaled to fit into the bound, and the factor."""
    scale = min(bound[0] / size[0], bound[1] / size[1])
    return (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))), scale


def decode_whole(content: bytes, channels: int, size: tuple[int, int], background: float = 1.0) -> np.ndarray:
    """An encoded image as uint8 [C, H, W], scaled to (height, width) with nothing cut off. Raises as `_open_image`."""
    from PIL import Image

    image = _open_image(content, channels, background)
    if (image.height, image.width) != size:
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return _pixels(image, channels)


def decode_mask(content: bytes, size: tuple[int, int] | None = None) -> np.ndarray:
    """An encoded image of class numbers, those of its palette or its gray levels, as uint8 [H, W].

    size: (height, width) to scale to; a pixel takes the nearest one's class. Raises ValueError for other images.
    """
    from PIL import Image

    with _open(content) as image:
        if image.mode not in ("P", "L", "1"):
            raise ValueError(f"its pixels are of mode {image.mode}, not class numbers of a palette or of gray levels")
        if size is not None and (image.height, image.width) != size:
            image = image.resize(size[::-1], Image.Resampling.NEAREST)
        return np.array(image, np.uint8)


def fit_inside(
    path: Path, channels: int, size: tuple[int, int], background: float = 1.0, *, enlarge: bool = True
) -> tuple[np.ndarray, float]:
    """An image file, whole, scaled to fit into (height, width): uint8 [C, h, w], and the factor. enlarge: also one that
    fits already. Raises UserError."""
    from PIL import Image

    try:
        image = _open_image(path.read_bytes(), channels, background)
    except Exception as error:  # Pillow's decoders raise errors of many kinds
        raise UserError(f"{path}: not an image that can be read ({error})") from error
    shape, scale = size_inside((image.height, image.width), size)
    if scale > 1 and not enlarge:
        return _pixels(image, channels), 1.0
    return _pixels(image.resize(shape[::-1], Image.Resampling.BILINEAR), channels), scale


def read_rows(path: Path, size: int, names: Sequence[str] = ()) -> np.ndarray:
    """The rows of a .csv or .npy file, float64 [N, size], all finite. names: of the columns, where they are known.

    A first line of a .csv that holds words alone names the columns, which is said where they are not known. Raises
    UserError with the line of the file.
    """
    if path.suffix.lower() == ".npz":
        raise UserError(f"{path}: an archive of arrays; give one of them as .npy")
    try:
        rows = _read_npy(path, size) if path.suffix.lower() == ".npy" else _read_csv(path, tuple(names))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, EOFError, csv.Error) as error:
        raise UserError(f"{path}: {error}") from None
    if rows.size == 0:
        raise UserError(f"{path}: holds no rows")
    if rows.ndim != 2 or rows.shape[1] != size:
        raise UserError(f"{path}: must have {size} numbers per row, got shape {rows.shape}")
    return rows


def _read_npy(path: Path, size: int) -> np.ndarray:
    """Raises ValueError for anything but finite real numbers. A list of numbers is one row, or rows of one number."""
    rows: np.ndarray = np.load(path, allow_pickle=False)
    if rows.ndim < 2:
        rows = rows.reshape(-1, 1) if size == 1 else np.atleast_2d(rows)
    if rows.dtype.kind not in "biuf":
        raise ValueError(f"holds {rows.dtype}, not real numbers")
    rows = rows.astype(np.float64)
    bad = np.argwhere(~np.isfinite(rows))
    if len(bad):
        raise ValueError(f"row {bad[0, 0] + 1}: {rows[tuple(bad[0])]} is not finite")
    return rows


def _read_csv(path: Path, names: tuple[str, ...]) -> np.ndarray:
    """Raises ValueError with the line of a value that is not finite, or of a row with the wrong length."""
    rows: list[list[float]] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        for number, cells in enumerate(reader):
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if number == 0 and all(cell and _number(cell) is None for cell in cells):
                _check_names(path, tuple(cells), names)
                continue
            row = [_number(cell) for cell in cells]
            for cell, value in zip(cells, row, strict=True):
                if value is None:
                    raise ValueError(f"line {reader.line_num}: {cell!r} is no number")
                if not math.isfinite(value):
                    raise ValueError(f"line {reader.line_num}: {cell} is not finite")
            rows.append([value for value in row if value is not None])
            if len(row) != len(rows[0]):
                raise ValueError(f"line {reader.line_num}: {len(row)} numbers, the lines before have {len(rows[0])}")
    return np.array(rows, np.float64) if rows else np.empty((0, 0))


def _check_names(path: Path, found: tuple[str, ...], names: tuple[str, ...]) -> None:
    if names and sorted(found) == sorted(names) and found != names:
        raise ValueError(f"line 1: the columns are {', '.join(found)}; they must be {', '.join(names)}")
    if found != names:
        warnings.warn(f"{path}: line 1 ({', '.join(found)}) is taken for the names of the columns", stacklevel=2)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
