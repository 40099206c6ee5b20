"""The order of the pixels hardly matters to NADE (Uria et al. 2016, arXiv:1605.02226): the raster and random ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlx.claims.claim import Claim, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals, mean_and_error
from dlx.config import Config
from dlx.config.checks import above, at_least

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Orderings(Claim):
    """random: how many permutations. most: nats that the best and the worst ordering may differ by. seeds: trainings of
    each."""

    claim = "Any order of the pixels gives a density, and all about the same nll"
    size = (8, 4)

    def __init__(self, *, random: int = 4, most: float = 1.0, seeds: int = 2) -> None:
        at_least(1, random=random, seeds=seeds)
        above(0, most=most)
        self.random, self.most, self.seeds = random, most, seeds

    def variants(self, base: Config) -> Variants:
        drawn = {
            f"random-{number}": ["model.ordering=random", f"model.ordering_seed={number}"]
            for number in range(self.random)
        }
        return {"raster": ["model.ordering=raster"], **drawn}

    def measure(self, base: Config, runs: Runs) -> Measured:
        return {"nll": {name: finals(of_order, "test/nll") for name, of_order in runs.items()}}

    def draw(self, measured: Measured, figure: Figure) -> None:
        axes = figure.subplots()
        for number, (name, values) in enumerate(measured["nll"].items()):
            color = "tab:orange" if name == "raster" else "tab:blue"
            axes.plot([number] * len(values), values, "o", color=color, alpha=0.5)
            if values:
                axes.hlines(mean_and_error(values)[0], number - 0.25, number + 0.25, color=color)
        axes.set_xticks(range(len(measured["nll"])), list(measured["nll"]))
        axes.set(ylabel="nats an image, test", title="NADE by the order of its pixels: seeds, and their mean")
        low, high = axes.get_ylim()
        middle, half = (low + high) / 2, max(high - low, 2 * self.most) / 2
        axes.set_ylim(middle - half, middle + half)  # what differs by less than it may is not made to look large

    def verdict(self, measured: Measured) -> Verdict:
        means = {name: mean_and_error(values)[0] for name, values in measured["nll"].items()}
        worst, best = max(means, key=means.__getitem__), min(means, key=means.__getitem__)
        spread = means[worst] - means[best]
        return Verdict(
            spread < self.most,
            f"test nats an image: raster {means['raster']:.2f}, best {best} {means[best]:.2f}, worst {worst} "
            f"{means[worst]:.2f}; {spread:.2f} apart, of at most {self.most:g}",
        )
