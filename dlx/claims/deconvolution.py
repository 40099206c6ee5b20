"""A transposed convolution ("deconvolution") inverts a convolution's shape and is its adjoint, not its inverse.

As a matrix a convolution is A, and the transposed one A^T: <A x, y> = <x, A^T y>. Where the stride does not divide the
kernel its outputs are sums of unlike numbers of terms: a checkerboard (Odena et al. 2016, doi:10.23915/distill.00003).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlx.claims.claim import Claim, Figure, Measured, Runs, Verdict
from dlx.config import Config
from dlx.config.checks import at_least
from dlx.random import generator

CHANNELS = (3, 5)  # into the convolutions that are compared, and out of them
SHOWN_KERNELS = (3, 4)  # at stride 2
STEPS = 12  # pixels of a side that go into a shown transposed convolution
SIGNAL = 9  # steps of the convolution that is written as a matrix


class Deconvolution(Claim):
    """kernels, strides: each kernel is tried with each stride that is not above it. side: of the images, in pixels."""

    claim = "The transposed convolution inverts the shape and is the adjoint, not the inverse of the values"
    size = (12, 7.4)

    def __init__(
        self,
        *,
        kernels: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8),
        strides: tuple[int, ...] = (1, 2, 3, 4),
        side: int = 24,
    ) -> None:
        at_least(1, kernels=min(kernels, default=0), strides=min(strides, default=0))
        at_least(max(kernels), side=side)
        if min(strides) > max(kernels):
            raise ValueError(f"strides must not all be above the largest kernel, {max(kernels)}, got {list(strides)}")
        self.kernels, self.strides, self.side = kernels, strides, side

    def measure(self, base: Config, runs: Runs) -> Measured:
        rng = generator(base["seed"], "deconvolution")
        found = []
        for kernel in self.kernels:
            for stride in self.strides:
                if stride > kernel:
                    continue  # some inputs would go nowhere
                weight = torch.randn(CHANNELS[1], CHANNELS[0], kernel, kernel, generator=rng, dtype=torch.float64)
                x = torch.randn(1, CHANNELS[0], self.side, self.side, generator=rng, dtype=torch.float64)
                down = convolved(x, weight, stride)
                y = torch.randn(down.shape, generator=rng, dtype=torch.float64)
                up = transposed(y, weight, stride, self.side)
                back = transposed(down, weight, stride, self.side)
                sums = [float((down * y).sum()), float((x * up).sum())]
                found.append(
                    {
                        "kernel": kernel,
                        "stride": stride,
                        "down": down.shape[-1],
                        "up": up.shape[-1],
                        "adjoint": abs(sums[0] - sums[1]) / float(down.norm() * y.norm()),
                        "inverse": distance(back, x),
                        "terms": terms(kernel, stride),
                    }
                )
        kernel_3 = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
        return {
            "pairs": found,
            "matrix": matrix(kernel_3, 2, SIGNAL).tolist(),
            "boards": {str(kernel): counts(kernel, 2, STEPS).tolist() for kernel in SHOWN_KERNELS},
        }

    def draw(self, measured: Measured, figure: Figure) -> None:
        from matplotlib.colors import LogNorm

        parts: Any = figure.subfigures(2, 1, height_ratios=[1, 1.1])
        top, bottom = parts
        matrix_A = torch.tensor(measured["matrix"])
        panels = top.subplots(1, 3, width_ratios=[SIGNAL, len(matrix_A), SIGNAL])
        words = {
            "$A$: kernel (1, 2, 3), stride 2": matrix_A,
            "transposed: $A^T$": matrix_A.T,
            "$A^T A$ is not the identity": matrix_A.T @ matrix_A,
        }
        for axes, (title, values) in zip(panels, words.items(), strict=True):
            axes.imshow(values.where(values != 0, torch.nan), cmap="Blues", vmin=-1, vmax=float(values.max()) * 1.4)
            for i, row in enumerate(values.tolist()):
                for j, value in enumerate(row):
                    axes.text(j, i, f"{value:g}", ha="center", va="center", fontsize=8, color="k" if value else "0.75")
            axes.set_title(title)
        boards = bottom.subplots(1, 3)
        for axes, (kernel, board) in zip(boards, measured["boards"].items(), strict=False):
            image = axes.imshow(board, cmap="viridis", vmin=0)
            axes.set_title(f"terms of each output: kernel {kernel}, stride 2")
            figure.colorbar(image, ax=axes, shrink=0.8, ticks=sorted({int(count) for row in board for count in row}))
        for axes in (*panels, *boards[:2]):
            axes.set(xticks=[], yticks=[])
        table = torch.full((len(self.strides), len(self.kernels)), torch.nan)
        for found in measured["pairs"]:
            place = self.strides.index(found["stride"]), self.kernels.index(found["kernel"])
            least, most = found["terms"]
            table[place] = most / least
            boards[2].text(place[1], place[0], f"{most / least:.3g}", ha="center", va="center")
        boards[2].imshow(table, cmap="OrRd", norm=LogNorm(1, max(16.0, float(table.nan_to_num().max()))), alpha=0.7)
        boards[2].set(title="most over fewest terms", xlabel="kernel", ylabel="stride")
        boards[2].set_xticks(range(len(self.kernels)), map(str, self.kernels))
        boards[2].set_yticks(range(len(self.strides)), map(str, self.strides))

    def verdict(self, measured: Measured) -> Verdict:
        """Of kernel 1 alone the transposed convolution could be the inverse."""
        pairs = measured["pairs"]
        shapes = all(found["up"] == self.side for found in pairs)
        adjoint, inverse = max(found["adjoint"] for found in pairs), min(found["inverse"] for found in pairs)
        even = [found["terms"][0] == found["terms"][1] for found in pairs]
        divided = [found["kernel"] % found["stride"] == 0 for found in pairs]
        uneven = sum(not one for one in even)
        return Verdict(
            shapes and adjoint < 1e-12 and inverse > 0.1 and even == divided,
            f"{len(pairs)} pairs of kernel and stride: {'each' if shapes else 'not each'} gives {self.side} pixels "
            f"back; <A x, y> and <x, A^T y> differ by {adjoint:.1g} of |A x| |y| at most; A^T A x, at its best "
            f"scale, is {inverse:.0%} of |x| or more away from x; {uneven} sum unlike numbers of terms, "
            f"{'those' if even == divided else 'not just those'} whose stride does not divide the kernel",
        )


def convolved(x_BCHW: Tensor, weight: Tensor, stride: int) -> Tensor:
    return F.conv2d(x_BCHW, weight, stride=stride)


def transposed(y_BCHW: Tensor, weight: Tensor, stride: int, side: int) -> Tensor:
    """The transposed convolution with the convolution's own weight. Inputs of several sizes give one output size;
    the rows that the stride left over say which it was (`output_padding`)."""
    left = (side - weight.shape[-1]) % stride
    return F.conv_transpose2d(y_BCHW, weight, stride=stride, output_padding=left)


def distance(back: Tensor, x: Tensor) -> float:
    """min over a of |a back - x| / |x|: a common factor is no error."""
    return float(((back * x).sum() / back.square().sum() * back - x).norm() / x.norm())


def counts(kernel: int, stride: int, steps: int) -> Tensor:
    """How many inputs each output of a transposed convolution sums, [H, W]."""
    return F.conv_transpose2d(torch.ones(1, 1, steps, steps), torch.ones(1, 1, kernel, kernel), stride=stride)[0, 0]


def terms(kernel: int, stride: int) -> list[int]:
    """The fewest and the most of them away from the border, where each kernel is whole."""
    inner = counts(kernel, stride, 2 * kernel + 1)[kernel:-kernel, kernel:-kernel]
    return [int(inner.min()), int(inner.max())]


def matrix(kernel_K: Tensor, stride: int, steps: int) -> Tensor:
    """The matrix of a convolution of a signal: its columns are what it makes of each unit vector."""
    unit = torch.eye(steps, dtype=kernel_K.dtype).unsqueeze(1)
    return F.conv1d(unit, kernel_K.view(1, 1, -1), stride=stride)[:, 0].T
