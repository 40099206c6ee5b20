"""Masked convolutions (van den Oord et al. 2016, arXiv:1601.06759, 3.4): a pixel's features see the pixels before it.

The order is the raster's, and within a pixel R, G, B. The features of a pixel are split into as many groups as there
are colours; at its own pixel a group sees the groups before it (mask A), or also itself (mask B).
Each layer has, beside `forward` over whole maps, `at`: its output at one pixel, from what a `Cache` has of the pixels
before. A sampler needs no more, and it costs one pixel.
Shapes: B batch, C channels, H height, W width, F features, D = H W C dimensions, K levels.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.tasks.density import Autoregressive
from dlx.tasks.spec import Images

T = TypeVar("T")


class Cache:
    """What the layers keep while images are drawn: what is made once, by layer and name."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.made: dict[Hashable, Any] = {}

    def once(self, layer: nn.Module, name: str, make: Callable[[], T]) -> T:
        if (layer, name) not in self.made:
            self.made[layer, name] = make()
        return self.made[layer, name]

    def map(self, layer: nn.Module, name: str, like: Tensor, features: int) -> Tensor:
        """A map of 0 at first, [B, features, H, W], into which the layer writes."""
        return self.once(layer, name, lambda: like.new_zeros(len(like), features, self.height, self.width))


class PixelLayer(nn.Module):
    """Base of the layers that see more than one pixel."""

    def at(self, x_BC: Tensor, row: int, column: int, cache: Cache) -> Tensor:
        """`forward` at one pixel, [B, F], whose input is x; those of the pixels before it were given before."""
        raise NotImplementedError(f"{type(self).__name__} defines no at")


