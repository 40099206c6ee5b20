"""Context: the same token among other neighbours, read by an MLP, a convolution and attention.

An MLP at each step maps a token to the same output wherever it stands; a convolution adds its near neighbours;
attention reads every step, weighted by how well it fits.

Shapes: N sequences, L steps, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.claims.claim import Claim, Figure, Measured, Runs, Verdict
from dlx.claims.common import legend_beside
from dlx.config import Config
from dlx.config.checks import at_least
from dlx.random import reseed

STYLE = {"MLP": ("0.45", "s"), "convolution": ("tab:orange", "^"), "attention": ("tab:blue", "o")}
SAME = 1e-12  # changes below are rounding, in float64


class Context(Claim):
    """reach: neighbours on each side of the token. kernel: of the convolution, odd. width: of a token's vector.
    sequences: drawn at random, whose mean is shown."""

    claim = (
        "Among other neighbours an MLP's output for a token stays, a convolution's hardly moves, attention's changes"
    )

    def __init__(self, *, reach: int = 10, kernel: int = 3, width: int = 64, sequences: int = 200) -> None:
        at_least(1, reach=reach, kernel=kernel, width=width, sequences=sequences)
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {kernel}")
        at_least(kernel // 2 + 1, reach=reach)
        self.reach, self.kernel, self.width, self.sequences = reach, kernel, width, sequences

    def measure(self, base: Config, runs: Runs) -> Measured:
        reseed(base["seed"], "context")
        layers: dict[str, nn.Module] = {
            "MLP": nn.Sequential(nn.Linear(self.width, self.width), nn.ReLU(), nn.Linear(self.width, self.width)),
            "convolution": StepConvolution(self.width, self.kernel),
            "attention": SelfAttention(self.width),
        }
        x_NLD = torch.randn(self.sequences, 2 * self.reach + 1, self.width, dtype=torch.float64)
        other_NLD = torch.randn_like(x_NLD)
        steps = torch.arange(-self.reach, self.reach + 1)
        return {
            name: {
                "one": [self._change(layer.double(), x_NLD, other_NLD, steps == d) for d in steps if d],
                "far": self._change(layer, x_NLD, other_NLD, steps.abs() > self.kernel // 2),
                "all": self._change(layer, x_NLD, other_NLD, steps != 0),
            }
            for name, layer in layers.items()
        }

    @torch.no_grad()
    def _change(self, layer: nn.Module, x_NLD: Tensor, other_NLD: Tensor, changed_L: Tensor) -> float:
        """‖y' - y‖ / ‖y‖ of the middle step, mean over the sequences, where others stand at the changed steps."""
        before_ND = layer(x_NLD)[:, self.reach]
        after_ND = layer(torch.where(changed_L.unsqueeze(-1), other_NLD, x_NLD))[:, self.reach]
        return float(((after_ND - before_ND).norm(dim=-1) / before_ND.norm(dim=-1)).mean())

    def draw(self, measured: Measured, figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=[1.6, 1])
        distances = [d for d in range(-self.reach, self.reach + 1) if d]
        for name, found in measured.items():
            color, marker = STYLE[name]
            left.plot(distances, found["one"], marker, color=color, markersize=6, label=name)
        left.axvline(0, color="0.8", linewidth=8, zorder=0)
        left.set(
            xlabel="where another token is put (0: the token that is looked at)",
            ylabel="change of the token's output, ‖y' - y‖ / ‖y‖",
            title="one neighbour is another",
            xticks=range(-self.reach, self.reach + 1, max(1, self.reach // 5)),
        )
        legend_beside(left)
        bars = {"far": f"all but the {self.kernel - 1} nearest", "all": "all neighbours"}
        for number, (name, found) in enumerate(measured.items()):
            places = [row + 0.27 * (number - 1) for row in range(len(bars))]
            drawn = right.bar(places, [found[key] for key in bars], 0.25, color=STYLE[name][0])
            right.bar_label(drawn, [f"{found[key]:.2f}" if found[key] > SAME else "0" for key in bars], fontsize=8)
        right.set_xticks(range(len(bars)), list(bars.values()))
        right.set(title="several are others")

    def verdict(self, measured: Measured) -> Verdict:
        """Held if the MLP's output stays, the convolution's changes with the neighbours under its kernel alone, and
        attention's with any."""
        mlp, convolution, attention = (measured[name] for name in STYLE)
        distances = [abs(d) for d in range(-self.reach, self.reach + 1) if d]
        near = [change > SAME for change in convolution["one"]]
        held = (
            mlp["all"] < SAME
            and near == [distance <= self.kernel // 2 for distance in distances]
            and convolution["far"] < SAME
            and min(attention["one"]) > 1e-3
        )
        farthest = {name: max(measured[name]["one"][0], measured[name]["one"][-1]) for name in STYLE}
        each = "; ".join(
            f"{name}: {max(found['one']):.2g} by one neighbour at most, {farthest[name]:.2g} by one {self.reach} steps "
            f"away, {found['all']:.2g} by all"
            for name, found in measured.items()
        )
        return Verdict(held, f"change of the output for the same token, ‖y' - y‖ / ‖y‖: {each}")


class StepConvolution(nn.Module):
    """A convolution over the steps of [N, L, D]."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(width, width, kernel, padding=kernel // 2)

    def forward(self, x_NLD: Tensor) -> Tensor:
        output_NDL: Tensor = self.convolution(x_NLD.transpose(1, 2))
        return output_NDL.transpose(1, 2)


class SelfAttention(nn.Module):
    """softmax(q k^T / sqrt(D)) v with one head (Vaswani et al. 2017, arXiv:1706.03762)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x_NLD: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(self.query(x_NLD), self.key(x_NLD), self.value(x_NLD))
