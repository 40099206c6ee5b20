"""Media: pictures, texts, curves and tables of a run. Each is one file, NAME-STEP.SUFFIX; the suffix says its kind.

.png          pixels (a tensor uint8 [H, W, C]), a matplotlib figure, an Overlay, LabelImage
.gif          Animation
.txt          Text
.curve.json   Curve
.table.json   Table

Without a step it is NAME.SUFFIX. `files_in` lists the media of a folder; `read_text`, `read_curve` and
`read_table` read them back.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dlx.runs.files import NON_FINITE, encode_nonfinite, picture_bytes

if TYPE_CHECKING:
    from PIL import Image

Kind = Literal["image", "animation", "text", "curve", "table"]
KINDS: dict[str, Kind] = {
    ".curve.json": "curve", ".table.json": "table", ".png": "image", ".gif": "animation", ".txt": "text",
}  # fmt: skip
SUFFIXES = tuple(KINDS)
BEGINNINGS: dict[Kind, bytes] = {"image": b"\x89PNG\r\n\x1a\n", "animation": b"GIF8"}  # of the files' content
MAX_BYTES: dict[Kind, int] = {  # of a file that is shown; of a text the rest is left out
    "image": 64 << 20, "animation": 64 << 20, "text": 1 << 20, "curve": 8 << 20, "table": 8 << 20,
}  # fmt: skip
MAX_FILES = 100_000  # of a folder
MAX_ROWS = 100  # of a table, that a page shows
MAX_LINES = 20  # of a curve
MAX_POINTS = 2000  # of a line
COLORS = ((230, 57, 70), (29, 130, 190), (42, 157, 88), (233, 150, 40), (130, 80, 180), (20, 160, 160))
CAPTION = 14  # pixels of a strip with a text
LEAST = 256  # pixels of the longer side of a picture: smaller ones are enlarged by whole factors


@dataclass(frozen=True)
class Overlay:
    """A photo, uint8 [H, W, C], with boxes (x1, y1, x2, y2 in its pixels, a text each, and the number of its class, by
    which it is colored) or with a mask of classes (int [H, W], -1 where there is none) laid over it. caption: above.
    palette: of the classes, uint8 [K, 3]."""

    photo: Any
    boxes: Sequence[tuple[float, float, float, float]] = ()
    texts: Sequence[str] = ()
    mask: Any = None
    kinds: Sequence[int] = ()
    caption: str = ""
    palette: Any = COLORS


@dataclass(frozen=True)
class LabelImage:
    """Classes, uint8 [H, W], as a palette image, as segmentation's data sets have them: a program reads their numbers,
    a person sees their colors. palette: uint8 [N, 3]."""

    classes: Any
    palette: Any


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


@dataclass(frozen=True)
class MediaFile:
    """step: None for a medium without a step, such as a picture of `dlx eval`."""

    path: Path
    name: str
    step: int | None
    kind: Kind


def kind_of(path: Path | str) -> Kind | None:
    """The kind of a file, by its suffix; None for a file that is not a medium."""
    return next((kind for suffix, kind in KINDS.items() if str(path).endswith(suffix)), None)


def split_name(path: Path | str) -> tuple[str, int | None]:
    """The name and the step in a medium's file name; the step may be None."""
    name = _text(Path(path).name)
    name = next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
    dated = re.fullmatch(r"(.+)-(\d{8,15})", name, re.DOTALL)
    return (dated[1], int(dated[2])) if dated else (name, None)


def files_in(folder: Path) -> list[MediaFile]:
    """The media in a folder, in the order of their files' names. Only plain files: what a link leads to is no part of
    the run. Hidden files are those that are being written."""
    try:
        inside = [] if folder.is_symlink() else list(islice(os.scandir(folder), MAX_FILES))
    except OSError:
        return []
    found = []
    for item in sorted(inside, key=lambda item: item.name):
        kind = kind_of(item.name)
        if kind and not item.name.startswith(".") and item.is_file(follow_symlinks=False):
            found.append(MediaFile(Path(item.path), *split_name(item.name), kind))
    return found


