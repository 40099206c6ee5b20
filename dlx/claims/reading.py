"""What experiments read of their runs: curves, summaries, means over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from dlx.config import Config, compose
from dlx.runs.folder import RunFolder
from dlx.runs.metrics import read_metrics


def variants(base: Config, choices: Mapping[str, Sequence[str]], seeds: int) -> dict[str, Config]:
    """`NAME-SEED` for each name and seed: the base with that name's overrides. Each choice is composed once."""
    chosen = {name: compose(words, base=base) for name, words in choices.items()}
    return {
        f"{name}-{seed}": compose([f"seed={seed}"], base=config)
        for name, config in chosen.items()
        for seed in range(seeds)
    }


def curve(run: RunFolder, name: str, x: str = "epoch") -> tuple[list[float], list[float]]:
    """A figure over epochs (or steps), for the rows that have it."""
    rows = [row for row in read_metrics(run.metrics_path) if isinstance(row.get(name), int | float)]
    return [row[x] for row in rows], [row[name] for row in rows]


def of_seeds(runs: Mapping[str, RunFolder], name: str) -> list[RunFolder]:
    """The runs `NAME-0`, `NAME-1`, ..."""
    return [run for key, run in runs.items() if key.rpartition("-")[0] == name]


def mean_curve(runs: Sequence[RunFolder], name: str, x: str = "epoch") -> dict[str, list[float]]:
    """The mean over runs of one length; where one ended early (it diverged), up to there."""
    curves = [curve(run, name, x) for run in runs]
    length = min(len(values) for _, values in curves)
    values = [statistics.fmean(values[i] for _, values in curves) for i in range(length)]
    return {"x": curves[0][0][:length], "y": values}


def finals(runs: Sequence[RunFolder], name: str) -> list[float]:
    """A figure of each run's summary; runs without one (they diverged or failed) are left out."""
    found: list[Any] = [run.summary().get(name) for run in runs]
    return [value for value in found if isinstance(value, int | float)]


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error (0 for a single value)."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return statistics.fmean(values), error


def written(pair: tuple[float, float], digits: int = 4) -> str:
    """`0.9500 ± 0.0100`."""
    return f"{pair[0]:.{digits}f} ± {pair[1]:.{digits}f}"
