"""What a VAE's loss weighs: the reconstruction against the fit to the prior, over beta (Higgins et al. 2017).

-ELBO = reconstruction + KL. A smaller beta pays for a good reconstruction with codes that are far from the prior, a
larger one for codes near it with a bad reconstruction; their sum is least where they count alike, at beta = 1.
"""

from __future__ import annotations

import statistics
from itertools import pairwise
from typing import TYPE_CHECKING

from dlx.claims.claim import Claim, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals, ordered_colors
from dlx.config import Config
from dlx.config.checks import at_least, rising

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TERMS = ("reconstruction", "kl", "loss", "nll")


class VAETerms(Claim):
    """betas: weights of the KL, with 1 among them. seeds: trainings of each."""

    claim = "A VAE trades its reconstruction against the fit to the prior; -ELBO, their sum, is least at beta = 1"

    def __init__(self, *, betas: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0), seeds: int = 2) -> None:
        rising(3, betas=betas)
        if 1.0 not in betas or betas[0] == 1.0 or betas[-1] == 1.0:
            raise ValueError(f"betas must have 1 between others, got {list(betas)}")
        at_least(1, seeds=seeds)
        self.betas, self.seeds = betas, seeds

    def variants(self, base: Config) -> Variants:
        return {f"beta-{beta:g}": [f"model.beta={beta:g}"] for beta in self.betas}

    def measure(self, base: Config, runs: Runs) -> Measured:
        return {
            f"{beta:g}": {term: finals(runs[f"beta-{beta:g}"], f"test/{term}") for term in TERMS} for beta in self.betas
        }

    def means(self, measured: Measured, term: str) -> list[float]:
        return [statistics.fmean(measured[f"{beta:g}"][term]) for beta in self.betas]

    def draw(self, measured: Measured, figure: Figure) -> None:
        plane, over = figure.subplots(1, 2)
        kl, reconstruction = self.means(measured, "kl"), self.means(measured, "reconstruction")
        plane.plot(kl, reconstruction, color="0.6", zorder=1)
        for beta, x, y, color in zip(self.betas, kl, reconstruction, ordered_colors(len(kl)), strict=True):
            plane.scatter([x], [y], color=color, s=45, zorder=2)
            plane.annotate(f"beta {beta:g}", (x, y), xytext=(7, 5), textcoords="offset points", fontsize=9)
        plane.set(xlabel="KL to the prior, nats", ylabel="reconstruction, nats", title="the exchange")
        plane.margins(x=0.18, y=0.12)
        for term, name in (("loss", "-ELBO"), ("reconstruction", "reconstruction"), ("kl", "KL")):
            over.plot(self.betas, self.means(measured, term), marker="o", label=name)
        over.axvline(1, color="0.7", linewidth=1, zorder=0)
        over.set(xlabel="beta", ylabel="nats an image, test", xscale="log", title="their sum, unweighted")
        over.set_xticks(self.betas, [f"{beta:g}" for beta in self.betas])
        over.minorticks_off()
        over.legend(frameon=False)

    def verdict(self, measured: Measured) -> Verdict:
        """It holds where the KL falls and the reconstruction rises with beta, and -ELBO is least at beta = 1."""
        kl, reconstruction, loss = (self.means(measured, term) for term in ("kl", "reconstruction", "loss"))
        trades = all(a > b for a, b in pairwise(kl)) and all(a < b for a, b in pairwise(reconstruction))
        held = trades and loss.index(min(loss)) == self.betas.index(1.0)
        parts = zip(self.betas, loss, reconstruction, kl, strict=True)
        each = ", ".join(f"beta {b:g}: {a:.2f} = {r:.2f} + {k:.2f}" for b, a, r, k in parts)
        return Verdict(held, f"-ELBO = reconstruction + KL in nats, test: {each}")
