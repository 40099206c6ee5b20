"""Subwords (Sennrich, Haddow, Birch 2016, arXiv:1508.07909): one text in bytes, characters and BPE, and what a network
of one size then needs to tell it, in bits a byte.

Nats a token cannot be compared, for a token is more text in one than in the other; bits a byte can.
"""

from __future__ import annotations

import math

from dlx.claims.claim import Claim, Figure, Measured, Runs, Variants, Verdict
from dlx.claims.common import curve, finals, mean_and_error, plus_minus
from dlx.config import Config
from dlx.config.checks import at_least

COLORS = {"bytes": "tab:gray", "characters": "tab:blue", "bpe": "tab:orange"}


class Subwords(Claim):
    """kinds: of tokens, which lose nothing of the text. seeds: trainings with each, all of the same number of steps."""

    claim = "In subwords a text is shorter, and a network of one size tells it in fewer bits a byte after as many steps"

    def __init__(self, *, kinds: tuple[str, ...] = ("bytes", "characters", "bpe"), seeds: int = 1) -> None:
        if len(set(kinds)) < 2 or not set(kinds) <= set(COLORS):
            raise ValueError(f"kinds must be at least two of {', '.join(COLORS)}, got {list(kinds)}")
        at_least(1, seeds=seeds)
        self.kinds, self.seeds = kinds, seeds

    def variants(self, base: Config) -> Variants:
        return {kind: [f"data.tokens={kind}"] for kind in self.kinds}

    def measure(self, base: Config, runs: Runs) -> Measured:
        found: Measured = {}
        for kind in self.kinds:
            losses, bits = (finals(runs[kind], f"test/{name}") for name in ("loss", "bits_per_byte"))
            steps, values = curve(runs[kind][0], "val/bits_per_byte")
            found[kind] = {
                "loss": losses,
                "bits_per_byte": bits,
                "bytes_per_token": losses[0] / math.log(2) / bits[0],
                "parameters": runs[kind][0].summary().get("parameters"),
                "curve": {"x": steps, "y": values},
            }
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
        panels = figure.subplots(1, 3)
        names = {"loss": ("nats a token", "cannot be compared"), "bits_per_byte": ("bits a byte", "can be compared")}
        for axes, (key, (unit, title)) in zip(panels, names.items(), strict=False):
            means = [mean_and_error(found[key])[0] for found in measured.values()]
            bars = axes.bar(list(measured), means, color=[COLORS[kind] for kind in measured])
            axes.bar_label(bars, [f"{mean:.2f}" for mean in means])
            axes.set(ylabel=f"{unit}, test", title=f"{unit}: {title}")
        for kind, found in measured.items():
            label = f"{kind}: {found['bytes_per_token']:.2f} bytes a token"
            panels[2].plot(
                found["curve"]["x"], found["curve"]["y"], "o-", markersize=4, color=COLORS[kind], label=label
            )
        panels[2].set(xlabel="passes over the text", ylabel="bits a byte, validation", title="by how often it was read")
        panels[2].legend(fontsize=8, frameon=False)

    def verdict(self, measured: Measured) -> Verdict:
        """Held if the kind whose tokens hold most bytes needs fewer bits a byte than each other, by more than two
        standard errors."""
        bits = {kind: mean_and_error(found["bits_per_byte"]) for kind, found in measured.items()}
        longest = max(measured, key=lambda kind: measured[kind]["bytes_per_token"])
        held = all(
            bits[longest][0] < mean - 2 * math.hypot(error, bits[longest][1])
            for kind, (mean, error) in bits.items()
            if kind != longest
        )
        each = "; ".join(
            f"{kind} {plus_minus(pair, 3)} with {measured[kind]['bytes_per_token']:.2f} bytes a token"
            for kind, pair in bits.items()
        )
        return Verdict(held, f"bits a byte of the test text: {each}")
