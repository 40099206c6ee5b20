"""What structure costs and gives: the parameters of p(x) against its test nll.

Independent pixels, a Markov chain, AR-n (a logistic regression on the n before each pixel; with all of them it is the
fully visible sigmoid belief net), and NADE, whose conditionals share their weights.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from dlx.claims.claim import Claim, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals, mean_and_error, plus_minus
from dlx.config import Config, build, compose
from dlx.config.checks import at_least, rising
from dlx.tasks import structure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class PixelStructure(Claim):
    """orders: n. hidden: NADE's units. seeds: trainings of each."""

    claim = "Each pixel that one may depend on lowers the nll and adds parameters; a full table would have 2^n - 1"
    size = (8.5, 4.4)
    varies = ("model", "optimizer.lr")

    def __init__(self, *, orders: tuple[int, ...] = (2, 4, 8, 16, 32), hidden: int = 200, seeds: int = 2) -> None:
        rising(1, orders=orders)
        at_least(1, hidden=hidden, seeds=seeds)
        self.orders, self.hidden, self.seeds = orders, hidden, seeds

    def variants(self, base: Config) -> Variants:
        regression = ["model=ar_pixels", "optimizer.lr=0.02"]
        return {
            "independent": ["model=independent_pixels"],
            "Markov": ["model=markov_pixels", "model.given=previous"],
            **{f"AR-{n}": [*regression, f"model.order={n}"] for n in self.orders},
            "AR-all": [*regression, "model.order=null"],
            "NADE": ["model=nade", f"model.hidden={self.hidden}"],
        }

    def measure(self, base: Config, runs: Runs) -> Measured:
        spec = build(base, "dataset").spec
        found: Measured = {"nll": {}, "parameters": {}}
        for name, words in self.variants(base).items():
            with torch.device("meta"):
                system = build(compose(words, base=base), "model", spec=spec)
            found["nll"][name] = finals(runs[name], "test/nll")
            found["parameters"][name] = system.free_numbers
        return {**found, "full": structure.full_text(system.dimensions, system.levels)}

    def draw(self, measured: Measured, figure: Figure) -> None:
        axes = figure.subplots()
        for name, values in measured["nll"].items():
            if not values:
                continue
            mean, error = mean_and_error(values)
            count = measured["parameters"][name]
            color = "tab:blue" if name.startswith("AR-") else "tab:green" if name == "NADE" else "tab:orange"  # tables
            axes.errorbar(count, mean, error, marker="o", capsize=3, color=color)
            axes.annotate(name, (count, mean), xytext=(6, 6), textcoords="offset points", fontsize=9)
        axes.set(
            xscale="log",
            xlabel=f"numbers that p(x) takes (a full table: {measured['full']})",
            ylabel="nats an image, test",
            title="what each pixel may depend on",
        )
        axes.margins(x=0.15, y=0.1)

    def verdict(self, measured: Measured) -> Verdict:
        """It holds where each that depends on more is better, but for a tenth of a nat: independent, Markov, AR-n with
        n, AR of all before, NADE."""
        pairs = {name: mean_and_error(values) for name, values in measured["nll"].items()}
        means = [mean for mean, _ in pairs.values()]
        held = all(after < before + 0.1 for before, after in pairwise(means)) and means[-1] < means[-2] < means[0] - 1
        each = ", ".join(
            f"{name} {plus_minus(pair, 2)} ({measured['parameters'][name]:,})" for name, pair in pairs.items()
        )
        return Verdict(
            held, f"test nats an image (and numbers that p(x) takes): {each}; a full table {measured['full']}"
        )
