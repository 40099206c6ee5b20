"""Latent autoregressive model: a state that sums up the past, h_t = g(h_{t-1}, x_{t-1}), and P(x_t | h_t).

Where AR-n forgets what lies before its window, h can carry it on. Here g is an MLP (Pascanu et al. 2014,
arXiv:1312.6026, a deep transition): a recurrent network with a layer between two states.
Shapes: B batch, L steps, E width of a step, H state.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlx.config import checks
from dlx.models.sequence.steps import Steps
from dlx.tasks.generation import Cache
from dlx.tasks.sequence import SequenceModel
from dlx.tasks.spec import Series, Streams

EMBEDDING = 32


class LatentAutoregressive(SequenceModel):
    """state: width of h. between: width of g's hidden layer (null: as `state`). embedding: width of a token's vector
    (null: 32), or of a linear map of real values (null: none)."""

    def __init__(
        self,
        *,
        spec: Series | Streams,
        state: int = 128,
        between: int | None = None,
        embedding: int | None = None,
        loss: str | None = None,
    ) -> None:
        super().__init__(spec=spec, loss=loss)
        checks.at_least(1, state=state, between=between)
        self.steps = Steps(self.input, embedding, default=EMBEDDING)
        self.width, between = state, between or state
        self.from_step = nn.Linear(self.steps.width, between)
        self.from_state = nn.Linear(state, between, bias=False)
        self.to_state = nn.Linear(between, state)
        nn.init.orthogonal_(self.from_state.weight)
        nn.init.orthogonal_(self.to_state.weight)
        self.out = self.make_head(state)

    def transition(self, h_BH: Tensor, a_BH: Tensor) -> Tensor:
        """g. a_BH: the step's part of its hidden layer."""
        next_BH: Tensor = self.to_state((a_BH + self.from_state(h_BH)).tanh()).tanh()
        return next_BH

    def features(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """The state after each step, [B, L, H]: that before the next."""
        a_BLH = self.from_step(self.steps(x))
        h_BH = cache["h"] if cache and "h" in cache else a_BLH.new_zeros(x.shape[0], self.width)
        states = []
        for a_BH in a_BLH.unbind(1):
            h_BH = self.transition(h_BH, a_BH)
            states.append(h_BH)
        if cache is not None:
            cache["h"] = h_BH
        return torch.stack(states, 1)
