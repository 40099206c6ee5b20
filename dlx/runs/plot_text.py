"""Curves as characters: braille dots, two to the right and four down in each character."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # by row and column inside a character
LETTERS = "abcdefghijklmnopqrstuvwxyz"

Cells = list[list[tuple[str, int | None]]]


def plot_text(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], *, width: int = 72, height: int = 12, unit: str = "step"
) -> Cells:
    """Lines of characters, each with the number of the curve that it belongs to (None: the frame).

    curves: x and y by label, at most 26; each ends in its letter, which the legend below explains. Points that are not
    finite are left out. No curve with a finite point gives no lines.
    """
    shown = {}
    for label, (x, y) in list(curves.items())[: len(LETTERS)]:
        there = np.isfinite(x) & np.isfinite(y)
        if there.any():
            shown[label] = (x[there].astype(float), y[there].astype(float))
    if not shown:
        return []
    low, high = _range([y for _, y in shown.values()])
    left, right = _range([x for x, _ in shown.values()])
    scale = [_number(high), _number((low + high) / 2), _number(low)]
    margin = max(map(len, scale))
    columns = max(16, width - margin - 2)
    bits = np.zeros((height, columns), int)
    owner: dict[tuple[int, int], int] = {}
    ends: dict[tuple[int, int], int] = {}
    for number, (x, y) in enumerate(shown.values()):
        across = (x - left) / (right - left) * (columns * 2 - 1)
        down = (high - y) / (high - low) * (height * 4 - 1)
        for column, row in _joined(across, down):
            cell = (row // 4, column // 2)
            bits[cell] |= DOTS[row % 4][column % 2]
            owner[cell] = number
        end, column = round(down[-1]) // 4, round(across[-1]) // 2
        while (end, column) in ends and column > 0:
            column -= 1
        ends[end, column] = number
    lines: Cells = []
    for row in range(height):
        named = {0: scale[0], height // 2: scale[1], height - 1: scale[2]}.get(row, "")
        line: list[tuple[str, int | None]] = [(f"{named:>{margin}} ┤" if named else f"{'':>{margin}} │", None)]
        for column in range(columns):
            cell = (row, column)
            if cell in ends:
                line.append((LETTERS[ends[cell]], ends[cell]))
            else:
                line.append((chr(0x2800 + int(bits[cell])) if bits[cell] else " ", owner.get(cell)))
        lines.append(line)
    lines.append([(f"{'':>{margin}} └{'─' * columns}", None)])
    first, last = _number(left), f"{_number(right)} {unit}s" if unit in ("step", "epoch") else f"{_number(right)} s"
    lines.append([(f"{'':>{margin}}  {first}{last:>{max(1, columns - len(first))}}", None)])
    for number, label in enumerate(shown):
        lines.append([(f"{'':>{margin}}  {LETTERS[number]} ", number), (label, number)])
    return lines


def _joined(across: np.ndarray, down: np.ndarray) -> list[tuple[int, int]]:
    """The dots on the lines between points."""
    dots = [(round(across[0]), round(down[0]))]
    for x0, y0, x1, y1 in zip(across[:-1], down[:-1], across[1:], down[1:], strict=True):
        count = max(1, math.ceil(max(abs(x1 - x0), abs(y1 - y0))))
        dots += [(round(x0 + (x1 - x0) * i / count), round(y0 + (y1 - y0) * i / count)) for i in range(1, count + 1)]
    return dots


def _range(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """The smallest and the largest value, kept apart."""
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    return (low, high) if high > low else (low - (abs(low) * 0.01 or 1), high + (abs(high) * 0.01 or 1))


def _number(value: float) -> str:
    return f"{value:.4g}"
