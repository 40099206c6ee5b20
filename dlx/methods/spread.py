"""Mean and standard deviation of the metrics of several runs, and their figure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from dlx.runs.draw import Figure, subplots
from dlx.runs.folder import RunFolder
from dlx.training.session import val_and_test


def spread(runs: Mapping[str, RunFolder]) -> tuple[dict[str, float], dict[str, Any]]:
    """The mean of each metric that all runs have, with `NAME_std` (of the sample, n - 1) for two runs or more; and
    `members`: the metrics of each run."""
    members = {name: val_and_test(run.summary()) for name, run in runs.items()}
    first, *rest = members.values()
    metrics: dict[str, float] = {}
    for name in first:
        if all(name in other for other in rest):
            values = [member[name] for member in members.values()]
            metrics[name] = statistics.fmean(values)
            if len(values) > 1:
                metrics[f"{name}_std"] = statistics.stdev(values)
    return metrics, {"members": members}


def plot_members(details: Mapping[str, Any]) -> Figure:
    """Each run's accuracy (or other metric) and loss as points, a panel for each, with the mean."""
    members: dict[str, dict[str, float]] = details["members"]
    known: set[str] = set.intersection(*map(set, members.values()))
    there = sorted(name.removeprefix("val/") for name in known if name.startswith("val/"))
    names = [name for name in ("accuracy", "loss") if name in there] or there[:2] or ["loss"]
    figure, panels = subplots(1, len(names), size=(4 * len(names), 4), squeeze=False)
    for name, axes in zip(names, panels.flat, strict=True):
        for at, split in enumerate(("val", "test")):
            values = [metrics[f"{split}/{name}"] for metrics in members.values() if f"{split}/{name}" in metrics]
            axes.plot([at] * len(values), values, "o", alpha=0.5, color="tab:blue")
            if values:
                axes.hlines(statistics.fmean(values), at - 0.2, at + 0.2, color="tab:orange", label="mean")
        axes.set(title=name, xticks=[0, 1], xticklabels=["val", "test"], xlim=(-0.5, 1.5))
    return figure
