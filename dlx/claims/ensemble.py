"""One network, several from other seeds, bagging and boosting, against the number of members, on few digits.

Averaging takes from the variance what the members do not share (Breiman 1996). Boosting (Freund, Schapire 1997) is for
members that are weak and stable; small networks are neither, and what it does for them is measured, not claimed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dlx.claims.claim import Claim, Figure, Measured, Runs, Variants, Verdict
from dlx.claims.common import falls, guessing, legend_beside, mean_and_error, plus_minus
from dlx.config import Config, compose
from dlx.config.checks import at_least
from dlx.methods.bagging import growing_errors
from dlx.methods.predictions import Predictions, predict_split_by_runs
from dlx.runs.folder import RunFolder
from dlx.sweeps.executors.execution import Execution
from dlx.sweeps.plan import Interrupted
from dlx.sweeps.points import Point
from dlx.sweeps.sweep import Row, resume_sweep, start_sweep

KINDS = {"seeds": "other seeds, averaged", "bagging": "bagging", "boosting": "boosting (SAMME)"}


class EnsembleSize(Claim):
    """members: size of the largest ensemble. sets: training sets, over which errors are averaged."""

    claim = "Bagged networks err less than one network, and less the more there are"
    size = (8.5, 4.6)

    def __init__(self, *, members: int = 10, sets: int = 4) -> None:
        at_least(3, members=members)
        at_least(2, sets=sets)
        self.seeds, self.sets = members, sets

    def variants(self, base: Config) -> Variants:
        return {
            f"set-{number}-{kind}": [f"data.split_seed={number}"]
            for number in range(self.sets)
            for kind in ("seeds", "bagging")
        }

    def repeat(self, name: str, seed: int) -> list[str]:
        """Seeds that no other training set has."""
        _, number, kind = name.split("-")
        own = [f"seed={int(number) * self.seeds + seed}"]
        return [*own, f"data.bootstrap={seed}"] if kind == "bagging" else own

    def measure(self, base: Config, runs: Runs) -> Measured:
        """Test errors of 1, 2, ... members by kind and training set. Boosting is run here: its members are a chain."""
        folder = next(iter(runs.values()))[0].path.parent
        found: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
        ended = []
        for number in range(self.sets):
            for kind in ("seeds", "bagging"):
                found[kind].append(
                    growth(predict_split_by_runs(runs[f"set-{number}-{kind}"], "test", trust=base.trust))
                )
            words = ["method=boosting", f"method.members={self.seeds}", f"data.split_seed={number}"]
            boosting = compose([*words, f"seed={number * self.seeds}"], base=base)
            details = run_method(boosting, folder, f"set-{number}-boosting").details
            staged = details["staged"]["test"]
            # A chain that ended early keeps its last error.
            found["boosting"].append(staged + staged[-1:] * (self.seeds - len(staged)))
            ended.append(details.get("ended"))
        return {**found, "ended": ended, "guessing": guessing(base)}

    def draw(self, measured: Measured, figure: Figure) -> None:
        guess = measured["guessing"]
        chance = f" (guessing: {1 - 1 / guess['classes']:.4g})" if guess else ""
        axes = figure.subplots()
        count = range(1, self.seeds + 1)
        for kind, label in KINDS.items():
            pairs = [mean_and_error(values) for values in zip(*measured[kind], strict=True)]
            means = [mean for mean, _ in pairs]
            axes.plot(count, means, "o-", label=label)
            low, high = ([mean + sign * error for mean, error in pairs] for sign in (-1, 1))
            axes.fill_between(count, low, high, alpha=0.15)
        alone = mean_and_error([errors[0] for errors in measured["seeds"]])[0]
        axes.axhline(alone, color="black", linestyle="--", linewidth=1, label="one network")
        axes.set(
            xlabel="members",
            ylabel=f"test error, mean of {self.sets} training sets ± its standard error",
            ylim=(0, None),
            title=f"test error with more members{chance}",
        )
        axes.locator_params(axis="x", integer=True)
        legend_beside(axes)

    def verdict(self, measured: Measured) -> Verdict:
        alone = [errors[0] for errors in measured["seeds"]]
        less = {
            kind: mean_and_error([errors[-1] - one for errors, one in zip(measured[kind], alone, strict=True)])
            for kind in KINDS
        }
        means = [mean_and_error(values)[0] for values in zip(*measured["bagging"], strict=True)]
        some = [means[0], means[(self.seeds - 1) // 2], means[-1]]
        change, error = less["bagging"]
        last = {kind: mean_and_error([errors[-1] for errors in measured[kind]])[0] for kind in KINDS}
        each = ", ".join(f"{label} {last[kind]:.4f} (change {plus_minus(less[kind])})" for kind, label in KINDS.items())
        sizes = (1, (self.seeds + 1) // 2, self.seeds)
        grown = ", ".join(f"{value:.4f} with {size}" for value, size in zip(some, sizes, strict=True))
        beats = less["boosting"][0] < -2 * less["boosting"][1]
        return Verdict(
            falls(some) and change < -2 * error,
            f"test error of one network {mean_and_error(alone)[0]:.4f}; of {self.seeds} together {each}; bagging "
            f"{grown} members; boosting "
            f"{'beats' if beats else 'does not beat'} one network by more than two standard errors",
        )


def growth(samples: Predictions) -> list[float]:
    """The error of 1, 2, ... members averaged, as the mean over which member comes first. samples: of all members."""
    turned = [samples.output.roll(shift, 0) for shift in range(len(samples.output))]
    errors = [growing_errors(samples, output, "average") for output in turned]
    return [mean_and_error(values)[0] for values in zip(*errors, strict=True)]


def run_method(config: Config, runs: Path, name: str) -> Row:
    """Runs the configuration's method in `runs/NAME/`, or resumes it there. Raises Interrupted on a signal.

    runs: the folder of the claim's runs.
    """
    execution = Execution(trust=config.trust, quiet=True)  # the claim shows its progress
    begun = [path.parent for path in sorted((runs / name).glob("*/plan.yaml"))]
    if begun:
        swept = resume_sweep(RunFolder(begun[-1]), execution)
    else:
        here = replace(config, values={**config.values, "output_root": str(runs), "name": name})
        swept = start_sweep([Point("", here, {})], execution)
    if swept.status == "interrupted":
        raise Interrupted(swept.code)
    return swept.rows[0]
