"""Teacher forcing (Williams and Zipser 1989): in training each step is given the true token before it; what does that
do to a decoder that later reads what it wrote itself (Bengio et al. 2015, arXiv:1506.03099)?
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlx.claims.claim import Claim, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals, legend_beside, mean_and_error, mean_curve, ordered_colors, plus_minus
from dlx.config import Config
from dlx.config.checks import at_least

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TeacherForcing(Claim):
    """shares: probabilities, rising, with which a step is given the true token. seeds: trainings with each."""

    claim = "Given the true token before each step, a decoder learns in fewer steps than from what it wrote itself"

    def __init__(self, *, shares: tuple[float, ...] = (0.0, 0.5, 1.0), seeds: int = 3) -> None:
        if len(shares) < 2 or list(shares) != sorted(set(shares)) or not 0 <= shares[0] < shares[-1] <= 1:
            raise ValueError(f"shares must be at least 2, rising from 0 to 1, got {list(shares)}")
        at_least(1, seeds=seeds)
        self.shares, self.seeds = shares, seeds

    def variants(self, base: Config) -> Variants:
        return {f"share-{share:g}": [f"model.teacher_forcing={share}"] for share in self.shares}

    def measure(self, base: Config, runs: Runs) -> Measured:
        return {
            f"{share:g}": {
                **{name: mean_curve(runs[f"share-{share:g}"], f"val/{name}") for name in ("accuracy", "exact_match")},
                "test": finals(runs[f"share-{share:g}"], "test/exact_match"),
            }
            for share in self.shares
        }

    def draw(self, measured: Measured, figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        titles = {
            "accuracy": "next tokens that are right, true ones before them",
            "exact_match": "texts without a fault",
        }
        for axes, (name, title) in zip(panels, titles.items(), strict=True):
            for (share, found), color in zip(measured.items(), ordered_colors(len(measured)), strict=True):
                axes.plot(found[name]["x"], found[name]["y"], "o-", color=color, label=f"{float(share):.0%} true")
            axes.set(xlabel="epoch", title=title, ylim=(-0.02, 1.02))
        panels[0].set_ylabel("share of the validation data")
        legend_beside(panels[1])

    def verdict(self, measured: Measured) -> Verdict:
        """Held if the areas under the curves of exact match differ, and the last ones do not turn it around."""
        area = {
            share: sum(found["exact_match"]["y"]) / len(found["exact_match"]["y"]) for share, found in measured.items()
        }
        test = {share: mean_and_error(found["test"]) for share, found in measured.items()}
        least, most = f"{self.shares[0]:g}", f"{self.shares[-1]:g}"
        error = (test[least][1] ** 2 + test[most][1] ** 2) ** 0.5
        each = "; ".join(
            f"{float(share):.0%} true {area[share]:.3f} and {plus_minus(test[share], 3)}" for share in measured
        )
        return Verdict(
            area[most] > area[least] and test[most][0] >= test[least][0] - 2 * error,
            f"exact match, mean over the validations and of the test texts at the end: {each}",
        )
