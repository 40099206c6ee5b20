"""Two 3x3 convolutions see what one 5x5 sees, with fewer weights (Simonyan, Zisserman 2014, arXiv:1409.1556, 2.3).

The receptive field is measured: the positions of the input at which an output's gradient is not zero.
"""

from __future__ import annotations

import torch
from torch import nn

from dlx.claims.claim import Claim, Figure, Measured, Runs, Verdict
from dlx.config import Config
from dlx.config.checks import at_least
from dlx.random import reseed

STACKS = {"one 5x5": (5,), "two 3x3": (3, 3), "one 7x7": (7,), "three 3x3": (3, 3, 3)}
SIDE = 11  # of the input; its center is (5, 5)


class ReceptiveField(Claim):
    """channels: channels of the input and of every layer."""

    claim = "Two 3x3 convolutions have the receptive field of one 5x5 (three of one 7x7) with fewer parameters"
    size = (12, 6.6)

    def __init__(self, *, channels: int = 128) -> None:
        at_least(1, channels=channels)
        self.channels = channels

    def measure(self, base: Config, runs: Runs) -> Measured:
        reseed(base["seed"], "receptive_field")
        found = {}
        for name, kernels in STACKS.items():
            network = stack(kernels, self.channels)
            map_HW = gradient_map(network, self.channels)
            rows, columns = (map_HW.sum(dim).nonzero()[:, 0] for dim in (1, 0))
            found[name] = {
                "parameters": sum(p.numel() for p in network.parameters()),
                "field": [int(seen[-1] - seen[0]) + 1 for seen in (rows, columns)],
                "places": int((map_HW > 0).sum()),
                "map": map_HW.tolist(),
            }
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
        from matplotlib.colors import LogNorm

        figure.suptitle("where the gradient of the central output with respect to the input is not zero (white: it is)")
        grid = figure.add_gridspec(2, len(measured), height_ratios=[1.6, 1])
        maps = [figure.add_subplot(grid[0, column]) for column in range(len(measured))]
        for axes, (name, found) in zip(maps, measured.items(), strict=True):
            seen = torch.tensor(found["map"])
            seen = seen / seen.max()
            image = axes.imshow(seen.where(seen > 0, torch.nan).numpy(), norm=LogNorm(0.1, 1), cmap="viridis")
            height, width = found["field"]
            axes.set_title(f"{name}: {height}x{width}")
            axes.set(xticks=[], yticks=[])
            axes.set_xticks([x - 0.5 for x in range(1, SIDE)], minor=True)
            axes.set_yticks([x - 0.5 for x in range(1, SIDE)], minor=True)
            axes.grid(which="minor", color="0.85", linewidth=0.6)
            axes.tick_params(which="minor", length=0)
        figure.colorbar(
            image, ax=maps, label="gradient, over its largest", shrink=0.8, ticks=[0.1, 0.3, 1], format="{x:g}"
        )
        axes = figure.add_subplot(grid[1, :])
        counts = [found["parameters"] for found in measured.values()]
        bars = axes.barh(list(measured), counts, color=["tab:gray", "tab:blue"] * 2)
        axes.bar_label(bars, [f"{count:,}" for count in counts], padding=4)
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set(xlabel=f"weights, {self.channels} channels", xlim=(0, 1.15 * max(counts)))

    def verdict(self, measured: Measured) -> Verdict:
        held, lines = True, []
        for small, large in (("two 3x3", "one 5x5"), ("three 3x3", "one 7x7")):
            one, other = measured[small], measured[large]
            solid = all(found["places"] == found["field"][0] * found["field"][1] for found in (one, other))
            held &= solid and one["field"] == other["field"] and one["parameters"] < other["parameters"]
            fields = ["x".join(map(str, found["field"])) for found in (one, other)]
            lines.append(
                f"{small} see {fields[0]} with {one['parameters']:,} weights, {large} sees {fields[1]} with "
                f"{other['parameters']:,} (saved: {1 - one['parameters'] / other['parameters']:.0%})"
            )
        return Verdict(held, "; ".join(lines))


def stack(kernels: tuple[int, ...], channels: int) -> nn.Sequential:
    """Convolutions of stride 1 that keep the image's size, with ReLU between; no biases, as before batch norm."""
    layers: list[nn.Module] = []
    for kernel in kernels:
        layers += [nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def gradient_map(network: nn.Module, channels: int) -> torch.Tensor:
    """|d output / d input| [H, W] for the central position of the output, summed over the channels of both."""
    x_BCHW = torch.randn(1, channels, SIDE, SIDE, requires_grad=True)
    outputs_C = network(x_BCHW)[0, :, SIDE // 2, SIDE // 2]
    seen_HW = torch.zeros(SIDE, SIDE)
    for output in outputs_C:
        (gradient_BCHW,) = torch.autograd.grad(output, x_BCHW, retain_graph=True)
        seen_HW += gradient_BCHW[0].abs().sum(0)
    return seen_HW
