"""What a fixed window discards: the nll of AR-n against n, beside a latent autoregressive model of all of the past.

AR-n is an MLP on the embeddings of n tokens (Bengio et al. 2003); the latent model is h_t = g(h_{t-1}, x_{t-1}).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from dlx.claims.claim import Claim, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals, legend_beside, mean_and_error, plus_minus
from dlx.config import Config, build
from dlx.config.checks import at_least, rising

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class LatentState(Claim):
    """windows: n. width: of the MLP's hidden layer and of the latent state. seeds: trainings of each."""

    claim = "A window of n discards what lies before it: the nll falls with n; a latent state needs no window"
    size = (8, 4.2)

    def __init__(self, *, windows: tuple[int, ...] = (1, 2, 3, 4), width: int = 128, seeds: int = 2) -> None:
        rising(2, windows=windows)
        at_least(1, width=width, seeds=seeds)
        self.windows, self.width, self.seeds = windows, width, seeds

    def variants(self, base: Config) -> Variants:
        window = {
            f"ar-{n}": ["model=autoregressive", f"model.window={n}", f"model.hidden=[{self.width}]"]
            for n in self.windows
        }
        return {**window, "latent": ["model=latent_autoregressive", f"model.state={self.width}"]}

    def measure(self, base: Config, runs: Runs) -> Measured:
        return {
            "nll": {name: finals(of_model, "test/loss") for name, of_model in runs.items()},
            "entropy": getattr(build(base, "dataset"), "entropy", None),
        }

    def draw(self, measured: Measured, figure: Figure) -> None:
        axes = figure.subplots()
        pairs = {name: mean_and_error(losses) for name, losses in measured["nll"].items() if losses}
        of_windows = [(n, *pairs[f"ar-{n}"]) for n in self.windows if f"ar-{n}" in pairs]
        if of_windows:
            n, mean, error = zip(*of_windows, strict=True)
            axes.errorbar(n, mean, error, marker="o", capsize=3, label="AR-n")
        if "latent" in pairs:
            axes.axhline(pairs["latent"][0], color="tab:orange", label="latent state")
        if measured["entropy"] is not None:
            axes.axhline(measured["entropy"], color="0.4", linestyle="--", linewidth=1, label="entropy of the source")
        axes.set(
            xlabel="window n", ylabel="nats a token, test", title="what lies before the window", xticks=self.windows
        )
        legend_beside(axes)

    def verdict(self, measured: Measured) -> Verdict:
        """It holds where each longer window, but for a hundredth of a nat, is as good as the shorter, the longest is
        better than the shortest by more, and the latent state as good as the best window."""
        nll = {name: mean_and_error(losses) for name, losses in measured["nll"].items()}
        of_windows = [nll[f"ar-{n}"][0] for n in self.windows]
        falls = all(after < before + 0.01 for before, after in pairwise(of_windows))
        held = falls and of_windows[-1] < of_windows[0] - 0.01 and nll["latent"][0] < min(of_windows) + 0.01
        entropy = "" if measured["entropy"] is None else f"; the source has {measured['entropy']:.4f}"
        each = ", ".join(f"{name} {plus_minus(pair)}" for name, pair in nll.items())
        return Verdict(held, f"test nats a token: {each}{entropy}")
