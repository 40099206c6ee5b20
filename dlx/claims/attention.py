"""Why attention divides its scores by sqrt(d) (Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1, footnote 4).

q · k sums d products: of independent numbers of variance 1 it has variance d. Scores so far apart saturate the softmax:
one weight is nearly 1, and the gradient at the scores is nearly 0.

Shapes: N queries, S keys, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlx.claims.claim import Claim, Figure, Measured, Runs, Verdict
from dlx.claims.common import legend_beside
from dlx.config import Config
from dlx.config.checks import at_least, rising
from dlx.random import generator

STYLE = {"divided": ("tab:blue", "q · k / √d"), "not_divided": ("tab:red", "q · k")}


class Attention(Claim):
    """widths: d, rising. keys: that each query reads. queries: drawn for each d, as the keys, from N(0, 1)."""

    claim = "Without the division by sqrt(d) the softmax of attention saturates as d grows, and its gradient vanishes"

    def __init__(
        self, *, widths: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256, 512), keys: int = 32, queries: int = 2000
    ) -> None:
        rising(2, widths=widths)
        at_least(2, keys=keys)
        at_least(1, queries=queries)
        self.widths, self.keys, self.queries = widths, keys, queries

    def measure(self, base: Config, runs: Runs) -> Measured:
        found: Measured = {way: {"largest": [], "gradient": [], "quartiles": []} for way in STYLE}
        for width in self.widths:
            rng = generator(base["seed"], "attention", width)
            q_N1D = torch.randn(self.queries, 1, width, generator=rng, dtype=torch.float64)
            k_NSD = torch.randn(self.queries, self.keys, width, generator=rng, dtype=torch.float64)
            scores_NS = (q_N1D * k_NSD).sum(-1)
            for way, divisor in (("divided", math.sqrt(width)), ("not_divided", 1.0)):
                weights_NS = (scores_NS / divisor).softmax(-1)
                norms_N = jacobian_norms(weights_NS)
                low, middle, high = norms_N.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
                found[way]["largest"].append(float(weights_NS.amax(-1).median()))
                found[way]["gradient"].append(middle)
                found[way]["quartiles"].append([low, high])
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for way, (color, label) in STYLE.items():
            found = measured[way]
            low, high = zip(*found["quartiles"], strict=True)
            left.plot(self.widths, found["largest"], "o-", color=color, label=label)
            right.plot(self.widths, found["gradient"], "o-", color=color, label=label)
            right.fill_between(self.widths, low, high, color=color, alpha=0.15, linewidth=0)
        left.axhline(1 / self.keys, color="0.5", linestyle="--", linewidth=1)
        left.text(self.widths[0], 1 / self.keys + 0.01, f"all {self.keys} keys alike", fontsize=8, color="0.4")
        left.set(ylim=(0, 1.03), ylabel="median of the queries", title="largest attention weight")
        right.set(yscale="log", title="gradient of the weights at the scores, ‖∂p/∂s‖\n(median and quartiles)")
        for axes in (left, right):
            axes.set_xscale("log", base=2)
            axes.set_xlabel("width d of queries and keys")
            axes.set_xticks(self.widths, [str(width) for width in self.widths])
        legend_beside(right)

    def verdict(self, measured: Measured) -> Verdict:
        """Held if at the greatest width less than a tenth of the gradient is left that there is with the division,
        which keeps at least half of what it has at the smallest."""
        kept, lost = measured["divided"]["gradient"], measured["not_divided"]["gradient"]
        each = "; ".join(
            f"{label}: largest weight {found['largest'][0]:.2f} and {found['largest'][-1]:.2f}, "
            f"gradient {found['gradient'][0]:.2g} and {found['gradient'][-1]:.2g}"
            for found, label in ((measured[way], label) for way, (_, label) in STYLE.items())
        )
        held = lost[-1] < 0.1 * kept[-1] and kept[-1] > 0.5 * kept[0]
        return Verdict(held, f"medians at d = {self.widths[0]} and {self.widths[-1]}: {each}")


def jacobian_norms(weights_NS: Tensor) -> Tensor:
    """Frobenius norm of the softmax's Jacobian ∂p_i/∂s_j = p_i (δ_ij - p_j), from its values p [N, S]; [N].

    The squares sum up to Σp² - 2Σp³ + (Σp²)². Near saturation that is a small difference of large numbers, so that it
    is summed as Σ p_i² (1 - p_i)² + Σ_{i≠j} p_i² p_j², with 1 - p_i as the sum of the others.
    """
    largest_N1, at_N1 = weights_NS.max(-1, keepdim=True)
    others_NS = weights_NS.scatter(-1, at_N1, 0.0)
    rest_N1 = others_NS.sum(-1, keepdim=True)
    complement_NS = (1 - weights_NS).scatter(-1, at_N1, rest_N1)
    diagonal_N = (weights_NS * complement_NS).square().sum(-1)
    squares_N = others_NS.square().sum(-1)
    between_N = 2 * largest_N1[:, 0].square() * squares_N + squares_N.square() - others_NS.pow(4).sum(-1)
    return (diagonal_N + between_N).clamp_min(0).sqrt()
