"""PixelRNN (van den Oord et al. 2016, arXiv:1601.06759): LSTMs that run over an image, a row or a diagonal at a time.

The Row LSTM's state comes from the row above through a convolution, so that a pixel sees a triangle. The Diagonal
BiLSTM runs from both upper corners, each state coming from the pixel beside and the one above: together they see all of
the past. A map is skewed, each row shifted by one more than the row above, so that a diagonal becomes a column, and one
product serves all of it. The states that come from the right are shifted down a row, or they would see what is to come.
They begin in a column beyond the image: with mask A no other feature of a row has seen its last pixel.
Shapes: B batch, C channels, H height, W width, S = H + W - 1 skewed columns, N = 2 directions, F features, G features
of the four gates.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.models.generative.masked import Cache, MaskedConv, MaskedPixels, PixelLayer, Stack, head
from dlx.tasks.spec import Images


def lstm(gates: Tensor, cell: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The state and the cell from the sums of the gates o, f, i, g (equation 3) along a dimension."""
    o, f, i, g = gates.chunk(4, dim)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def skew(x: Tensor) -> Tensor:
    """[..., H, W, F] to [..., H, S, F]: row r begins at column r, the rest is 0."""
    height, width = x.shape[-3:-1]
    flat = F.pad(x, (0, 0, 0, height)).flatten(-3, -2)  # rows of one more than S: each begins one column later
    return flat[..., :-height, :].unflatten(-2, (height, height + width - 1))


def unskew(x: Tensor) -> Tensor:
    """The inverse of `skew`."""
    height, width = x.shape[-3], x.shape[-2] + 1 - x.shape[-3]
    flat = F.pad(x.flatten(-3, -2), (0, 0, 0, height))
    return flat.unflatten(-2, (height, height + width))[..., :width, :]


