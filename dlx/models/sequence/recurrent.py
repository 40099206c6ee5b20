"""Recurrent networks: the cells gate by gate, the fused kernels of torch with the same weights, and their stack.

A cell's weights lie in torch.nn's own layer (cuDNN wants them in one piece of memory), the gates one below the other in
weight_ih [G H, D] and weight_hh [G H, H]. `step` is the cell as it is taught; fused, the layer runs as one call of
cuDNN or ATen, and gives the same to rounding.
Shapes: B batch, L steps, D inputs, H hidden units, G gates.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.models.sequence.steps import Steps
from dlx.tasks.generation import Cache
from dlx.tasks.sequence import AnySequences, SequenceModel

State = dict[str, Tensor]
"""What a cell carries from step to step, by name, each [B, H]; `h` is also its output."""


class Cell(nn.Module):
    """Base of all cells. torch_kind: the layer of torch.nn that holds the weights. states: names of what it carries."""

    torch_kind: ClassVar[Any]
    states: ClassVar[tuple[str, ...]] = ("h",)
    can_fuse: bool = True

    def __init__(self, in_features: int, width: int) -> None:
        super().__init__()
        self.weights: Any = self.torch_kind(in_features, width, batch_first=True)
        self.width = width

    def start(self, x_BLD: Tensor) -> State:
        """The state before the first step: zeros."""
        return {name: x_BLD.new_zeros(x_BLD.shape[0], self.width) for name in self.states}

    def step(self, a_BG: Tensor, state: State) -> State:
        """One step. a_BG: the input's part of all gates, W x + b, [B, G H]."""
        raise NotImplementedError(f"{type(self).__name__} defines no step")

    @property
    def parts(self) -> list[Tensor]:
        """W [G H, D], U [G H, H], b and c [G H]: by name, since the layer's own list does not follow weights that are
        exchanged (torch.func.functional_call)."""
        layer = self.weights
        return [layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0]

    def recur(self, h_BH: Tensor) -> Tensor:
        """The former state's part of all gates, U h + c, [B, G H]."""
        _, U, _, c = self.parts
        return F.linear(h_BH, U, c)

    def forward(self, x_BLD: Tensor, state: State) -> tuple[Tensor, State]:
        """The outputs [B, L, H] and the state after the last step, one step after another."""
        W, _, b, _ = self.parts
        a_BLG = F.linear(x_BLD, W, b)  # waits for no step
        outputs = []
        for a_BG in a_BLG.unbind(1):
            state = self.step(a_BG, state)
            outputs.append(state["h"])
        return torch.stack(outputs, 1), state

    def fused(self, x_BLD: Tensor, state: State) -> tuple[Tensor, State]:
        """The same as `forward` by one call."""
        before = tuple(state[name].unsqueeze(0) for name in self.states)  # torch puts the layer first
        h_BLH, *after = self.kernel(x_BLD, before, self.parts)
        return h_BLH, {name: value[0] for name, value in zip(self.states, after, strict=True)}

    def kernel(self, x: Tensor, before: tuple[Tensor, ...], weights: list[Tensor]) -> tuple[Tensor, ...]:
        raise NotImplementedError(f"{type(self).__name__} has no kernel")


class RNNCell(Cell):
    """h' = f(W x + b + U h + c), f tanh, relu or sigmoid (Elman 1990). U begins as `gain` times an orthogonal matrix,
    which keeps the length of h. torch has no kernel for the sigmoid."""

    torch_kind = nn.RNN

    def __init__(self, in_features: int, width: int, activation: str = "tanh", gain: float = 1.0) -> None:
        checks.one_of(("tanh", "relu", "sigmoid"), activation=activation)
        super().__init__(in_features, width)
        self.activation = activation
        self.can_fuse = activation != "sigmoid"
        nn.init.orthogonal_(self.parts[1], gain)

    def step(self, a_BG: Tensor, state: State) -> State:
        return {"h": getattr(torch, self.activation)(a_BG + self.recur(state["h"]))}

    def kernel(self, x: Tensor, before: tuple[Tensor, ...], weights: list[Tensor]) -> tuple[Tensor, ...]:
        kernel = torch.rnn_tanh if self.activation == "tanh" else torch.rnn_relu
        return kernel(x, before[0], weights, True, 1, 0.0, self.training, False, True)


