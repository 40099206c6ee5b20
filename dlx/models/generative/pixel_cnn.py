"""PixelCNN (van den Oord et al. 2016, arXiv:1601.06759): residual blocks of masked convolutions over the whole image.

All conditionals of a training image come from one forward; drawing goes pixel by pixel. A stack of masked convolutions
does not see all of the past: what lies above and to the right of each kernel's row stays hidden, the blind spot.
`gated` is the one without (1606.05328): a vertical stack sees the rows above, a horizontal one the row so far, and each
feature is a tanh times a sigmoid.
Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from dlx.models.generative.masked import Cache, MaskedConv, MaskedPixels, Stack, head
from dlx.tasks.spec import Images


class GatedLayer(nn.Module):
    """One layer of both stacks: (v, h) to (v, h). first: reads the image, with mask A and no residual connection."""

    def __init__(self, inputs: int, hidden: int, kernel: int, *, colours: int, first: bool = False) -> None:
        super().__init__()
        self.hidden, self.first = hidden, first
        kind: Literal["A", "B"] = "A" if first else "B"
        self.vertical = MaskedConv(inputs, 2 * hidden, kernel, kind, colours=colours, copies=2, rows=True)
        self.horizontal = MaskedConv(inputs, 2 * hidden, (1, kernel), kind, colours=colours, copies=2)
        self.across = nn.Conv2d(2 * hidden, 2 * hidden, 1)  # v is of rows above alone: each colour may see all of it
        self.out = MaskedConv(hidden, hidden, colours=colours)

    def forward(self, v_BCHW: Tensor, h_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        gates_BCHW = self.vertical(v_BCHW)
        out_BCHW = self.out(gate(self.horizontal(h_BCHW) + self.across(gates_BCHW)))
        return gate(gates_BCHW), out_BCHW if self.first else h_BCHW + out_BCHW

    def at(self, v_BCHW: Tensor, h_BC: Tensor, row: int, column: int, cache: Cache) -> tuple[Tensor, Tensor]:
        """v as a map whose rows up to this one are made, a row at a time when it starts; h at this pixel."""
        above_BCHW = cache.map(self, "above", h_BC, 2 * self.hidden)
        made_BCHW = cache.map(self, "vertical", h_BC, self.hidden)
        if column == 0:
            gates_BCHW = self.vertical.row(v_BCHW, row, cache)
            above_BCHW[:, :, row : row + 1] = self.across(gates_BCHW)
            made_BCHW[:, :, row : row + 1] = gate(gates_BCHW)
        where = (row, column, cache)
        gates_BC = self.horizontal.look(v_BCHW, *where) if self.first else self.horizontal.at(h_BC, *where)
        out_BC = self.out.at(gate(gates_BC + above_BCHW[:, :, row, column]), *where)
        return made_BCHW, out_BC if self.first else h_BC + out_BC


class PixelCNN(MaskedPixels):
    """hidden: h, the features within a block (plain) or of a stack (gated). depth: blocks or layers after the first
    layer. kernel: of these; first_kernel: of the first layer. head_width: features between the last two layers. The
    defaults are those for CIFAR-10 (table 1)."""

    def __init__(
        self,
        *,
        spec: Images,
        hidden: int = 128,
        depth: int = 15,
        kernel: int = 3,
        first_kernel: int = 7,
        head_width: int = 1024,
        gated: bool = False,
    ) -> None:
        super().__init__(
            spec=spec, hidden=hidden, depth=depth, kernel=kernel, first_kernel=first_kernel, head_width=head_width
        )
        colours, features = self.colours, hidden if gated else 2 * hidden
        self.gated = gated
        if gated:
            sizes = [(colours, first_kernel), *[(hidden, kernel)] * depth]
            self.layers = nn.ModuleList(
                GatedLayer(inputs, hidden, size, colours=colours, first=number == 0)
                for number, (inputs, size) in enumerate(sizes)
            )
        else:
            self.first = MaskedConv(colours, features, first_kernel, "A", colours=colours)
            self.blocks = Stack(*(block(hidden, kernel, colours) for _ in range(depth)))
        self.head = head(features, head_width, self.outputs, colours)

    def maps(self, x_BCHW: Tensor) -> Tensor:
        if not self.gated:
            return self.head(self.blocks(self.first(x_BCHW)))
        v_BCHW = h_BCHW = x_BCHW
        for layer in self.layers:
            v_BCHW, h_BCHW = layer(v_BCHW, h_BCHW)
        return self.head(h_BCHW)

    def maps_at(self, x_BCHW: Tensor, row: int, column: int, cache: Cache) -> Tensor:
        where = (row, column, cache)
        if not self.gated:
            return self.head.at(self.blocks.at(self.first.look(x_BCHW, *where), *where), *where)
        v_BCHW, h_BC = x_BCHW, x_BCHW[..., row, column]
        for layer in self.layers:
            assert isinstance(layer, GatedLayer)
            v_BCHW, h_BC = layer.at(v_BCHW, h_BC, *where)
        return self.head.at(h_BC, *where)


def block(hidden: int, kernel: int, colours: int) -> Stack:
    """ReLU and 1x1 from 2h to h features, ReLU and the kernel, ReLU and 1x1 to 2h (figure 5), added to its input."""
    sizes = ((2 * hidden, hidden, 1), (hidden, hidden, kernel), (hidden, 2 * hidden, 1))
    layers = ((nn.ReLU(), MaskedConv(inputs, outputs, size, colours=colours)) for inputs, outputs, size in sizes)
    return Stack(*(layer for pair in layers for layer in pair), residual=True)


def gate(x: Tensor) -> Tensor:
    """tanh of the first half of the features times the sigmoid of the second."""
    value, gated = x.chunk(2, 1)
    return value.tanh() * gated.sigmoid()
