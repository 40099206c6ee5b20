"""A 1x1 convolution before a 3x3 one makes it cheap (GoogLeNet 2014, arXiv:1409.4842; ResNet 2015, arXiv:1512.03385).

It is not free: without a nonlinearity between, the two are one 3x3 convolution whose weights have a low rank.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dlx.claims.claim import Claim, Figure, Measured, Runs, Verdict
from dlx.claims.common import legend_beside
from dlx.config import Config
from dlx.config.checks import at_least
from dlx.random import reseed


class Bottleneck(Claim):
    """channels: input and output channels. squeezed: channels between the 1x1 and the 3x3. side: height of the maps."""

    claim = "A 1x1 convolution to fewer channels before a 3x3 one saves most of its parameters and FLOPs"
    size = (11, 4.4)

    def __init__(self, *, channels: int = 128, squeezed: int = 32, side: int = 28) -> None:
        at_least(1, channels=channels, side=side)
        if not 1 <= squeezed <= channels:
            raise ValueError(f"squeezed must be in [1, {channels}], got {squeezed}")
        self.channels, self.squeezed, self.side = channels, squeezed, side

    def measure(self, base: Config, runs: Runs) -> Measured:
        reseed(base["seed"], "bottleneck")
        channels, side = self.channels, self.side
        direct, squeezing = conv_3x3(channels), bottleneck(channels, self.squeezed)
        widths = sorted({max(1, channels * part // 32) for part in range(1, 33)} | {self.squeezed})
        return {
            "direct": cost(direct, channels, side),
            "bottleneck": cost(squeezing, channels, side),
            "layers": [layer.weight.numel() for layer in squeezing if isinstance(layer, nn.Conv2d)],
            "widths": widths,
            "by_width": [cost(bottleneck(channels, width), channels, side) for width in widths],
            "rank": {"direct": rank(direct.weight), "bottleneck": rank(joint_kernel(squeezing))},
            "joined_error": joined_error(squeezing, channels),
        }

    def draw(self, measured: Measured, figure: Figure) -> None:
        bars, curve = figure.subplots(1, 2, width_ratios=[1, 1.3])
        direct, layers = measured["direct"], measured["layers"]
        names = [
            f"3x3\n{self.channels} to {self.channels}",
            f"1x1 to {self.squeezed}: {layers[0]:,}\n3x3 to {self.channels}: {layers[1]:,}",
        ]
        bars.bar(names, [direct["parameters"], layers[1]], color="tab:blue", label="3x3", width=0.6)
        bars.bar(names[1], layers[0], bottom=layers[1], color="tab:orange", label="1x1", width=0.6)
        for at, total in enumerate((direct["parameters"], sum(layers))):
            bars.text(at, total, f"{total:,}", ha="center", va="bottom")
        bars.set(title="what the layers hold", ylabel="weights", ylim=(0, 1.12 * direct["parameters"]))
        bars.yaxis.set_major_formatter("{x:,.0f}")
        bars.legend(loc="upper right", frameon=False)  # where the shorter bar leaves room
        flops = [found["flops"] / 1e6 for found in measured["by_width"]]
        curve.plot(measured["widths"], flops, "o-", markersize=3, label="1x1, then 3x3")
        curve.axhline(direct["flops"] / 1e6, color="0.4", linestyle="--", label="3x3 alone")
        curve.axvline(even_width(self.channels), color="tab:red", linewidth=0.8, label="saves nothing\nfrom here on")
        curve.plot(self.squeezed, measured["bottleneck"]["flops"] / 1e6, "o", color="tab:orange", markersize=9)
        curve.set(
            title="what they cost",
            xlabel="channels between",
            ylabel=f"million FLOPs, {self.side}x{self.side} maps",
            ylim=(0, None),
        )
        legend_beside(curve)

    def verdict(self, measured: Measured) -> Verdict:
        direct, squeezing, (first, second) = measured["direct"], measured["bottleneck"], measured["layers"]
        saved = {name: 1 - squeezing[name] / direct[name] for name in ("parameters", "flops")}
        ranks = measured["rank"]
        return Verdict(
            min(saved.values()) > 0.5,
            f"{direct['parameters']:,} weights against {first:,} + {second:,} = {squeezing['parameters']:,} (saved: "
            f"{saved['parameters']:.0%}), {direct['flops'] / 1e6:.1f} million FLOPs against "
            f"{squeezing['flops'] / 1e6:.1f} (saved: {saved['flops']:.0%}); as one 3x3 convolution (to "
            f"{measured['joined_error']:.0e}) it has rank {ranks['bottleneck']} of {ranks['direct']}",
        )


def conv_3x3(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, bias=False)


def bottleneck(channels: int, squeezed: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, squeezed, 1, bias=False), nn.Conv2d(squeezed, channels, 3, padding=1, bias=False)
    )


def even_width(channels: int) -> float:
    """The width w at which the bottleneck costs as much: channels w + 9 w channels = 9 channels^2."""
    return 0.9 * channels


def cost(network: nn.Module, channels: int, side: int) -> dict[str, int]:
    """Parameters, and FLOPs of one image (a multiply-add counts as 2)."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, channels, side, side))
    return {"parameters": sum(p.numel() for p in network.parameters()), "flops": counter.get_total_flops()}


def joint_kernel(network: nn.Sequential) -> Tensor:
    """The one kernel [out, in, 3, 3] that a 1x1 and a 3x3 convolution multiply out to."""
    first, second = (layer.weight for layer in network if isinstance(layer, nn.Conv2d))
    return torch.einsum("omhw,mi->oihw", second, first[:, :, 0, 0])


def joined_error(network: nn.Sequential, channels: int) -> float:
    """The largest difference between the network and its one kernel, over the largest output."""
    with torch.no_grad():
        network = network.double()
        x_BCHW = torch.randn(1, channels, 8, 8, dtype=torch.float64)
        output = network(x_BCHW)
        return float((F.conv2d(x_BCHW, joint_kernel(network), padding=1) - output).abs().max() / output.abs().max())


def rank(kernel: Tensor) -> int:
    """The rank of the map from the input's channels to the outputs at all nine offsets, [9 out, in]."""
    matrix = kernel.detach().double().permute(0, 2, 3, 1).flatten(0, 2)
    return int(torch.linalg.matrix_rank(matrix, rtol=1e-5))
