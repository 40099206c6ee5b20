"""The picture of a search: what each trial reached, the best so far, and what the result depends on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dlx.config.monitor import Monitor

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna.trial import FrozenTrial


def history(trials: Sequence[FrozenTrial], metric: str, importance: Mapping[str, float], sweep: str) -> Figure:
    """metric: such as val/accuracy:max. sweep: whose trials these are; those of others are drawn paler."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    name, goal = Monitor.parse(metric)
    figure = Figure(figsize=(9 if importance else 6, 4), layout="constrained")
    axes = figure.subplots(1, 2 if importance else 1, squeeze=False, width_ratios=[2, 1] if importance else [1])[0]
    shown = [trial for trial in trials if trial.value is not None and math.isfinite(trial.value)]
    styles = {"COMPLETE": ("o", "tab:blue", "finished"), "PRUNED": ("x", "tab:red", "pruned")}
    for state, (marker, color, label) in styles.items():
        for is_own in (True, False):
            found = [
                trial
                for trial in shown
                if trial.state.name == state and (trial.user_attrs.get("sweep") == sweep) == is_own
            ]
            if found:
                axes[0].plot(
                    [trial.number for trial in found],
                    [trial.value for trial in found],
                    marker,
                    color=color,
                    alpha=1.0 if is_own else 0.35,
                    label=label if is_own else f"{label}, of other sweeps",
                )
    numbers: list[int] = []
    best: list[float] = []
    better = max if goal == "max" else min
    for trial in shown:
        if trial.state.name == "COMPLETE":
            assert trial.value is not None
            numbers.append(trial.number)
            best.append(better([trial.value, *best[-1:]]))
    if best:
        reach = [*numbers, max(numbers[-1], trials[-1].number)]
        axes[0].step(reach, [*best, best[-1]], where="post", color="tab:orange", label="best so far")
        axes[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)  # off the data
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set(xlabel="trial", ylabel=name)
    if importance:
        keys = list(importance)[::-1]
        axes[1].barh(keys, [importance[key] for key in keys], color="tab:blue")
        axes[1].set(xlabel="importance (fANOVA)", xlim=(0, 1))
    return figure
