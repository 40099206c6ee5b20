"""Faults of annotations: gathered while files are read, then reported all at once, or left out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

from dlx.config.errors import UserError
from dlx.data.archive import LISTED, as_text

SLACK = 1.0  # pixels that a box may stick out of its image: sizes and shares are often rounded


class Faults:
    """Of all files below a path. on_error: raise reports them; skip leaves out the object or the image."""

    def __init__(self, path: Path, on_error: Literal["raise", "skip"]) -> None:
        self.path, self.on_error = path, on_error
        self.lines: list[str] = []
        self.left_out: Counter[str] = Counter()

    def add(self, file: str, field: str, reason: str, *, of: Literal["object", "image"]) -> None:
        """of: what is left out for it."""
        self.lines.append(as_text(f"{file}: {field}: {reason}"))
        self.left_out[of] += 1

    def check(self) -> None:
        """Raises UserError with the first ones and how many more there are, where they are not to be skipped."""
        if self.lines and self.on_error == "raise":
            more = f" and {len(self.lines) - LISTED} more" if len(self.lines) > LISTED else ""
            remedy = "; dataset.on_error=skip leaves them out"
            raise UserError(f"dataset.path: {self.path}: {'; '.join(self.lines[:LISTED])}{more}{remedy}")

    def notes(self) -> list[str]:
        if not self.lines:
            return []
        counts = " and ".join(counted(count, of) for of, count in sorted(self.left_out.items()))
        are = "are" if self.left_out.total() > 1 else "is"
        return [f"{counts} with faulty annotations {are} left out, such as {self.lines[0]}"]


def counted(count: int, noun: str) -> str:
    """1 image, 2 images."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels."""


def inside(box: Box, size: tuple[int, int]) -> Box:
    """The box, cut where it sticks out by less than a pixel. Raises ValueError for one that is no box of an image of
    this height and width."""
    x1, y1, x2, y2 = box
    height, width = size
    shown = "(" + " ".join(f"{value:.6g}" for value in box) + ")"
    if not all(abs(value) < 1e9 for value in box):  # NaN too
        raise ValueError(f"{shown} is not finite")
    if x2 < x1 or y2 < y1:
        raise ValueError(f"{shown} is inverted")
    if x2 == x1 or y2 == y1:
        raise ValueError(f"{shown} is empty")
    if min(x1, y1) < -SLACK or x2 > width + SLACK or y2 > height + SLACK:
        raise ValueError(f"{shown} is outside the image of {width} x {height}")
    cut = (max(0.0, x1), max(0.0, y1), min(float(width), x2), min(float(height), y2))
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        raise ValueError(f"{shown} is outside the image of {width} x {height}")
    return cut
