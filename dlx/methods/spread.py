"""Figures of several runs as mean and standard deviation, and their picture."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dlx.training.session import val_and_test

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlx.runs.folder import RunFolder


def spread(runs: Mapping[str, RunFolder]) -> tuple[dict[str, float], dict[str, Any]]:
    """Mean of each figure that all runs have, with `NAME_std` (of the sample, n - 1) from two runs up; and `members`:
    the figures of each run."""
    members = {name: val_and_test(run.summary()) for name, run in runs.items()}
    first, *rest = members.values()
    metrics: dict[str, float] = {}
    for name in first:
        if all(name in figures for figures in rest):
            values = [figures[name] for figures in members.values()]
            metrics[name] = statistics.fmean(values)
            if len(values) > 1:
                metrics[f"{name}_std"] = statistics.stdev(values)
    return metrics, {"members": members}


def strip(details: Mapping[str, Any]) -> Figure:
    """Every run's figure as a point, one panel for accuracy (or what there is) and one for the loss, with the mean."""
    from matplotlib.figure import Figure

    members: dict[str, dict[str, float]] = details["members"]
    known: set[str] = set.intersection(*(set(figures) for figures in members.values()))
    there = sorted(name.removeprefix("val/") for name in known if name.startswith("val/"))
    names = [name for name in ("accuracy", "loss") if name in there] or there[:2] or ["loss"]
    figure = Figure(figsize=(4 * len(names), 4), layout="constrained")
    for name, axes in zip(names, figure.subplots(1, len(names), squeeze=False).flat, strict=True):
        for place, split in enumerate(("val", "test")):
            values = [figures[f"{split}/{name}"] for figures in members.values() if f"{split}/{name}" in figures]
            axes.plot([place] * len(values), values, "o", alpha=0.5, color="tab:blue")
            if values:
                axes.hlines(statistics.fmean(values), place - 0.2, place + 0.2, color="tab:orange", label="mean")
        axes.set(title=name, xticks=[0, 1], xticklabels=["val", "test"], xlim=(-0.5, 1.5))
    return figure