def grid(pixels: Any, columns: int | None = None, gap: int = 1) -> Any:
    """Pictures uint8 [H, W, C], of one size or of several, as one, uint8 [H', W', C], in rows, white between."""
    count, channels = len(pixels), pixels[0].shape[2]
    height, width = (max(picture.shape[axis] for picture in pixels) for axis in (0, 1))
    columns = min(columns or int(np.ceil(count**0.5)), count)
    rows = -(-count // columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, channels), 255, np.uint8)
    for number, picture in enumerate(pixels):
        y, x = number // columns * (height + gap), number % columns * (width + gap)
        canvas[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return canvas


def with_legend(pixels: Any, caption: str, names: Sequence[str], colors: Any) -> Any:
    """Pixels uint8 [H, W, 3] below a strip with a caption and the names of colors (uint8 [N, 3] or more)."""
    from PIL import Image, ImageDraw

    picture = enlarged(pixels).convert("RGB")
    draw = ImageDraw.Draw(picture)
    places, x, y = [], 2.0, float(CAPTION)
    for name in map(_text, names):
        width = draw.textlength(name) + CAPTION + 8
        if x > 2 and x + width > picture.width:
            x, y = 2.0, y + CAPTION
        places.append((x, y, name))
        x += width
    top = round(y) + CAPTION
    found = Image.new("RGB", (picture.width, picture.height + top), "white")
    found.paste(picture, (0, top))
    draw = ImageDraw.Draw(found)
    draw.text((2, 1), _text(caption), fill="black")
    for (x, y, name), color in zip(places, np.asarray(colors).tolist(), strict=False):
        draw.rectangle((x, y + 2, x + CAPTION - 4, y + CAPTION - 3), fill=tuple(color), outline="black")
        draw.text((x + CAPTION, y + 1), name, fill="black")
    return np.asarray(found)


def encode(medium: Any) -> tuple[str, bytes]:
    """The suffix and content of a medium's file. Raises TypeError for anything else."""
    if isinstance(medium, Text):
        return ".txt", medium.text.encode()
    if isinstance(medium, Curve):
        return ".curve.json", _json(medium)
    if isinstance(medium, Table):
        return ".table.json", _json(medium)
    if isinstance(medium, Animation):
        first, *rest = (enlarged(frame) for frame in np.asarray(medium.frames))
        content = io.BytesIO()
        duration = round(1000 * medium.seconds)
        first.save(content, "gif", save_all=True, append_images=rest, duration=duration, loop=0)
        return ".gif", content.getvalue()
    if isinstance(medium, Overlay):
        return ".png", _png(_draw_overlay(medium))
    if isinstance(medium, LabelImage):
        image = _image(np.asarray(medium.classes)[..., None])
        image.putpalette(np.asarray(medium.palette).tobytes())
        return ".png", _png(image)
    if hasattr(medium, "savefig"):
        return ".png", picture_bytes(medium)
    pixels = np.asarray(medium)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise TypeError(f"no medium: {type(medium).__name__} {pixels.dtype} {pixels.shape}; pixels are uint8 [H, W, C]")
    return ".png", _png(enlarged(pixels))


def read_text(content: bytes, size: int) -> str:
    """The first bytes of a .txt of `size` bytes, and how many more there are."""
    rest = f"\n… {size - len(content):,} more bytes are not shown" if size > len(content) else ""
    return content.decode(errors="replace") + rest


def read_curve(content: bytes) -> Curve:
    """A .curve.json; each line with at most MAX_POINTS points, evenly chosen. Raises ValueError with the reason."""
    found = _json_object(content)
    lines = found.get("lines")
    if not isinstance(lines, dict):
        raise ValueError("it has no lines")
    return Curve(
        {_text(name): _line(values) for name, values in lines.items()},
        *(_text(text) if isinstance(text := found.get(key), str) else "" for key in ("x", "y", "title")),
    )


def read_table(content: bytes) -> Table:
    """A .table.json; every row has a cell for each column: a text, a number, a boolean or None. Raises ValueError with
    the reason."""
    found = _json_object(content)
    columns, rows = found.get("columns"), found.get("rows")
    if not isinstance(columns, list) or not isinstance(rows, list):
        raise ValueError("it has no columns or no rows")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, list) or len(row) != len(columns):
            raise ValueError(f"row {number} does not have {len(columns)} cells")
    cells = [_column([_cell(row[i]) for row in rows]) for i in range(len(columns))]
    return Table([str(_cell(name)) for name in columns], [list(row) for row in zip(*cells, strict=True)])


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def numeric_columns(table: Table) -> list[int]:
    """The indices of columns with numbers and None only."""
    columns = [[row[i] for row in table.rows if row[i] is not None] for i in range(len(table.columns))]
    return [i for i, cells in enumerate(columns) if cells and all(map(is_number, cells))]


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError("the file is damaged")
    return found


def _line(values: Any) -> tuple[Sequence[float], Sequence[float]]:
    if not isinstance(values, list) or len(values) != 2 or not all(isinstance(part, list) for part in values):
        raise ValueError("a line has no x and y")
    x, y = values
    if len(x) != len(y):
        raise ValueError(f"a line has {len(x)} x and {len(y)} y")
    chosen: Iterable[int] = range(len(x))
    if len(x) > MAX_POINTS:
        chosen = np.linspace(0, len(x) - 1, MAX_POINTS).round().astype(int).tolist()
    return [_number(x[i]) for i in chosen], [_number(y[i]) for i in chosen]


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, str) and value in NON_FINITE:
        return NON_FINITE[value]
    try:
        if is_number(value):
            return float(value)
    except OverflowError:  # an int of hundreds of digits
        pass
    raise ValueError("a line holds what is no number")