class LSTMCell(Cell):
    """Input gate i, forget gate f, candidate g, output gate o (Hochreiter, Schmidhuber 1997; Gers et al. 2000):

    i, f, o = sigmoid(..), g = tanh(..); c' = f c + i g; h' = o tanh(c'). The forget gate's bias begins at
    `forget_bias`, so that c is kept at first (Jozefowicz et al. 2015).
    """

    torch_kind = nn.LSTM
    states = ("h", "c")

    def __init__(self, in_features: int, width: int, forget_bias: float = 1.0) -> None:
        super().__init__(in_features, width)
        with torch.no_grad():  # of its two biases, one
            for bias, value in zip(self.parts[2:], (forget_bias, 0.0), strict=True):
                bias[width : 2 * width] = value

    def step(self, a_BG: Tensor, state: State) -> State:
        i, f, g, o = (a_BG + self.recur(state["h"])).chunk(4, -1)
        c = f.sigmoid() * state["c"] + i.sigmoid() * g.tanh()
        return {"h": o.sigmoid() * c.tanh(), "c": c}

    def kernel(self, x: Tensor, before: tuple[Tensor, ...], weights: list[Tensor]) -> tuple[Tensor, ...]:
        return torch.lstm(x, before, weights, True, 1, 0.0, self.training, False, True)


class GRUCell(Cell):
    """Reset gate r, update gate z, candidate n (Cho et al. 2014, arXiv:1406.1078), in two forms.

    reset_after=False, the lecture's: n = tanh(W x + b + U (r h) + c), h' = (1 - z) h + z n.
    reset_after=True, nn.GRU's and cuDNN's: n = tanh(W x + b + r (U h + c)), h' = (1 - z) n + z h; z means the opposite.
    keep_bias: where the bias of the gate begins that keeps h; 0: wherever torch lets it begin.
    """

    torch_kind = nn.GRU

    def __init__(self, in_features: int, width: int, reset_after: bool = False, keep_bias: float = 0.0) -> None:
        super().__init__(in_features, width)
        self.reset_after = self.can_fuse = reset_after
        if keep_bias:
            with torch.no_grad():
                for bias, value in zip(self.parts[2:], (keep_bias if reset_after else -keep_bias, 0.0), strict=True):
                    bias[width : 2 * width] = value

    def step(self, a_BG: Tensor, state: State) -> State:
        h, H = state["h"], self.width
        if self.reset_after:
            (a_r, a_z, a_n), (u_r, u_z, u_n) = a_BG.chunk(3, -1), self.recur(h).chunk(3, -1)
            r, z = (a_r + u_r).sigmoid(), (a_z + u_z).sigmoid()
            n = (a_n + r * u_n).tanh()
            return {"h": (1 - z) * n + z * h}
        _, U, _, c = self.parts
        r, z = (a_BG[:, : 2 * H] + F.linear(h, U[: 2 * H], c[: 2 * H])).sigmoid().chunk(2, -1)
        n = (a_BG[:, 2 * H :] + F.linear(r * h, U[2 * H :], c[2 * H :])).tanh()
        return {"h": (1 - z) * h + z * n}

    def kernel(self, x: Tensor, before: tuple[Tensor, ...], weights: list[Tensor]) -> tuple[Tensor, ...]:
        return torch.gru(x, before[0], weights, True, 1, 0.0, self.training, False, True)


class Recurrent(SequenceModel):
    """Base of rnn, lstm and gru: a stack of cells over the steps, and the head.

    make_cell: (inputs, width) -> a cell. hidden: units of each layer. embedding: width of the tokens' vectors (null: as
    `hidden`), or of a linear map of the other inputs (null: none). dropout: rate between layers and before the head.
    fused: one call for each layer instead of one for each step; null: where torch has one for this cell.
    """

    def __init__(
        self,
        *,
        spec: AnySequences,
        make_cell: Callable[[int, int], Cell],
        hidden: int,
        num_layers: int,
        embedding: int | None,
        dropout: float,
        fused: bool | None,
        loss: str | None,
    ) -> None:
        super().__init__(spec=spec, loss=loss)
        checks.at_least(1, hidden=hidden, num_layers=num_layers)
        checks.between("[0, 1)", dropout=dropout)
        self.steps = Steps(self.input, embedding, default=hidden)
        widths = [self.steps.width, *[hidden] * num_layers]
        self.cells: Any = nn.ModuleList(make_cell(*pair) for pair in pairwise(widths))
        can_fuse = all(cell.can_fuse for cell in self.cells)
        if fused and not can_fuse:
            raise ValueError("fused must be false or null: torch has no kernel for this form of the cell")
        self.fused = can_fuse if fused is None else fused
        self.dropout = nn.Dropout(dropout)
        self.out = self.make_head(hidden)

    def features(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        h_BLH = self.steps(x)
        for number, cell in enumerate(self.cells):
            names = {name: f"{name}.{number}" for name in cell.states}
            if cache and names["h"] in cache:
                state = {name: cache[key] for name, key in names.items()}
            else:
                state = cell.start(h_BLH)
            h_BLH, state = cell.fused(h_BLH, state) if self.fused else cell(h_BLH, state)
            if cache is not None:
                cache.update({key: state[name] for name, key in names.items()})
            h_BLH = self.dropout(h_BLH)
        return h_BLH
