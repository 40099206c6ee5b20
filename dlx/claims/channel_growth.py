"""How channels add up in a DenseNet (Huang et al. 2016, arXiv:1608.06993), and what its transitions take back."""

from __future__ import annotations

import torch
from torch import nn

from dlx.claims.claim import Claim, Figure, Measured, Runs, Verdict
from dlx.claims.common import legend_beside
from dlx.config import Config, build, compose
from dlx.tasks.summary import summarize


class ChannelGrowth(Claim):
    """depth: depth of the network. compression: share of the channels that a transition keeps."""

    claim = "Each dense layer adds `growth` channels, linearly with depth; transitions cut them back"
    size = (12.5, 4.2)
    varies = ("model.depth", "model.compression")
    reads = ("model", "dataset")

    def __init__(self, *, depth: int = 100, compression: float = 0.5) -> None:
        if not 0 < compression < 1:
            raise ValueError(f"compression must be in (0, 1), got {compression}")
        self.depth, self.compression = depth, compression

    def measure(self, base: Config, runs: Runs) -> Measured:
        found = {}
        for name, kept in {"without": 1.0, "with": self.compression}.items():
            config = compose([f"model.depth={self.depth}", f"model.compression={kept}"], base=base)
            with torch.device("meta"):
                system = build(config, "model", spec=build(config, "dataset").spec)
            summary = summarize(system)
            # The first normalization of a dense layer has as many channels as the layer sees.
            norms = [module for name, module in system.named_modules() if name.endswith("norm1")]
            found[name] = {
                "channels": [norm.num_features for norm in norms if isinstance(norm, nn.BatchNorm2d)],
                "parameters": summary.parameters,
                "flops": summary.flops,
                "last": next(m.in_features for m in system.modules() if isinstance(m, nn.Linear)),
            }
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
        channels, sizes = figure.subplots(1, 2, width_ratios=(2, 1))
        for name, found in measured.items():
            label = f"{name} compression ({self.compression:g})" if name == "with" else "without"
            channels.plot(range(1, len(found["channels"]) + 1), found["channels"], ".-", label=label)
        channels.set(xlabel="dense layer", ylabel="channels that it sees", title=f"DenseNet-{self.depth}")
        legend_beside(channels)
        names = list(measured)
        for offset, key in ((-0.2, "parameters"), (0.2, "flops")):
            relative = [measured[name][key] / measured["without"][key] for name in names]
            bars = sizes.bar([x + offset for x in range(len(names))], relative, 0.4, label=key)
            sizes.bar_label(bars, [f"{measured[name][key] / 1e6:.2f}M" for name in names], fontsize=8)
        sizes.set_xticks(range(len(names)), names)
        sizes.set(ylabel="relative to without", title="compression")
        legend_beside(sizes)

    def verdict(self, measured: Measured) -> Verdict:
        without, compressed = measured["without"], measured["with"]
        steps = {after - before for before, after in zip(without["channels"], without["channels"][1:], strict=False)}
        layers = len(without["channels"])
        growth = min(steps)
        # Without compression the blocks are one line: a transition keeps what there is.
        held = steps == {growth} and without["last"] == without["channels"][0] + layers * growth
        held = held and compressed["last"] < without["last"] and compressed["parameters"] < without["parameters"]
        return Verdict(
            held,
            f"{layers} layers add {growth} channels each: {without['channels'][0]} to {without['last']} uncompressed, "
            f"{compressed['last']} with; {without['parameters']:,} parameters against {compressed['parameters']:,}",
        )
