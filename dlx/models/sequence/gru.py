"""GRU (Cho et al. 2014, arXiv:1406.1078): one state, an update gate that keeps or replaces it, a reset gate.

Two forms are in use, and differ: the paper's, with the reset gate on the state, and cuDNN's and nn.GRU's, with the
reset gate on the product of the state and its weights, which has a fused kernel.
"""

from __future__ import annotations

from functools import partial

from dlx.models.sequence.recurrent import GRUCell, Recurrent
from dlx.tasks.sequence import AnySequences


class GRU(Recurrent):
    """reset_after: false for the paper's form, true for nn.GRU's. keep_bias: where the bias of the gate begins that
    keeps the state; 0: as torch draws it. The other arguments are those of `Recurrent`."""

    def __init__(
        self,
        *,
        spec: AnySequences,
        hidden: int = 128,
        num_layers: int = 1,
        reset_after: bool = False,
        keep_bias: float = 0.0,
        embedding: int | None = None,
        dropout: float = 0.0,
        fused: bool | None = None,
        loss: str | None = None,
    ) -> None:
        super().__init__(
            spec=spec, make_cell=partial(GRUCell, reset_after=reset_after, keep_bias=keep_bias), hidden=hidden,
            num_layers=num_layers, embedding=embedding, dropout=dropout, fused=fused, loss=loss,
        )  # fmt: skip
