"""The figure of a search: each trial's value, the best so far, and the importance of the keys."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

from optuna.trial import FrozenTrial

from dlx.config.monitor import Monitor
from dlx.runs.draw import Figure, subplots


def plot_search(trials: Sequence[FrozenTrial], metric: str, importance: Mapping[str, float], sweep: str) -> Figure:
    """metric: such as val/accuracy:max. sweep: the sweep whose trials are drawn solid; those of others are paler."""
    name, goal = Monitor.parse(metric)
    widths = [2, 1] if importance else [1]
    figure, ((*axes,),) = subplots(1, len(widths), size=(9 if importance else 6, 4), squeeze=False, width_ratios=widths)
    shown = [(trial, trial.value) for trial in trials if trial.value is not None and math.isfinite(trial.value)]
    styles = {"COMPLETE": ("o", "tab:blue", "finished"), "PRUNED": ("x", "tab:red", "pruned")}
    for state, (marker, color, label) in styles.items():
        for is_own in (True, False):
            found = [
                (trial.number, value)
                for trial, value in shown
                if trial.state.name == state and (trial.user_attrs.get("sweep") == sweep) == is_own
            ]
            if found:
                alpha, label = (1.0, label) if is_own else (0.35, f"{label}, of other sweeps")
                axes[0].plot(*zip(*found, strict=True), marker, color=color, alpha=alpha, label=label)
    complete = [(trial.number, value) for trial, value in shown if trial.state.name == "COMPLETE"]
    if complete:
        best = list(accumulate((value for _, value in complete), max if goal == "max" else min))
        numbers = [number for number, _ in complete]
        numbers.append(max(numbers[-1], trials[-1].number))
        axes[0].step(numbers, [*best, best[-1]], where="post", color="tab:orange", label="best so far")
        axes[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)  # below the axes
    axes[0].locator_params(axis="x", integer=True)
    axes[0].set(xlabel="trial", ylabel=name)
    if importance:
        keys = list(importance)[::-1]
        axes[1].barh(keys, [importance[key] for key in keys], color="tab:blue")
        axes[1].set(xlabel="importance (fANOVA)", xlim=(0, 1))
    return figure
