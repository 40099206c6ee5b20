"""Positions: a transformer that reads strings to be written backwards, with sines, learned vectors, or nothing added
to a token for its place (Vaswani et al. 2017, arXiv:1706.03762, section 3.5).

Attention reads a set: without positions the encoder's outputs for abc and cab are the same, in another order.
"""

from __future__ import annotations

from dlx.claims.claim import Claim, Figure, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals, legend_beside, mean_and_error, mean_curve, plus_minus
from dlx.config import Config
from dlx.config.checks import at_least

STYLE = {"sinusoidal": "tab:blue", "learned": "tab:green", "none": "tab:red"}


class Positions(Claim):
    """seeds: trainings with each kind of positions."""

    claim = "Without positions the encoder cannot tell orders: the transformer never learns to write strings backwards"

    def __init__(self, *, seeds: int = 1) -> None:
        at_least(1, seeds=seeds)
        self.seeds = seeds

    def variants(self, base: Config) -> Variants:
        return {kind: [f"model.positions={kind}"] for kind in STYLE}

    def measure(self, base: Config, runs: Runs) -> Measured:
        return {
            kind: {
                **{name: mean_curve(runs[kind], f"val/{name}") for name in ("accuracy", "exact_match")},
                **{f"test_{name}": finals(runs[kind], f"test/{name}") for name in ("accuracy", "exact_match")},
            }
            for kind in STYLE
        }

    def draw(self, measured: Measured, figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        titles = {
            "accuracy": "next tokens that are right, true ones before them",
            "exact_match": "strings written without a fault",
        }
        for axes, (name, title) in zip(panels, titles.items(), strict=True):
            for kind, found in measured.items():
                axes.plot(found[name]["x"], found[name]["y"], "o-", markersize=4, color=STYLE[kind], label=kind)
            axes.set(xlabel="epoch", title=title, ylim=(-0.02, 1.02))
        panels[0].set_ylabel("share of the validation data")
        legend_beside(panels[1])

    def verdict(self, measured: Measured) -> Verdict:
        """Held if more than 0.9 of the test strings are right with either kind of positions, and less than 0.1
        without."""
        exact = {kind: mean_and_error(found["test_exact_match"]) for kind, found in measured.items()}
        held = min(exact["sinusoidal"][0], exact["learned"][0]) > 0.9 and exact["none"][0] < 0.1
        each = "; ".join(
            f"{kind} {plus_minus(pair, 3)} ({mean_and_error(measured[kind]['test_accuracy'])[0]:.3f} of tokens)"
            for kind, pair in exact.items()
        )
        return Verdict(held, f"test strings written backwards without a fault: {each}")
