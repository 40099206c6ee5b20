"""One generator for k domains, or one for each of the k (k - 1) ways between them: a StarGAN against CycleGANs.

All read equally many images (Choi et al. 2017, arXiv:1711.09020, figure 2), of scenes in three lights, of which the
true translations are known.
"""

from __future__ import annotations

import statistics
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch

from dlx.claims.claim import Claim, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals
from dlx.config import Config
from dlx.config.checks import at_least
from dlx.data.two_domains import LIGHTS, in_light
from dlx.training.trained import open_all

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAIRS = list(combinations(LIGHTS, 2))


class OneGenerator(Claim):
    """steps: of the StarGAN, of 16 images each; the CycleGANs share them, with 8 images of each side a step. side: of
    the images, in pixels. samples: to train on, of each light. width, blocks: of all generators; discriminators are
    twice as wide. seeds: trainings of each."""

    claim = "One generator translates between k domains as well as k (k - 1), with fewer weights"
    size = (10.5, 4.2)
    varies = ("trainer.max_steps",)

    def __init__(
        self, *, steps: int = 1500, side: int = 16, samples: int = 500, width: int = 8, blocks: int = 1, seeds: int = 1
    ) -> None:
        at_least(len(PAIRS), steps=steps)
        at_least(16, side=side)
        at_least(20, samples=samples)
        at_least(1, width=width, blocks=blocks, seeds=seeds)
        self.steps, self.side, self.samples, self.seeds = steps, side, samples, seeds
        self.width, self.blocks = width, blocks

    def variants(self, base: Config) -> Variants:
        size = [f"data.side={self.side}", f"data.samples={self.samples}", f"model.width={self.width}"]
        size += [f"model.blocks={self.blocks}", f"model.discriminator_width={2 * self.width}"]
        found = {"stargan": ["model=stargan", "data=many_domains", *size, f"trainer.max_steps={self.steps}"]}
        for a, b in PAIRS:
            words = ["model=cyclegan", "data=two_domains", f"data.a={a}", f"data.b={b}", "data.batch_size=8", *size]
            found[f"{a}_{b}"] = [*words, f"trainer.max_steps={self.steps // len(PAIRS)}"]
        return found

    def measure(self, base: Config, runs: Runs) -> Measured:
        stars = [open_all(run, trust=base.trust) for run in runs["stargan"]]
        cycles = {pair: runs["_".join(pair)] for pair in PAIRS}
        own = [open_all(found[0], trust=base.trust).system for found in cycles.values()]
        each = [{pair: star_error(opened, pair) for pair in PAIRS} for opened in stars]
        return {
            "stargan": {
                "weights": count(stars[0].system.averaged()),
                "seconds": sum(finals(runs["stargan"], "seconds")),
                "error": {"_".join(pair): [one[pair] for one in each] for pair in PAIRS},
            },
            "cyclegan": {
                "weights": sum(count(system.averaged()) for system in own),
                "seconds": sum(sum(finals(found, "seconds")) for found in cycles.values()),
                "error": {"_".join(pair): finals(found, "test/error") for pair, found in cycles.items()},
            },
        }

    def draw(self, measured: Measured, figure: Figure) -> None:
        weights, errors = figure.subplots(1, 2, width_ratios=(1, 2))
        names = {"stargan": "StarGAN, 1 generator", "cyclegan": f"CycleGAN, {2 * len(PAIRS)} generators"}
        for place, (name, text) in enumerate(names.items()):
            weights.bar(place, measured[name]["weights"] / 1000, color=f"C{place}", width=0.6)
            ways = [statistics.fmean(measured[name]["error"]["_".join(pair)]) for pair in PAIRS]
            errors.bar([n + 0.38 * place for n in range(len(PAIRS))], ways, 0.36, color=f"C{place}", label=text)
        weights.set_xticks(range(len(names)), [text.replace(", ", "\n") for text in names.values()])
        weights.set(ylabel="thousand weights", title="generators")
        errors.set_xticks([n + 0.19 for n in range(len(PAIRS))], [f"{a}, {b}" for a, b in PAIRS])
        errors.set(ylabel="L1 to the truth, of 2", title="translations of test images, both ways")
        errors.legend(frameon=False)

    def verdict(self, measured: Measured) -> Verdict:
        """It holds where it has fewer weights, and its mean error is at most that of the CycleGANs."""
        star, cycle = measured["stargan"], measured["cyclegan"]
        error = {
            name: statistics.fmean(value for values in found["error"].values() for value in values)
            for name, found in measured.items()
        }
        held = star["weights"] < cycle["weights"] and error["stargan"] <= error["cyclegan"]
        each = ", ".join(
            f"{name} {found['weights']:,} weights, L1 to the truth {error[name]:.3f} in {found['seconds']:.0f} s"
            for name, found in measured.items()
        )
        return Verdict(held, each)


def count(weights: Any) -> int:
    return sum(weight.numel() for weight in weights)


def star_error(opened: Any, pair: tuple[str, str]) -> float:
    """The L1 in [-1, 1] of test images of both lights, translated to the other, to what they are there."""
    system, found = opened.system, []
    entry, classes = system.spec.image, list(system.names)
    for batch in opened.loader("test", system.spec.entries).eval_batches():
        for before, after in (pair, pair[::-1]):
            rows = batch["label"] == classes.index(before)
            x = batch["image"][rows]
            wanted = torch.full((len(x),), classes.index(after), device=x.device)
            with torch.no_grad():
                made = system.generator(x, system.one_hot(wanted))
            truth = in_light(entry.denormalize(x).cpu(), after, before) * 2 - 1
            found += (made.cpu() - truth).abs().flatten(1).mean(1).tolist()
    return statistics.fmean(found)
