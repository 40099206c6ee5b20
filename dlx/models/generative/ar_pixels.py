"""AR-n of pixels: each by a logistic (or softmax) regression on the n values before it in the raster.

With all of those before it this is the fully visible sigmoid belief net (Neal 1992; Frey 1998): D (D - 1) / 2 weights
and D biases, 2,080 of 64 binary pixels, where a table of all images has 2^64 - 1 numbers.
Shapes: B batch, C channels, H height, W width, D dimensions, E pairs of a dimension and one before it, K outputs of
each dimension: 1 of binary images, else one for each level.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dlx.config import checks
from dlx.tasks.density import Autoregressive
from dlx.tasks.spec import Images

MOST = 2**27  # numbers of the matrix [D, D, K]: 512 MiB


class ARPixels(Autoregressive):
    """order: how many values before each it depends on; None: all. The channels of a pixel are values of their own, so
    that an order of 3 reaches back one pixel of a colour image."""

    row: Tensor
    column: Tensor

    def __init__(self, *, spec: Images, order: int | None = None) -> None:
        super().__init__(spec=spec)
        D, K = self.dimensions, self.outputs
        checks.at_least(1, order=order)
        if order is not None and order >= D:
            raise ValueError(f"order must be below {D}, the values of an image, or null for all of them, got {order}")
        if D * D * K > MOST:
            raise ValueError(f"spec must be of images with at most {MOST:,} weights, D^2 K, got {D * D * K:,}")
        self.window = D - 1 if order is None else order
        # Only what comes before has a weight at all. Made on the CPU: the meta device cannot find what is not zero.
        band_DD = torch.ones(D, D, dtype=torch.bool, device="cpu").tril(-1).triu(-self.window)
        for name, index_E in zip(("row", "column"), band_DD.nonzero().unbind(1), strict=True):
            self.register_buffer(name, index_E.to(self.order.device), persistent=False)
        self.weight = nn.Parameter(torch.zeros(len(self.row), K))  # row by row
        self.bias = nn.Parameter(torch.zeros(D, K))

    def logits(self, x_BCHW: Tensor) -> Tensor:
        D, K = self.bias.shape
        x_BD = x_BCHW.movedim(1, -1).flatten(1)
        matrix_DDK = self.weight.new_zeros(D, D, K).index_put((self.row, self.column), self.weight)
        return torch.einsum("bj,ijk->bik", x_BD, matrix_DDK) + self.bias

    def next_logits(self, x_BCHW: Tensor, step: int, cache: dict[str, Any]) -> Tensor:
        """A row of the matrix alone."""
        n = self.window
        count = min(step, n)
        first = step * (step - 1) // 2 if step <= n else n * (n - 1) // 2 + n * (step - n)
        x_BD = x_BCHW.movedim(1, -1).flatten(1)
        return x_BD[:, step - count : step] @ self.weight[first : first + count] + self.bias[step]
