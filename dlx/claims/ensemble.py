"""One network, several from other seeds, bagging and boosting, against the number of members, on few digits.

Averaging takes from the variance what the members do not share (Breiman 1996). Boosting (Freund, Schapire 1997) is for
members that are weak and stable; small networks are neither, and what it does for them is measured, not claimed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from dlx.claims.chain import run_method
from dlx.claims.claim import Experiment, Verdict
from dlx.claims.drawing import guessing, legend_beside
from dlx.claims.reading import mean_and_error, written
from dlx.config import Config, compose
from dlx.methods.bagging import growing
from dlx.methods.outputs import answers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlx.methods.outputs import Samples
    from dlx.runs.folder import RunFolder

KINDS = {"seeds": "other seeds, averaged", "bagging": "bagging", "boosting": "boosting (SAMME)"}


class EnsembleSize(Experiment):
    """members: of the largest ensemble. sets: training and test sets, over which errors are averaged and compared."""

    claim = "Bagged networks err less than one network, and less the more there are"

    def __init__(self, *, members: int = 10, sets: int = 4) -> None:
        if members < 3:
            raise ValueError(f"members must be at least 3, got {members}")
        if sets < 2:
            raise ValueError(f"sets must be at least 2, got {sets}")
        self.count, self.sets = members, sets

    def members(self, base: Config) -> dict[str, Config]:
        found = {}
        for number, one in enumerate(self._bases(base)):
            for n in range(self.count):
                seed = one["seed"] + n
                found[f"set-{number}-seeds-{n}"] = compose([f"seed={seed}"], base=one)
                found[f"set-{number}-bagging-{n}"] = compose([f"seed={seed}", f"data.bootstrap={n}"], base=one)
        return found

    def _bases(self, base: Config) -> list[Config]:
        """A training set each, and seeds that no other has."""
        words = [[f"data.split_seed={number}", f"seed={number * self.count}"] for number in range(self.sets)]
        return [compose(own, base=base) for own in words]

    def measure(self, base: Config, runs: Mapping[str, RunFolder]) -> dict[str, Any]:
        """Test errors of 1, 2, ... members by kind and training set. Boosting is run here: its members are a chain."""
        home = next(iter(runs.values())).path.parent
        found: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
        ended = []
        for number, one in enumerate(self._bases(base)):
            for kind in ("seeds", "bagging"):
                of_kind = [runs[f"set-{number}-{kind}-{n}"] for n in range(self.count)]
                found[kind].append(growth([answers(run, "test", trust=base.trust) for run in of_kind]))
            boosting = compose(["method=boosting", f"method.members={self.count}"], base=one)
            details = run_method(boosting, home, f"set-{number}-boosting").details
            staged = details["staged"]["test"]
            # A chain that ended stays what it was.
            found["boosting"].append(staged + staged[-1:] * (self.count - len(staged)))
            ended.append(details.get("ended"))
        return {**found, "ended": ended, "guessing": guessing(base)}

    def figure(self, measured: Mapping[str, Any]) -> Figure:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        guess = measured["guessing"]
        chance = f" (guessing: {1 - 1 / guess['classes']:.4g})" if guess else ""
        figure = Figure(figsize=(8.5, 4.6), layout="constrained")
        axes = figure.subplots()
        count = range(1, self.count + 1)
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
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend_beside(axes)
        return figure

    def verdict(self, measured: Mapping[str, Any]) -> Verdict:
        alone = [errors[0] for errors in measured["seeds"]]
        less = {
            kind: mean_and_error([errors[-1] - one for errors, one in zip(measured[kind], alone, strict=True)])
            for kind in KINDS
        }
        means = [mean_and_error(values)[0] for values in zip(*measured["bagging"], strict=True)]
        some = [means[0], means[(self.count - 1) // 2], means[-1]]
        falls = all(after < before for before, after in pairwise(some))
        change, error = less["bagging"]
        last = {kind: mean_and_error([errors[-1] for errors in measured[kind]])[0] for kind in KINDS}
        said = ", ".join(f"{label} {last[kind]:.4f} (change {written(less[kind])})" for kind, label in KINDS.items())
        sizes = (1, (self.count + 1) // 2, self.count)
        grown = ", ".join(f"{value:.4f} with {size}" for value, size in zip(some, sizes, strict=True))
        beats = less["boosting"][0] < -2 * less["boosting"][1]
        return Verdict(
            falls and change < -2 * error,
            f"test error of one network {mean_and_error(alone)[0]:.4f}; of {self.count} together {said}; bagging "
            f"{grown} members; boosting "
            f"{'beats' if beats else 'does not beat'} one network by more than two standard errors",
        )


def growth(members: Sequence[Samples]) -> list[float]:
    """The error of 1, 2, ... members averaged, a mean over which of them comes first."""
    one, output_MNK = members[0], torch.stack([member.output for member in members])
    turned = [output_MNK.roll(shift, 0) for shift in range(len(members))]
    errors = [growing(one, output, "average") for output in turned]
    return [mean_and_error(values)[0] for values in zip(*errors, strict=True)]
