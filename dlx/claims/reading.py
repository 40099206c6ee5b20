"""What claims read of their runs: curves, summaries, means over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from dlx.runs.folder import RunFolder
from dlx.runs.metrics import read_metrics


def curve(run: RunFolder, name: str) -> tuple[list[float], list[float]]:
    """A metric over epochs, at the rows that have it: epochs and values."""
    rows = [row for row in read_metrics(run.metrics_path) if isinstance(row.get(name), int | float)]
    return [row["epoch"] for row in rows], [row[name] for row in rows]


def mean_curve(runs: Sequence[RunFolder], name: str) -> dict[str, list[float]]:
    """The mean over runs; where one ended early (it diverged), up to there."""
    curves = [curve(run, name) for run in runs]
    length = min(len(values) for _, values in curves)
    values = [statistics.fmean(values[i] for _, values in curves) for i in range(length)]
    return {"x": curves[0][0][:length], "y": values}


def finals(runs: Sequence[RunFolder], name: str) -> list[float]:
    """A metric of each run's summary; runs without it (they diverged) are left out."""
    found: list[Any] = [run.summary().get(name) for run in runs]
    return [value for value in found if isinstance(value, int | float)]


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error (0 for a single value)."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return statistics.fmean(values), error


def plus_minus(pair: tuple[float, float], digits: int = 4) -> str:
    """`0.9500 ± 0.0100`."""
    return f"{pair[0]:.{digits}f} ± {pair[1]:.{digits}f}"
