"""What the learning rate does: too small is slow, too large does not converge."""

from __future__ import annotations

import math
from typing import Any

from dlx.claims.claim import Claim, Figure, Measured, Runs, Variants, Verdict
from dlx.claims.common import curve, draw_guessing, guessing, legend_beside, ordered_colors
from dlx.config import Config
from dlx.config.checks import rising


class LearningRate(Claim):
    """rates: learning rates, rising."""

    claim = "A learning rate that is too small learns slowly, one that is too large diverges or stays bad"

    def __init__(self, *, rates: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)) -> None:
        rising(3, rates=rates)
        self.rates = rates

    def variants(self, base: Config) -> Variants:
        return {f"lr-{rate:g}".replace("+", ""): [f"optim.lr={rate}"] for rate in self.rates}

    def measure(self, base: Config, runs: Runs) -> Measured:
        found, guess = {}, guessing(base)
        for rate, (run,) in zip(self.rates, runs.values(), strict=True):
            epochs, losses = curve(run, "probe/loss")
            found[f"{rate:g}"] = {
                "epochs": epochs,
                "losses": losses,
                "status": run.status()["status"],
                "guessing": guess,
            }
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
        curves, ends = figure.subplots(1, 2)
        colors = ordered_colors(len(measured))
        for (rate, found), color in zip(measured.items(), colors, strict=True):
            ending = "" if found["status"] == "finished" else f" ({found['status']})"
            curves.plot(found["epochs"], found["losses"], color=color, label=f"lr {rate}{ending}")
        last = {float(rate): final(found) for rate, found in measured.items()}
        ends.plot(list(last), list(last.values()), "-", color="0.6", zorder=1)
        ends.scatter(list(last), list(last.values()), color=colors, zorder=2)
        for axes in (curves, ends):
            draw_guessing(axes, found["guessing"])
        curves.set(yscale="log", xlabel="epoch", ylabel="loss on training samples", title="each learning rate's course")
        ends.set(
            xscale="log", yscale="log", xlabel="learning rate", ylabel="loss on training samples",
            title="after the last epoch",
        )  # fmt: skip
        legend_beside(curves)

    def verdict(self, measured: Measured) -> Verdict:
        last = {rate: final(found) for rate, found in measured.items()}
        best = min(last, key=lambda rate: last[rate])
        first, *_, largest = last
        held = best not in (first, largest) and last[first] > 5 * last[best] and last[largest] > 5 * last[best]
        return Verdict(
            held,
            f"loss at the end: {last[first]:.3g} at lr {first}, best {last[best]:.3g} at lr {best}, "
            f"{last[largest]:.3g} at lr {largest} ({measured[largest]['status']})",
        )


def final(found: dict[str, Any]) -> float:
    """The last loss; infinite for a training that diverged."""
    return found["losses"][-1] if found["losses"] and found["status"] == "finished" else math.inf
