"""What the learning rate does: too small is slow, too large does not converge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dlx.config import Config, compose
from dlx.experiments.experiment import Experiment, Verdict
from dlx.experiments.reading import curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlx.runs.folder import RunFolder


class LearningRate(Experiment):
    """rates: the learning rates, in rising order."""

    claim = "A learning rate that is too small learns slowly, one that is too large diverges or stays bad"

    def __init__(self, *, rates: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)) -> None:
        if len(rates) < 3 or list(rates) != sorted(set(rates)):
            raise ValueError(f"rates must be at least 3, rising, got {list(rates)}")
        self.rates = rates

    def members(self, base: Config) -> dict[str, Config]:
        return {f"lr-{rate:g}".replace("+", ""): compose([f"optim.lr={rate}"], base=base) for rate in self.rates}

    def measure(self, base: Config, runs: Mapping[str, RunFolder]) -> dict[str, Any]:
        found = {}
        for rate, run in zip(self.rates, runs.values(), strict=True):
            epochs, losses = curve(run, "probe/loss")
            found[f"{rate:g}"] = {"epochs": epochs, "losses": losses, "status": run.status()["status"]}
        return found

    def figure(self, measured: Mapping[str, Any]) -> Figure:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(11, 4.2), layout="constrained")
        curves, ends = figure.subplots(1, 2)
        for rate, found in measured.items():
            ending = "" if found["status"] == "finished" else f" ({found['status']})"
            curves.plot(found["epochs"], found["losses"], label=f"lr {rate}{ending}")
        curves.set(yscale="log", xlabel="epoch", ylabel="loss on training samples")
        curves.legend(fontsize=8)
        last = {float(rate): final(found) for rate, found in measured.items()}
        ends.plot(list(last), list(last.values()), "o-")
        ends.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="loss at the end")
        return figure

    def verdict(self, measured: Mapping[str, Any]) -> Verdict:
        last = {rate: final(found) for rate, found in measured.items()}
        best = min(last, key=lambda rate: last[rate])
        first, *_, largest = last
        held = best not in (first, largest) and last[first] > 5 * last[best] and last[largest] > 5 * last[best]
        return Verdict(
            held,
            f"loss at the end: {last[first]:.3g} with lr {first}, {last[best]:.3g} with the best, {best}, "
            f"{last[largest]:.3g} with {largest} ({measured[largest]['status']})",
        )


def final(found: Mapping[str, Any]) -> float:
    """The last loss; infinite for a training that diverged."""
    return found["losses"][-1] if found["losses"] and found["status"] == "finished" else math.inf
