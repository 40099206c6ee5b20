"""What DQN adds to Q-learning with a network (Mnih et al. 2015, Nature 518): trainings without each of the two.

Without replay each update learns from the latest transition alone. Without a target network the values that are fitted
to are the network's own, which move with each update.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from dlx.claims.claim import Claim, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals, legend_beside, mean_and_error, plus_minus
from dlx.config import Config
from dlx.config.checks import at_least
from dlx.runs.folder import RunFolder
from dlx.runs.metrics import read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_REPLAY, NO_TARGET = ["data.replay=1", "data.environments=1"], ["model.tau=1", "model.sync_every=1"]
NAMES = {
    "both": "both", "no-replay": "no replay", "no-target": "no target network", "neither": "neither",
}  # fmt: skip
LINES = ("-", "--", "-.", ":")


class ReplayAndTarget(Claim):
    """steps: updates of each training. seeds: trainings of each."""

    claim = "Q-learning with a network needs a replay memory and a target network"
    size = (12, 4.2)

    def __init__(self, *, steps: int = 10_000, seeds: int = 3) -> None:
        at_least(1, steps=steps, seeds=seeds)
        self.steps, self.seeds = steps, seeds

    def variants(self, base: Config) -> Variants:
        words = {"both": [], "no-replay": NO_REPLAY, "no-target": NO_TARGET, "neither": [*NO_REPLAY, *NO_TARGET]}
        return {name: [*own, f"trainer.max_steps={self.steps}"] for name, own in words.items()}

    def measure(self, base: Config, runs: Runs) -> Measured:
        """By variant and seed: the test's return of the best checkpoint, the mean return over all validations, and both
        curves. most: what no state can be worth more than, where rewards are at most 1."""
        discount = base["model"]["discount"]
        found: Measured = {"most": round(1 / (1 - discount), 6) if discount < 1 else None}
        for name, own in runs.items():
            curves = {metric: [by_step(run, f"val/{metric}") for run in own] for metric in ("return", "value")}
            found[name] = {
                "test": finals(own, "test/return"),
                "mean": [statistics.fmean(values) for _, values in curves["return"]],
                **{metric: [list(pair) for pair in pairs] for metric, pairs in curves.items()},
            }
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
        returned, expected = figure.subplots(1, 2)
        for axes, metric in ((returned, "return"), (expected, "value")):
            for number, (name, title) in enumerate(NAMES.items()):
                for seed, (x, y) in enumerate(measured[name][metric]):
                    label = title if seed == 0 else None
                    axes.plot(x, y, LINES[number], color=f"C{number}", alpha=0.75, linewidth=1.3, label=label)
            axes.set_xlabel("updates")
        returned.set(ylabel="return of greedy episodes", title="what it reaches")
        expected.set(ylabel="mean of max Q", title="what it expects at the start")
        if measured["most"] is not None:
            label = f"most: 1 / (1 - discount) = {measured['most']:.4g}"
            expected.axhline(measured["most"], color="0.5", linewidth=1, label=label)
        values: list[float] = [v for name in NAMES for _, y in measured[name]["value"] for v in y]
        if measured["most"] is not None and max(values) > 10 * measured["most"]:
            expected.set_yscale("symlog", linthresh=measured["most"])  # linear up to there
            expected.set_ylim(bottom=min(0.0, 1.1 * min(values)))
            powers = range(1 + int(math.log10(max(values) / measured["most"])))
            expected.set_yticks([0.0, *(measured["most"] * 10**power for power in powers)])
        legend_beside(expected)

    def verdict(self, measured: Measured) -> Verdict:
        """It holds where the mean return over the training is higher with both than without either of the two, by more
        than both standard errors."""
        means = {name: mean_and_error(measured[name]["mean"]) for name in NAMES}
        tests = {name: mean_and_error(measured[name]["test"]) for name in NAMES}
        value, error = means["both"]
        lower = [value - error > means[name][0] + means[name][1] for name in ("no-replay", "no-target")]
        each = "; ".join(
            f"{title}: {plus_minus(means[name], 0)} on average over the training, {plus_minus(tests[name], 0)} at best"
            for name, title in NAMES.items()
        )
        return Verdict(all(lower), each)


def by_step(run: RunFolder, name: str) -> tuple[list[int], list[float]]:
    """A metric over updates: steps and values."""
    rows = [row for row in read_metrics(run.metrics_path) if name in row]
    return [row["step"] for row in rows], [row[name] for row in rows]
