"""What InfoGAN's bound of the mutual information does (Chen et al. 2016, arXiv:1606.03657): trainings with and without.

The code is an input of the generator in both; only the bound makes the samples tell of it. A classifier of real images,
trained beside them, reads the samples: of one category they should be of one class.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import torch

from dlx.claims.claim import Claim, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals, mean_and_error, plus_minus
from dlx.config import Config
from dlx.config.checks import above, at_least
from dlx.random import reseed
from dlx.runs.media import grid
from dlx.tasks.judge import judge
from dlx.training.trained import open_all

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JUDGE = "classifier"
ACROSS = 10  # samples of a category in the figure
KNOWN, IGNORED = 0.95, 0.2  # shares of H(c)


class Codes(Claim):
    """weight: of the bound (lambda), against 0. epochs, judge_epochs: of each InfoGAN and of the classifier. samples:
    that are judged. seeds: trainings of each."""

    claim = "Only the bound of the mutual information makes a GAN's samples tell of their code"
    size = (9.6, 4.8)

    def __init__(
        self, *, weight: float = 1.0, epochs: int = 50, judge_epochs: int = 10, samples: int = 1000, seeds: int = 2
    ) -> None:
        above(0, weight=weight)
        at_least(1, epochs=epochs, judge_epochs=judge_epochs, seeds=seeds)
        at_least(2, samples=samples)
        self.weight, self.epochs, self.judge_epochs = weight, epochs, judge_epochs
        self.samples, self.seeds = samples, seeds

    def variants(self, base: Config) -> Variants:
        every = [f"trainer.epochs={self.epochs}", f"trainer.validate_every={self.epochs}epochs"]
        judging = ["model=cnn", "optim=adam", f"trainer.epochs={self.judge_epochs}", "trainer.validate_every=1epoch"]
        return {**{f"lambda-{w:g}": [f"model.weight={w:g}", *every] for w in (0, self.weight)}, JUDGE: judging}

    def measure(self, base: Config, runs: Runs) -> Measured:
        reader = open_all(runs[JUDGE][0], trust=base.trust)
        found: Measured = {"read": finals(runs[JUDGE], "test/accuracy")[0]}
        for weight in (0, self.weight):
            own = runs[f"lambda-{weight:g}"]
            opened = [open_all(run, trust=base.trust) for run in own]
            judged = [judge(run, run=reader, samples=self.samples).metrics for run in opened]
            found[f"{weight:g}"] = {
                "information": finals(own, "test/information"),
                "purity": [metrics["judge/purity"] for metrics in judged],
                "frechet": [metrics["judge/frechet"] for metrics in judged],
                "pixels": by_code(opened[0].system, base["seed"]),
            }
            found["entropy"] = opened[0].system.entropy
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
        weights = ["0", f"{self.weight:g}"]
        for axes, weight in zip(figure.subplots(1, len(weights)), weights, strict=True):
            found = measured[weight]
            axes.imshow(torch.tensor(found["pixels"]).numpy().squeeze(), cmap="gray")
            told, purity = statistics.fmean(found["information"]), statistics.fmean(found["purity"])
            title = f"lambda = {weight}: L_I {told:.2f} of {measured['entropy']:.2f} nats, purity {purity:.2f}"
            axes.set(title=title, xticks=[], yticks=[], ylabel="a row for each category")
        figure.supxlabel("other noise in each column, the same in each row", fontsize=9)

    def verdict(self, measured: Measured) -> Verdict:
        """It holds where L_I is above 0.95 H(c) with the bound and below 0.2 H(c) without, and the purity higher."""
        parts = {
            weight: {name: mean_and_error(measured[weight][name]) for name in ("information", "purity")}
            for weight in ("0", f"{self.weight:g}")
        }
        without, given = parts.values()
        entropy = measured["entropy"]
        held = (
            without["information"][0] < IGNORED * entropy
            and given["information"][0] > KNOWN * entropy
            and given["purity"][0] > without["purity"][0]
        )
        each = "; ".join(
            f"lambda {weight}: L_I {plus_minus(found['information'], 2)} of {entropy:.2f} nats, purity "
            f"{plus_minus(found['purity'], 2)}"
            for weight, found in parts.items()
        )
        return Verdict(held, f"{each} (read by a classifier that is right in {measured['read']:.1%})")


@torch.no_grad()
def by_code(system: Any, seed: int) -> list[Any]:
    """Pixels of samples, a row for each category."""
    rows = []
    for code in range(system.categories[0]):
        reseed(seed, "codes")  # the same noise in each row
        rows.append(system.input.draw(system.sample(ACROSS, code=code)[system.input_name]))
    pixels: list[Any] = grid(torch.cat(rows), columns=ACROSS).tolist()
    return pixels
