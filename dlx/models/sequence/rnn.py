"""RNN (Elman 1990): one state that each step rewrites, h' = f(W x + U h + b).

The gradient through t steps is a product of t matrices: it vanishes or explodes, so that it is clipped (Pascanu et al.
2013, arXiv:1211.5063), and what lies far back is hardly learned.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from dlx.config import checks
from dlx.models.sequence.recurrent import Recurrent, RNNCell
from dlx.tasks.sequence import AnySequences


class RNN(Recurrent):
    """activation: f. gain: the matrix between states begins as this times an orthogonal one. The other arguments are
    those of `Recurrent`."""

    def __init__(
        self,
        *,
        spec: AnySequences,
        hidden: int = 128,
        num_layers: int = 1,
        activation: Literal["tanh", "relu", "sigmoid"] = "tanh",
        gain: float = 1.0,
        embedding: int | None = None,
        dropout: float = 0.0,
        fused: bool | None = None,
        loss: str | None = None,
    ) -> None:
        checks.above(0, gain=gain)
        super().__init__(
            spec=spec, make_cell=partial(RNNCell, activation=activation, gain=gain), hidden=hidden,
            num_layers=num_layers, embedding=embedding, dropout=dropout, fused=fused, loss=loss,
        )  # fmt: skip