def groups(features: int, colours: int, copies: int = 1) -> Tensor:
    """The group of each feature, int64 [features]: `copies` times (for gates) the groups of the colours in turn."""
    one = features // copies
    return (torch.arange(one) * colours // one).repeat(copies)


class MaskedConv(PixelLayer, nn.Conv2d):
    """A convolution that keeps the map's size; its mask multiplies the weight in each forward, so that no update, no
    average of weights and no copy of them can undo it.

    kind: B, or A of the first layer, which does not see the pixel itself. copies: how often the groups are repeated
    within the outputs, for gates. rows: sees whole rows, those above, with B also the pixel's own (the vertical
    stack of a gated PixelCNN): what it sees at its own row must come from rows above.
    """

    mask: Tensor

    def __init__(
        self, in_features: int, out_features: int, kernel: int | tuple[int, int] = 1, kind: Literal["A", "B"] = "B",
        *, colours: int, copies: int = 1, rows: bool = False,
    ) -> None:  # fmt: skip
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        self.top, self.side = height // 2, width // 2
        super().__init__(in_features, out_features, (height, width), padding=(self.top, self.side))
        mask_FCHW = torch.zeros_like(self.weight)
        mask_FCHW[:, :, : self.top] = 1
        if rows:
            mask_FCHW[:, :, self.top] = float(kind == "B")
        else:
            mask_FCHW[:, :, self.top, : self.side] = 1
            out_F1, in_1C = groups(out_features, colours, copies).unsqueeze(1), groups(in_features, colours)
            mask_FCHW[:, :, self.top, self.side] = (in_1C < out_F1 if kind == "A" else in_1C <= out_F1).float()
        self.register_buffer("mask", mask_FCHW, persistent=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self._conv_forward(x_BCHW, self.weight * self.mask, self.bias)

    def seen_weight(self) -> Tensor:
        """The rows of the masked weight that may be other than 0."""
        return (self.weight * self.mask)[:, :, : self.top + 1]

    def look(self, x_BCHW: Tensor, row: int, column: int, cache: Cache) -> Tensor:
        """`forward` at one pixel, [B, F]; of the map, what is not before the pixel may be anything."""
        weight = cache.once(self, "flat weight", lambda: self.seen_weight().flatten(1))
        left, right = max(0, self.side - column), max(0, column + self.side + 1 - cache.width)
        above = max(0, self.top - row)
        window = x_BCHW[..., row - self.top + above : row + 1, column - self.side + left : column + self.side + 1]
        if left or right or above:
            window = F.pad(window, (left, right, above, 0))
        return F.linear(window.flatten(1), weight, self.bias)

    def at(self, x_BC: Tensor, row: int, column: int, cache: Cache) -> Tensor:
        if not self.top and not self.side:
            return F.linear(x_BC, cache.once(self, "flat weight", lambda: self.seen_weight().flatten(1)), self.bias)
        x_BCHW = cache.map(self, "input", x_BC, self.in_channels)
        x_BCHW[..., row, column] = x_BC
        return self.look(x_BCHW, row, column, cache)

    def row(self, x_BCHW: Tensor, row: int, cache: Cache) -> Tensor:
        """`forward` of a layer that sees whole rows, at one row, [B, F, 1, W]."""
        weight = cache.once(self, "weight", self.seen_weight)
        above = max(0, self.top - row)
        window = F.pad(x_BCHW[:, :, row - self.top + above : row + 1], (0, 0, above, 0))
        return F.conv2d(window, weight, self.bias, padding=(0, self.side))


class Stack(PixelLayer, nn.Sequential):
    """Layers after each other; those that are no `PixelLayer` act on each pixel alone. residual: adds its input."""

    def __init__(self, *layers: nn.Module, residual: bool = False) -> None:
        super().__init__(*layers)
        self.residual = residual

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = super().forward(x_BCHW)
        return x_BCHW + y_BCHW if self.residual else y_BCHW

    def at(self, x_BC: Tensor, row: int, column: int, cache: Cache) -> Tensor:
        y_BC = x_BC
        for layer in self:
            y_BC = layer.at(y_BC, row, column, cache) if isinstance(layer, PixelLayer) else layer(y_BC)
        return x_BC + y_BC if self.residual else y_BC


def head(features: int, width: int, outputs: int, colours: int) -> Stack:
    """Two layers of ReLU and a 1x1 convolution, the second one's outputs the logits of each colour."""
    first = MaskedConv(features, width, colours=colours)
    return Stack(nn.ReLU(), first, nn.ReLU(), MaskedConv(width, colours * outputs, colours=colours))


class MaskedPixels(Autoregressive):
    """Base of networks of masked layers. A subclass defines `maps`, and `maps_at`, the same at one pixel."""

    beyond = 0
    """Columns that the maps within have beside those of the image."""

    def __init__(
        self, *, spec: Images, hidden: int, depth: int, kernel: int, first_kernel: int, head_width: int
    ) -> None:
        super().__init__(spec=spec)
        self.colours = self.input.channels
        checks.at_least(1, depth=depth, kernel=kernel)
        checks.at_least(3, first_kernel=first_kernel)
        for name, size in (("kernel", kernel), ("first_kernel", first_kernel)):
            if size % 2 == 0:
                raise ValueError(f"{name} must be odd, so that it has a center, got {size}")
        checks.at_least(self.colours, hidden=hidden, head_width=head_width)

    def maps(self, x_BCHW: Tensor) -> Tensor:
        """Logits as maps, [B, C (1 or K), H, W], of images in [-1, 1]: what lies beyond the border is 0, no level."""
        raise NotImplementedError(f"{type(self).__name__} defines no maps")

    def maps_at(self, x_BCHW: Tensor, row: int, column: int, cache: Cache) -> Tensor:
        """`maps` at one pixel, [B, C (1 or K)]."""
        raise NotImplementedError(f"{type(self).__name__} defines no maps_at")

    def logits(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.maps(2 * x_BCHW - 1)
        return y_BCHW.unflatten(1, (self.colours, self.outputs)).permute(0, 3, 4, 1, 2).flatten(1, 3)

    def next_logits(self, x_BCHW: Tensor, step: int, cache: dict[str, Any]) -> Tensor:
        pixel, colour = divmod(step, self.colours)
        row, column = divmod(pixel, self.input.width)
        layers = cache.setdefault("layers", Cache(self.input.height, self.input.width + self.beyond))
        y_BC = self.maps_at(2 * x_BCHW - 1, row, column, layers)
        return y_BC.unflatten(1, (self.colours, self.outputs))[:, colour]
