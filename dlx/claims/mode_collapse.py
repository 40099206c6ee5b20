"""Mode collapse: a GAN leaves out modes of the data, which its own losses do not tell; a WGAN-GP covers more of them.

On 8 Gaussians on a ring and 25 on a grid, where modes can be counted (Srivastava et al. 2017, arXiv:1705.07761).
"""

from __future__ import annotations

import statistics
from itertools import product
from typing import TYPE_CHECKING, Any

import torch

from dlx.claims.claim import Claim, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals
from dlx.config import Config
from dlx.config.checks import at_least
from dlx.random import reseed
from dlx.training.trained import open_all

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHAPES = {"ring": 8, "grid": 25}
STEADY = ["model.loss=wasserstein", "model.penalty=0.1", "model.critic_steps=3", "optim.betas=[0,0.9]"]
LOSSES: dict[str, list[str]] = {"GAN": [], "WGAN-GP": [*STEADY, "optim.players.discriminator.lr=5e-4"]}
SHOWN = 1000  # samples of a panel


class ModeCollapse(Claim):
    """seeds: trainings of each loss on each shape; the figure is of the first."""

    claim = "A GAN leaves out modes of the data, and a WGAN-GP covers more of them"
    size = (13, 3.9)

    def __init__(self, *, seeds: int = 2) -> None:
        at_least(1, seeds=seeds)
        self.seeds = seeds

    def variants(self, base: Config) -> Variants:
        pairs = product(SHAPES, LOSSES)
        return {f"{loss}-{shape}": [f"data.shape={shape}", *LOSSES[loss]] for shape, loss in pairs}

    def measure(self, base: Config, runs: Runs) -> Measured:
        found: Measured = {}
        for name, own in runs.items():
            system: Any = open_all(own[0], trust=base.trust).system
            reseed(base["seed"], "mode_collapse")
            with torch.no_grad():
                made = system.sample(SHOWN)[system.input_name]
            found[name] = {
                "modes": finals(own, "test/modes"),
                "quality": finals(own, "test/quality"),
                "samples": made.tolist(),
                "centres": [list(centre) for centre in system.input.modes],
            }
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
        for axes, (name, found) in zip(figure.subplots(1, len(measured)), measured.items(), strict=True):
            centres, made = torch.tensor(found["centres"]), torch.tensor(found["samples"])
            axes.plot(*made.T.numpy(), ".", markersize=2.5, alpha=0.5)
            axes.scatter(*centres.T.numpy(), s=90, facecolors="none", edgecolors="0.4", linewidths=0.8)
            loss, shape = name.rsplit("-", 1)
            count = SHAPES[shape]
            modes, quality = round(count * found["modes"][0]), found["quality"][0]
            reach = 1.25 * float(centres.abs().max())
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
            title = f"{loss}, {shape}: {modes} of {count} modes,\n{quality:.0%} of samples near one"
            axes.set_title(title, fontsize=10)

    def verdict(self, measured: Measured) -> Verdict:
        """It holds where the GAN leaves out modes of the grid, and the WGAN-GP fewer of them, on average."""
        mean = {
            name: {metric: statistics.fmean(found[metric]) for metric in ("modes", "quality")}
            for name, found in measured.items()
        }
        held = mean["GAN-grid"]["modes"] < min(1.0, mean["WGAN-GP-grid"]["modes"])
        each = "; ".join(
            f"{name.replace('-ring', ', ring').replace('-grid', ', grid')}: "
            f"{SHAPES[name.rsplit('-', 1)[1]] * found['modes']:.1f} of {SHAPES[name.rsplit('-', 1)[1]]} modes, "
            f"{found['quality']:.2f} near one"
            for name, found in mean.items()
        )
        return Verdict(held, each)
