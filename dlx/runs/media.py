"""Media: what a run shows at a step. Each is one file, NAME-STEP.SUFFIX, whose suffix says what it is.

.png          pixels (a tensor uint8 [H, W, C]), a matplotlib figure, an Overlay
.gif          Animation
.txt          Text
.curve.json   Curve
.table.json   Table
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dlx.runs.files import strict

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".curve.json", ".table.json", ".png", ".gif", ".txt")
COLORS = ((230, 57, 70), (29, 130, 190), (42, 157, 88), (233, 150, 40), (130, 80, 180), (20, 160, 160))
LEAST = 256  # pixels of the longer side of a picture: smaller ones are enlarged by whole factors


@dataclass(frozen=True)
class Overlay:
    """A photo, uint8 [H, W, C], with boxes (x1, y1, x2, y2 in its pixels, and a text each) or with a mask of classes
    (int [H, W], -1 where there is none) laid over it."""

    photo: Any
    boxes: Sequence[tuple[float, float, float, float]] = ()
    texts: Sequence[str] = ()
    mask: Any = None


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Curve:
    """Lines over an x of their own, such as a ROC curve: name -> (x, y)."""

    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    x: str
    y: str
    title: str = ""


@dataclass(frozen=True)
class Table:
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Animation:
    """Frames, uint8 [T, H, W, C]."""

    frames: Any
    seconds: float = 0.25  # of a frame


def grid(pixels: Any, columns: int | None = None, gap: int = 1) -> Any:
    """Pictures uint8 [N, H, W, C] as one, uint8 [H', W', C], in rows, white between."""
    pixels = np.asarray(pixels)
    count, height, width, channels = pixels.shape
    columns = min(columns or int(np.ceil(count**0.5)), count)
    rows = -(-count // columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 255, np.uint8)
    for number, picture in enumerate(pixels):
        y, x = number // columns * (height + gap), number % columns * (width + gap)
        canvas[y : y + height, x : x + width] = picture
    return canvas


def encode(medium: Any) -> tuple[str, bytes]:
    """The suffix and content of a medium's file. Raises TypeError for what is none."""
    if isinstance(medium, Text):
        return ".txt", medium.text.encode()
    if isinstance(medium, Curve):
        return ".curve.json", json.dumps(strict(asdict(medium)), allow_nan=False).encode()
    if isinstance(medium, Table):
        return ".table.json", json.dumps(strict(asdict(medium)), allow_nan=False).encode()
    if isinstance(medium, Animation):
        first, *rest = (enlarged(frame) for frame in np.asarray(medium.frames))
        content = io.BytesIO()
        duration = round(1000 * medium.seconds)
        first.save(content, "gif", save_all=True, append_images=rest, duration=duration, loop=0)
        return ".gif", content.getvalue()
    if isinstance(medium, Overlay):
        return ".png", _png(_draw_overlay(medium))
    if hasattr(medium, "savefig"):
        content = io.BytesIO()
        medium.savefig(content, format="png", dpi=120)
        return ".png", content.getvalue()
    pixels = np.asarray(medium)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise TypeError(f"no medium: {type(medium).__name__} {pixels.dtype} {pixels.shape}; pixels are uint8 [H, W, C]")
    return ".png", _png(enlarged(pixels))


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "png")
    return content.getvalue()


def _image(pixels: Any) -> Image.Image:
    from PIL import Image

    pixels = np.asarray(pixels)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def enlarged(pixels: Any, least: int = LEAST) -> Image.Image:
    """By a whole factor, pixels as squares, until the longer side is at least `least`."""
    from PIL import Image

    image = _image(pixels)
    factor = max(1, round(least / max(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _draw_overlay(overlay: Overlay) -> Image.Image:
    from PIL import Image, ImageDraw

    image = enlarged(overlay.photo).convert("RGB")
    factor = image.width // np.asarray(overlay.photo).shape[1]
    if overlay.mask is not None:
        mask = np.asarray(overlay.mask)
        colors = np.array(COLORS, np.uint8)[np.maximum(mask, 0) % len(COLORS)]
        alpha = Image.fromarray(np.where(mask >= 0, 140, 0).astype(np.uint8))
        layers = (Image.fromarray(colors), alpha)
        color, alpha = (layer.resize(image.size, Image.Resampling.NEAREST) for layer in layers)
        image.paste(color, mask=alpha)
    draw = ImageDraw.Draw(image)
    texts = [*overlay.texts, *[""] * (len(overlay.boxes) - len(overlay.texts))]
    kinds = list(dict.fromkeys(text.split(" ")[0] for text in texts))
    for box, text in zip(overlay.boxes, texts, strict=True):
        color = COLORS[kinds.index(text.split(" ")[0]) % len(COLORS)]
        x1, y1, x2, y2 = (factor * value for value in box)
        draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=color, width=2)
        if text:
            draw.text((x1 + 3, y1 + 1), text, fill=color)
    return image
