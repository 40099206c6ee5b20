"""Curves of metrics prepared for drawing: fewer points, smoothing, a band over repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dlx.runs.columns import Curve


def decimate(curve: Curve, points: int) -> Curve:
    """At most `points` (5 at least) of its points: the ends, and the least, the greatest and the first non-finite of
    each of equal parts, so that a spike or a gap stays where it is."""
    return thinned(curve, points)[0]


def thinned(curve: Curve, points: int) -> tuple[Curve, np.ndarray]:
    """As `decimate`, with the indices of the points that stay."""
    n = len(curve.y)
    points = max(points, 5)
    if n <= points:
        return curve, np.arange(n)
    finite = np.isfinite(curve.y)
    gaps = not finite.all()
    parts = max(1, (points - 2) // (3 if gaps else 2))
    bounds = np.linspace(0, n, parts + 1).astype(np.int64)
    width = int(np.diff(bounds).max())
    # [parts, width]: the points of each part; a part that is one shorter repeats its last point.
    index = np.minimum(bounds[:-1, None] + np.arange(width), bounds[1:, None] - 1)
    y, real = curve.y[index], finite[index]
    first = bounds[:-1]
    kept = [
        np.array([0, n - 1]),
        first + np.where(real, y, np.inf).argmin(1),
        first + np.where(real, y, -np.inf).argmax(1),
    ]
    if gaps:
        kept.append((first + (~real).argmax(1))[(~real).any(1)])
    chosen = np.unique(np.concatenate(kept))
    return Curve(curve.x[chosen], curve.y[chosen]), chosen


def smooth(curve: Curve, weight: float) -> Curve:
    """Exponential moving average, debiased: each earlier value counts `weight` (0 to below 1) to the power of its
    distance, in median distances between points, so that a gap in x forgets. A non-finite value stays and is skipped.
    """
    if not 0 <= weight < 1:
        raise ValueError(f"weight: from 0 to below 1, not {weight}")
    if weight == 0 or len(curve.y) < 2:
        return curve
    gaps = np.maximum(np.diff(curve.x, prepend=curve.x[:1]), 0)
    typical = np.median(gaps[gaps > 0]) if (gaps > 0).any() else 1.0
    age = np.cumsum(gaps) * (-np.log(weight) / typical)  # -log of what the first point still counts
    finite = np.isfinite(curve.y)
    y, ones = np.where(finite, curve.y, 0.0), finite.astype(np.float64)
    result = np.empty(len(y))
    total = count = 0.0
    begin = 0
    # sum_j exp(age_j - age_i) y_j by cumulative sums, in blocks in which exp(age) stays finite.
    while begin < len(y):
        end = max(begin + 1, int(np.searchsorted(age, age[begin] + 300, side="right")))
        faded = np.exp(-(age[begin] - age[begin - 1])) if begin else 0.0
        grown = np.exp(age[begin:end] - age[begin])
        totals = (total * faded + np.cumsum(y[begin:end] * grown)) / grown
        counts = (count * faded + np.cumsum(ones[begin:end] * grown)) / grown
        with np.errstate(invalid="ignore", divide="ignore"):
            result[begin:end] = totals / counts
        total, count, begin = totals[-1], counts[-1], end
    return Curve(curve.x, np.where(finite, result, curve.y))


@dataclass(frozen=True)
class Band:
    """Mean and standard deviation (n - 1; 0 of one curve) over curves at each x; count: curves there. Where none has a
    finite value, mean and std are NaN."""

    x: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    count: np.ndarray


def band(curves: Sequence[Curve], points: int = 500) -> Band:
    """Over the union of x, thinned evenly to `points`; each curve linearly interpolated inside its own range, its
    values at one x averaged first. A non-finite value is a gap."""
    unique = [found for curve in curves if len((found := _unique(curve)).x)]
    if not unique:
        return Band(np.empty(0), np.empty(0), np.empty(0), np.empty(0, dtype=np.int64))
    x = np.unique(np.concatenate([curve.x for curve in unique]))
    if len(x) > points:
        x = x[np.linspace(0, len(x) - 1, max(points, 2)).round().astype(np.int64)]
    y = np.array([np.interp(x, curve.x, curve.y, left=np.nan, right=np.nan) for curve in unique])
    there = np.isfinite(y)
    count = there.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(there, y, 0.0).sum(0) / count
        squares = np.where(there, y - mean, 0.0) ** 2
        std = np.where(count > 1, np.sqrt(squares.sum(0) / (count - 1)), np.where(count == 1, 0.0, np.nan))
    return Band(x, mean, std, count)


def _unique(curve: Curve) -> Curve:
    x, which = np.unique(curve.x, return_inverse=True)
    finite = np.isfinite(curve.y)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = np.bincount(which[finite], weights=curve.y[finite], minlength=len(x))
        return Curve(x, total / np.bincount(which[finite], minlength=len(x)))
