"""What attention costs against the length of a sequence (Vaswani et al. 2017, table 1), beside an RNN.

Each of L steps reads each other: L² scores. Fused attention (Dao et al. 2022, arXiv:2205.14135) makes them block by
block and keeps none, so that its memory grows with L alone; its time does not.

Shapes: B batch (1), L steps, D width.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.claims.claim import Claim, Figure, Measured, Runs, Verdict
from dlx.claims.common import legend_beside
from dlx.config import Config
from dlx.config.checks import at_least, rising
from dlx.random import reseed

STYLE = {"written out": ("tab:red", "o-"), "fused": ("tab:purple", "s-"), "RNN": ("tab:blue", "^-")}


class AttentionCost(Claim):
    """lengths: L, rising; the exponents are those over the last three. width: D, one head. repeats: timed steps of
    each, after one that is not."""

    claim = "Time and memory of attention grow with the square of the length, an RNN's and fused attention's memory not"

    def __init__(
        self, *, lengths: tuple[int, ...] = (128, 256, 512, 1024, 2048, 4096), width: int = 64, repeats: int = 7
    ) -> None:
        rising(3, lengths=lengths)
        at_least(1, width=width, repeats=repeats)
        self.lengths, self.width, self.repeats = lengths, width, repeats

    def measure(self, base: Config, runs: Runs) -> Measured:
        reseed(base["seed"], "attention_cost")
        layers: dict[str, nn.Module] = {
            "written out": SelfAttention(self.width, written_out),
            "fused": SelfAttention(self.width, F.scaled_dot_product_attention),
            "RNN": Recurrence(self.width),
        }
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return {
                name: {
                    "seconds": [step_time(layer, length, self.width, self.repeats) for length in self.lengths],
                    "bytes": [kept_bytes(layer, length, self.width) for length in self.lengths],
                }
                for name, layer in layers.items()
            }
        finally:
            torch.set_num_threads(threads)

    def draw(self, measured: Measured, figure: Figure) -> None:
        panels = figure.subplots(1, 2)
        words = {
            "seconds": ("time of a step, one thread", "ms", 1e3),
            "bytes": ("memory: what backward needs of forward", "MB", 1e-6),
        }
        for axes, (key, (title, unit, factor)) in zip(panels, words.items(), strict=True):
            for name, found in measured.items():
                color, style = STYLE[name]
                label = name if name == "RNN" else f"attention, {name}"
                axes.plot(self.lengths, [factor * value for value in found[key]], style, color=color, label=label)
            top = factor * max(measured["written out"][key])
            for power, dashes in ((1, ":"), (2, "--")):
                guide = [top * (length / self.lengths[-1]) ** power for length in self.lengths]
                label = "as L²" if power == 2 else "as L"
                axes.plot(self.lengths, guide, dashes, color="0.6", linewidth=1, label=label)
            axes.set_xscale("log", base=2)
            axes.set(yscale="log", xlabel="length L", ylabel=unit, title=title)
            axes.set_xticks(self.lengths, [str(length) for length in self.lengths])
        legend_beside(panels[1])

    def verdict(self, measured: Measured) -> Verdict:
        """An exponent p of L^p above 1.5 is nearer the square, one below nearer to linear."""
        power = {
            name: {key: self._exponent(values) for key, values in found.items()} for name, found in measured.items()
        }
        written, fused, rnn = power["written out"], power["fused"], power["RNN"]
        held = (
            min(written["seconds"], written["bytes"]) > 1.5
            and max(rnn["seconds"], rnn["bytes"]) < 1.5
            and fused["bytes"] < 1.5
        )
        each = "; ".join(
            f"{name}: time L^{power[name]['seconds']:.2f} ({1e3 * found['seconds'][-1]:.3g} ms), "
            f"memory L^{power[name]['bytes']:.2f} ({found['bytes'][-1] / 1e6:.3g} MB)"
            for name, found in measured.items()
        )
        return Verdict(held, f"from L = {self.lengths[-3]} to {self.lengths[-1]}: {each}")

    def _exponent(self, values: list[float]) -> float:
        return math.log(values[-1] / values[-3]) / math.log(self.lengths[-1] / self.lengths[-3])


def written_out(q_BLD: Tensor, k_BLD: Tensor, v_BLD: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v, with the L x L weights in memory."""
    weights_BLL = (q_BLD @ k_BLD.transpose(1, 2) / math.sqrt(q_BLD.shape[-1])).softmax(-1)
    return weights_BLL @ v_BLD


class SelfAttention(nn.Module):
    """One head, as wide as the sequence. attend: q, k, v [B, L, D] to what is read [B, L, D]."""

    def __init__(self, width: int, attend: Callable[..., Tensor]) -> None:
        super().__init__()
        self.query, self.key, self.value, self.project = (nn.Linear(width, width) for _ in range(4))
        self.attend = attend

    def forward(self, x_BLD: Tensor) -> Tensor:
        # Fused kernels read heads [B, A, L, D]; given three axes PyTorch writes the softmax out.
        q, k, v = (layer(x_BLD).unsqueeze(1) for layer in (self.query, self.key, self.value))
        if self.attend is written_out:
            q, k, v = q[:, 0], k[:, 0], v[:, 0]
        return self.project(self.attend(q, k, v).reshape(x_BLD.shape))


class Recurrence(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.rnn = nn.RNN(width, width, batch_first=True)

    def forward(self, x_BLD: Tensor) -> Tensor:
        output_BLD: Tensor = self.rnn(x_BLD)[0]
        return output_BLD


def step_time(layer: nn.Module, length: int, width: int, repeats: int) -> float:
    """Median seconds of forward and backward."""
    x_BLD = torch.randn(1, length, width)
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        layer(x_BLD).square().mean().backward()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def kept_bytes(layer: nn.Module, length: int, width: int) -> int:
    """Bytes that the forward pass keeps for the backward pass, but for the weights; a storage counts once."""
    own = {parameter.untyped_storage().data_ptr() for parameter in layer.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = layer(torch.randn(1, length, width))
    del output  # `kept` holds what it kept
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
