"""The two losses of a GAN's generator: minimax, E ln(1 - D), and non-saturating, -E ln D (Goodfellow et al. 2014).

Both are least for the same samples, but where the discriminator is sure that it sees a fake, as early in the training,
the first has no slope. By a sample's logit the slopes are D and 1 - D.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from dlx.claims.claim import Claim, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals, mean_and_error, mean_curve, plus_minus
from dlx.config import Config
from dlx.config.checks import at_least, between

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {"minimax": "minimax", "non_saturating": "non-saturating"}
NORM = "train/generator/grad_norm"
SMALLER = 0.5  # the minimax gradient, as a share of the other


class MinimaxOrNot(Claim):
    """early: the share of the training whose gradients are compared. seeds: trainings with each loss."""

    claim = "Early in a GAN's training the minimax loss gives the generator less gradient than the non-saturating one"
    size = (13, 4.0)

    def __init__(self, *, early: float = 0.1, seeds: int = 2) -> None:
        between("(0, 1]", early=early)
        at_least(1, seeds=seeds)
        self.early, self.seeds = early, seeds

    def variants(self, base: Config) -> Variants:
        return {loss: [f"model.loss={loss}"] for loss in NAMES}

    def measure(self, base: Config, runs: Runs) -> Measured:
        found = {}
        for loss in NAMES:
            curve = mean_curve(runs[loss], NORM)
            early = [y for x, y in zip(curve["x"], curve["y"], strict=True) if x <= self.early * curve["x"][-1]]
            found[loss] = {
                "gradient": curve,
                "early": statistics.fmean(early or curve["y"][:1]),
                **{name: finals(runs[loss], f"test/{name}") for name in ("modes", "quality", "spread")},
            }
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
        slope, norm, end = figure.subplots(1, 3)
        shares = [number / 100 for number in range(101)]
        slope.plot(shares, shares, label="minimax: D")
        slope.plot(shares, [1 - share for share in shares], label="non-saturating: 1 - D")
        slope.axvspan(0, 0.1, color="0.9", zorder=0)
        slope.text(0.05, 1.02, "early", ha="center", fontsize=8, color="0.4")
        slope.set(xlabel="D(G(z)), how real a sample looks", ylabel="slope of the loss by the logit", title="theory")
        for number, (loss, found) in enumerate(measured.items()):
            norm.plot(found["gradient"]["x"], found["gradient"]["y"], color=f"C{number}", label=NAMES[loss])
            for place, metric in enumerate(("modes", "quality")):
                values = found[metric]
                end.scatter([place + 0.16 * (number - 0.5)] * len(values), values, color=f"C{number}", s=40, alpha=0.8)
        last = max(found["gradient"]["x"][-1] for found in measured.values())
        norm.axvspan(0, self.early * last, color="0.9", zorder=0)
        norm.set(xlabel="epoch", ylabel="norm of the generator's gradient", yscale="log", title="measured")
        end.set_xticks([0, 1], ["modes found", "samples near a mode"])
        end.set(xlim=(-0.5, 1.5), ylim=(-0.03, 1.05), ylabel="share, test", title="at the end, each seed a point")
        slope.legend(frameon=False, fontsize=8)
        norm.legend(frameon=False, fontsize=8)

    def verdict(self, measured: Measured) -> Verdict:
        """It holds where the early gradient of the minimax loss is less than half of the other's."""
        ratio = measured["minimax"]["early"] / measured["non_saturating"]["early"]
        each = "; ".join(
            f"{NAMES[loss]}: modes {plus_minus(mean_and_error(found['modes']), 2)}, "
            f"near one {plus_minus(mean_and_error(found['quality']), 2)}"
            for loss, found in measured.items()
        )
        return Verdict(ratio < SMALLER, f"early gradient of minimax {ratio:.2f} of non-saturating; at the end {each}")
