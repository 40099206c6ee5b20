"""What each part of DCGAN's recipe does (Radford et al. 2015, arXiv:1511.06434): trainings that leave one out.

Convolutions instead of dense layers, leaky ReLUs in the discriminator, and a momentum of 0.5 instead of Adam's own 0.9.
A classifier of real images, trained beside them, reads the samples.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import torch

from dlx.claims.claim import Claim, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals, mean_and_error, plus_minus
from dlx.config import Config
from dlx.config.checks import at_least
from dlx.random import reseed
from dlx.runs.media import grid
from dlx.tasks.judge import judge
from dlx.training.trained import open_all

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JUDGE, WHOLE = "classifier", "dcgan"
TITLES = {"dcgan": "DCGAN", "dense": "dense layers", "relu": "ReLU in D", "momentum": "Adam's beta1 = 0.9"}
COLUMNS, SHOWN = 5, 30


class DCGANRecipe(Claim):
    """width: channels next to the image, in both networks. epochs, judge_epochs: of each GAN and of the classifier.
    samples: that are judged. seeds: trainings of each."""

    claim = "Each part of DCGAN's recipe brings its samples nearer to the data"
    size = (11, 4.4)

    def __init__(
        self, *, width: int = 16, epochs: int = 40, judge_epochs: int = 10, samples: int = 1000, seeds: int = 2
    ) -> None:
        at_least(1, width=width, epochs=epochs, judge_epochs=judge_epochs, seeds=seeds)
        at_least(2, samples=samples)
        self.width, self.epochs, self.judge_epochs = width, epochs, judge_epochs
        self.samples, self.seeds = samples, seeds

    def variants(self, base: Config) -> Variants:
        every = [f"trainer.epochs={self.epochs}", f"trainer.validate_every={self.epochs}epochs"]
        own = [f"model.generator_width={self.width}", f"model.discriminator_width={self.width}", *every]
        dense = ["model=gan", "model.latent_dim=100", "model.hidden=[128,128]", "model.discriminator=[128,128]"]
        return {
            WHOLE: own,
            "dense": [*dense, *every],
            "relu": [*own, "model.slope=0"],
            "momentum": [*own, "optim.betas=[0.9,0.999]"],
            JUDGE: ["model=cnn", f"trainer.epochs={self.judge_epochs}", "trainer.validate_every=1epoch", "optim=adam"],
        }

    def measure(self, base: Config, runs: Runs) -> Measured:
        reader = open_all(runs[JUDGE][0], trust=base.trust)
        found: Measured = {}
        for name in TITLES:
            opened = [open_all(run, trust=base.trust) for run in runs[name]]
            judged = [judge(run, run=reader, samples=self.samples).metrics for run in opened]
            system: Any = opened[0].system
            reseed(base["seed"], "dcgan_recipe")
            with torch.no_grad():
                image = system.input.draw(system.sample(SHOWN)[system.input_name])
            found[name] = {
                "frechet": [metrics["judge/frechet"] for metrics in judged],
                "floor": judged[0]["judge/frechet_of_real"],
                "entropy": [metrics["judge/entropy"] for metrics in judged],
                "spread": finals(runs[name], "test/spread"),
                "pixels": grid(image, columns=COLUMNS).tolist(),
            }
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
        halves: Any = figure.subfigures(1, 2, width_ratios=(1, 1.5))
        left, right = halves
        axes = left.subplots()
        for place, found in enumerate(measured.values()):
            axes.scatter([place] * len(found["frechet"]), found["frechet"], s=40, alpha=0.8, color=f"C{place}")
        floor = measured[WHOLE]["floor"]
        axes.axhline(floor, color="0.5", linestyle="--", linewidth=1, label=f"other real images: {floor:.2f}")
        axes.set_xticks(range(len(measured)), [TITLES[name] for name in measured], rotation=20, ha="right")
        axes.set(ylabel="Frechet distance, in a classifier's features", yscale="log", title="each seed a point")
        axes.legend(frameon=False, fontsize=8)
        for panel, (name, found) in zip(right.subplots(1, len(measured)), measured.items(), strict=True):
            panel.imshow(torch.tensor(found["pixels"]).numpy().squeeze(), cmap="gray")
            panel.set(xticks=[], yticks=[])
            panel.set_title(TITLES[name], fontsize=9)

    def verdict(self, measured: Measured) -> Verdict:
        """It holds where the whole recipe has the least Frechet distance on average."""
        means = {name: statistics.fmean(found["frechet"]) for name, found in measured.items()}
        each = ", ".join(
            f"{TITLES[name]} {plus_minus(mean_and_error(found['frechet']), 2)}" for name, found in measured.items()
        )
        line = (
            f"Frechet distance in a classifier's features: {each}; of other real images {measured[WHOLE]['floor']:.2f}"
        )
        return Verdict(min(means, key=lambda name: means[name]) == WHOLE, line)
