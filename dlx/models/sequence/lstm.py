"""LSTM (Hochreiter, Schmidhuber 1997; forget gate by Gers et al. 2000): a cell state beside the output, gates on it.

The cell state is added to, and multiplied by the forget gate alone: where that is near 1, a gradient goes back through
any number of steps.
"""

from __future__ import annotations

from functools import partial

from dlx.models.sequence.recurrent import LSTMCell, Recurrent
from dlx.tasks.sequence import AnySequences


class LSTM(Recurrent):
    """forget_bias: where the bias of the forget gate begins. The other arguments are those of `Recurrent`."""

    def __init__(
        self,
        *,
        spec: AnySequences,
        hidden: int = 128,
        num_layers: int = 1,
        forget_bias: float = 1.0,
        embedding: int | None = None,
        dropout: float = 0.0,
        fused: bool | None = None,
        loss: str | None = None,
    ) -> None:
        super().__init__(
            spec=spec, make_cell=partial(LSTMCell, forget_bias=forget_bias), hidden=hidden, num_layers=num_layers,
            embedding=embedding, dropout=dropout, fused=fused, loss=loss,
        )  # fmt: skip