def _text(value: str) -> str:
    """The text as valid UTF-8: JSON may hold half a character, a file's name may be any bytes."""
    return value.encode(errors="replace").decode()


def _cell(value: Any) -> Any:
    return _text(value) if isinstance(value, str) else json.dumps(value) if isinstance(value, (dict, list)) else value


def _column(cells: list[Any]) -> list[Any]:
    """Among numbers the texts "NaN" and "Infinity" are numbers, as `encode_nonfinite` wrote them."""
    texts = {cell for cell in cells if isinstance(cell, str)}
    if texts and texts <= NON_FINITE.keys() and any(map(is_number, cells)):
        return [NON_FINITE[cell] if isinstance(cell, str) else cell for cell in cells]
    return cells


def _json(medium: Any) -> bytes:
    """Numbers may be numpy's or torch's."""

    def plain(value: Any) -> Any:
        if hasattr(value, "tolist"):
            value = value.tolist()
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (list, tuple, range)) else value

    return json.dumps(encode_nonfinite(plain(asdict(medium))), allow_nan=False).encode()


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "png")
    return content.getvalue()


def _image(pixels: Any) -> Image.Image:
    from PIL import Image

    pixels = np.asarray(pixels)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def enlarged(pixels: Any, least: int = LEAST) -> Image.Image:
    """Enlarges by an integer factor, without smoothing, until the longer side is at least `least`."""
    from PIL import Image

    image = _image(pixels)
    factor = max(1, round(least / max(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def overlay_pixels(overlay: Overlay) -> Any:
    """An overlay as pixels, uint8 [H, W, 3]; small photos are enlarged, so that texts can be read."""
    return np.asarray(_draw_overlay(overlay))


def _draw_overlay(overlay: Overlay) -> Image.Image:
    from PIL import Image, ImageDraw

    image = enlarged(overlay.photo).convert("RGB")
    factor = image.width // np.asarray(overlay.photo).shape[1]
    if overlay.mask is not None:
        mask = np.asarray(overlay.mask)
        colors = np.asarray(overlay.palette, np.uint8)[np.maximum(mask, 0) % len(overlay.palette)]
        alpha = Image.fromarray(np.where(mask >= 0, 140, 0).astype(np.uint8))
        layers = (Image.fromarray(colors), alpha)
        layer, alpha = (layer.resize(image.size, Image.Resampling.NEAREST) for layer in layers)
        image.paste(layer, mask=alpha)
    draw = ImageDraw.Draw(image)
    texts = [*map(_text, overlay.texts), *[""] * (len(overlay.boxes) - len(overlay.texts))]
    kinds = overlay.kinds or [list(dict.fromkeys(texts)).index(text) for text in texts]
    colors = [COLORS[kind % len(COLORS)] for kind in kinds]
    boxes = [
        (x1, y1, max(x1, x2), max(y1, y2)) for x1, y1, x2, y2 in (np.multiply(box, factor) for box in overlay.boxes)
    ]
    for box, color in zip(boxes, colors, strict=True):
        draw.rectangle(box, outline=color, width=2)
    taken: list[Corners] = []
    for box, text, color in zip(boxes, texts, colors, strict=True):
        if text:
            *_, right, bottom = draw.textbbox((0, 0), text)
            place = _label_place(box, (right + 4, bottom + 3), image.size, taken)
            draw.rectangle(place, fill=color)
            draw.text((place[0] + 2, place[1]), text, fill="white")
            taken.append(place)
    return _captioned(image, _text(overlay.caption)) if overlay.caption else image


Corners = tuple[float, float, float, float]


def _label_place(box: Corners, size: tuple[float, float], image: tuple[int, int], taken: Sequence[Corners]) -> Corners:
    """Where a label hides least: above its box, else below, else in it; inside the image, on no other label if any of
    these is free."""
    width, height = size
    x1, y1, _, y2 = box
    left = max(0.0, min(x1, image[0] - width - 1))
    tops = [top for top in (y1 - height, y2 + 1) if 0 <= top <= image[1] - height - 1]
    tops += [max(0.0, y1 + 2), max(0.0, min(y2, image[1] - 1) - height)]
    places = [(left, top, left + width, top + height) for top in tops]
    free = [one for one in places if not any(_meet(one, other) for other in taken)]
    return (free or places)[0]


def _meet(a: Corners, b: Corners) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _captioned(image: Image.Image, caption: str) -> Image.Image:
    """The image below a white strip with a text."""
    from PIL import Image, ImageDraw

    found = Image.new("RGB", (image.width, image.height + CAPTION), "white")
    found.paste(image, (0, CAPTION))
    ImageDraw.Draw(found).text((2, 1), caption, fill="black")
    return found