class RowLSTM(PixelLayer):
    """2h to h features. Input-to-state: a masked convolution along the row, of the whole map at once; state-to-state: a
    convolution of the row above, whose mask would be all 1."""

    def __init__(self, hidden: int, kernel: int, *, colours: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.input = MaskedConv(2 * hidden, 4 * hidden, (1, kernel), colours=colours, copies=4)
        self.state = nn.Conv1d(hidden, 4 * hidden, kernel, padding=kernel // 2, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        state_BFW = cell_BFW = x_BCHW.new_zeros(len(x_BCHW), self.hidden, x_BCHW.shape[-1])
        rows = []
        for gates_BGW in self.input(x_BCHW).unbind(2):
            state_BFW, cell_BFW = lstm(gates_BGW + self.state(state_BFW), cell_BFW, 1)
            rows.append(state_BFW)
        return torch.stack(rows, 2)

    def at(self, x_BC: Tensor, row: int, column: int, cache: Cache) -> Tensor:
        """`forward` at one pixel; what the row above gives to the gates is computed when a row starts."""
        state_BFHW, cell_BFHW = (cache.map(self, name, x_BC, self.hidden) for name in ("state", "cell"))
        above_BGHW = cache.map(self, "above", x_BC, 4 * self.hidden)
        if column == 0 and row > 0:
            above_BGHW[:, :, row] = self.state(state_BFHW[:, :, row - 1])
        gates_BG = self.input.at(x_BC, row, column, cache) + above_BGHW[:, :, row, column]
        before_BF = cell_BFHW[:, :, row - 1, column] if row else torch.zeros_like(gates_BG[:, : self.hidden])
        state_BF, cell_BFHW[:, :, row, column] = lstm(gates_BG, before_BF, 1)
        state_BFHW[:, :, row, column] = state_BF
        return state_BF


class DiagonalBiLSTM(PixelLayer):
    """2h to h features, the sum of both directions. Input-to-state: a masked 1x1 convolution; state-to-state: a product
    with the states of the pixel beside and the one above. Its biases lie before the skew, so that states beyond the
    border stay 0."""

    def __init__(self, hidden: int, *, colours: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.from_left = MaskedConv(2 * hidden, 4 * hidden, colours=colours, copies=4)
        self.from_right = MaskedConv(2 * hidden, 4 * hidden, colours=colours, copies=4)
        self.state = nn.Parameter(torch.empty(2, 2 * hidden, 4 * hidden))
        nn.init.uniform_(self.state, -((2 * hidden) ** -0.5), (2 * hidden) ** -0.5)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        B, _, H, _ = x_BCHW.shape
        gates_NBHWG = torch.stack([self.from_left(x_BCHW), self.from_right(x_BCHW).flip(-1)]).movedim(2, -1)
        state_NBHF = cell_NBHF = x_BCHW.new_zeros(2, B, H, self.hidden)
        columns = []
        for gates_NBHG in skew(gates_NBHWG).unbind(3):
            both = torch.cat([state_NBHF, F.pad(state_NBHF, (0, 0, 1, -1))], -1)  # beside, above
            gates = torch.baddbmm(gates_NBHG.flatten(1, 2), both.flatten(1, 2), self.state).view_as(gates_NBHG)
            state_NBHF, cell_NBHF = lstm(gates, cell_NBHF, -1)
            columns.append(state_NBHF)
        left_BHWF, right_BHWF = unskew(torch.stack(columns, 3))
        return (left_BHWF + F.pad(right_BHWF.flip(2), (0, 0, 0, 0, 1, -1))).movedim(-1, 1)

    def at(self, x_BC: Tensor, row: int, column: int, cache: Cache) -> Tensor:
        """`forward` at one pixel; the states from the right of the row above are computed when a row starts."""
        x_BCHW = cache.map(self, "input", x_BC, 2 * self.hidden)
        if column == 0 and row > 0:
            for place in reversed(range(cache.width)):
                self._step(1, x_BCHW[..., row - 1, place], row - 1, place, place + 1, cache)
        x_BCHW[..., row, column] = x_BC
        state_BF = self._step(0, x_BC, row, column, column - 1, cache)
        if row == 0:
            return state_BF
        return state_BF + cache.map(self, "state 1", x_BC, self.hidden)[..., row - 1, column]

    def _step(self, direction: int, x_BC: Tensor, row: int, column: int, beside: int, cache: Cache) -> Tensor:
        """A step of one direction at a pixel, whose state goes into the map of that direction."""
        state_BFHW, cell_BFHW = (
            cache.map(self, f"{name} {direction}", x_BC, self.hidden) for name in ("state", "cell")
        )
        zero_BF = x_BC.new_zeros(len(x_BC), self.hidden)
        is_inside = 0 <= beside < cache.width
        beside_BF = state_BFHW[..., row, beside] if is_inside else zero_BF
        above_BF = state_BFHW[..., row - 1, column] if row else zero_BF
        gates_BG = (self.from_left, self.from_right)[direction].at(x_BC, row, column, cache)
        gates_BG = torch.addmm(gates_BG, torch.cat([beside_BF, above_BF], 1), self.state[direction])
        state_BF, cell_BF = lstm(gates_BG, cell_BFHW[..., row, beside] if is_inside else zero_BF, 1)
        state_BFHW[..., row, column], cell_BFHW[..., row, column] = state_BF, cell_BF
        return state_BF


class PixelRNN(MaskedPixels):
    """layer: row or diagonal. hidden: h, the units of a direction; the maps between have 2h features. depth: layers.
    kernel: of the row's convolutions (the diagonal has none); first_kernel: of the first layer. head_width: features
    between the last two layers. The defaults are those for CIFAR-10 (table 1)."""

    def __init__(
        self,
        *,
        spec: Images,
        layer: Literal["row", "diagonal"] = "row",
        hidden: int = 128,
        depth: int = 12,
        kernel: int = 3,
        first_kernel: int = 7,
        head_width: int = 1024,
    ) -> None:
        super().__init__(
            spec=spec, hidden=hidden, depth=depth, kernel=kernel, first_kernel=first_kernel, head_width=head_width
        )
        checks.one_of(("row", "diagonal"), layer=layer)
        colours, self.beyond = self.colours, int(layer == "diagonal")
        self.first = MaskedConv(colours, 2 * hidden, first_kernel, "A", colours=colours)
        blocks = []
        for _ in range(depth):
            recurrent: PixelLayer = (
                RowLSTM(hidden, kernel, colours=colours) if layer == "row" else DiagonalBiLSTM(hidden, colours=colours)
            )
            blocks.append(Stack(recurrent, MaskedConv(hidden, 2 * hidden, colours=colours), residual=True))
        self.blocks = Stack(*blocks)
        self.head = head(2 * hidden, head_width, self.outputs, colours)

    def maps(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.head(self.blocks(self.first(self._widened(x_BCHW))))
        return y_BCHW[..., : x_BCHW.shape[-1]]

    def maps_at(self, x_BCHW: Tensor, row: int, column: int, cache: Cache) -> Tensor:
        x_BCHW = self._widened(x_BCHW)
        if column == 0 and row > 0 and self.beyond:
            self._at(x_BCHW, row - 1, cache.width - 1, cache)  # the row above is complete
        return self._at(x_BCHW, row, column, cache)

    def _at(self, x_BCHW: Tensor, *where: Any) -> Tensor:
        return self.head.at(self.blocks.at(self.first.look(x_BCHW, *where), *where), *where)

    def _widened(self, x_BCHW: Tensor) -> Tensor:
        return F.pad(x_BCHW, (0, self.beyond))
