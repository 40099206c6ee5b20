"""Markov model of order n (Markov 1913; Shannon 1948): a table of the next token's probabilities for each n tokens.

By counts it is a closed form: p(v | context) = (count + smoothing) / (all counts + smoothing V). By gradient it is the
smallest network for the same, a table of logits, and goes to the counts without smoothing. What lies further back than
n tokens it cannot use.
Shapes: B batch, L tokens, V vocabulary, C = V^n contexts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.models.sequence.steps import require_longer
from dlx.tasks.generation import Cache
from dlx.tasks.sequence import SequenceModel
from dlx.tasks.spec import Streams, Tokens

if TYPE_CHECKING:
    from typing import Any

    from dlx.tasks.system import Objective

MOST = 2**27  # entries of the table: 512 MiB; order 3 of 96 letters has 85 million


class Markov(SequenceModel):
    """order: tokens that the next one depends on. by: counts, or gradient. smoothing: added to each count.

    Tokens whose context is not whole, those at the beginning of a text, are not scored.
    """

    table: Tensor

    def __init__(
        self,
        *,
        spec: Streams,
        order: int = 1,
        by: Literal["counts", "gradient"] = "counts",
        smoothing: float = 1.0,
        loss: str | None = None,
    ) -> None:
        checks.at_least(0, order=order)
        checks.one_of(("counts", "gradient"), by=by)
        if not smoothing > 0:
            raise ValueError(f"smoothing must be above 0, or what is new would have no probability, got {smoothing}")
        self.given = max(1, order)
        require_longer(spec, order=self.given)
        super().__init__(spec=spec, loss=loss)
        assert isinstance(self.input, Tokens)
        V = self.input.vocabulary
        if V ** (order + 1) > MOST:
            raise ValueError(
                f"order must leave at most {MOST:,} entries of the table, got {order}: "
                f"{V} tokens to the power of {order + 1} are {V ** (order + 1):,}"
            )
        self.order, self.by, self.smoothing = order, by, smoothing
        table_CV = torch.zeros(V**order, V)
        if by == "counts":
            self.register_buffer("table", table_CV)
        else:
            self.table = nn.Parameter(table_CV)
        self.out = nn.Identity()  # the features are the logits

    def objectives(self, stage: int = 0) -> list[Objective]:
        return [] if self.by == "counts" else super().objectives(stage)

    def contexts(self, tokens_BL: Tensor, order: int) -> Tensor:
        """A number for the last `order` tokens at each position that has as many, int64 [B, L - order + 1]: the tokens
        as its digits in base V, the newest last."""
        count = tokens_BL.shape[1] - max(order, 1) + 1
        row_BL = torch.zeros_like(tokens_BL[:, :count])
        for k in range(order):
            row_BL = row_BL * self.table.shape[1] + tokens_BL[:, k : k + count]
        return row_BL

    def logits(self, rows: Tensor) -> Tensor:
        return (rows + self.smoothing).log() if self.by == "counts" else rows

    def features(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """Logits [B, L, V]; zeros where the context is not whole, but after the last of so few tokens."""
        new = x.shape[1]
        if cache is not None:
            x = torch.cat([cache["tokens"], x], 1) if "tokens" in cache else x
            cache["tokens"] = x[:, max(0, x.shape[1] - self.order) :]
        if x.shape[1] < self.order:
            last_B1V = self.after_few(x)
        else:
            last_B1V = self.logits(F.embedding(self.contexts(x, self.order), self.table))
        missing = x.shape[1] - last_B1V.shape[1]
        return F.pad(last_B1V, (0, 0, missing, 0))[:, -new:]

    def after_few(self, tokens_BK: Tensor) -> Tensor:
        """Logits [B, 1, V] after fewer tokens than the order, over all that may have come before them: by counts those
        of a model of order K, else the mean of the probabilities."""
        V = self.table.shape[1]
        K = tokens_BK.shape[1]
        rows_CBV = self.table.view(-1, V**K, V)[:, self.contexts(tokens_BK, K)[:, 0]]
        merged_BV = self.logits(rows_CBV.sum(0)) if self.by == "counts" else rows_CBV.softmax(-1).mean(0).log()
        return merged_BV.unsqueeze(1)

    def fit(self, data: Any) -> None:
        if self.by != "counts":
            return
        assert isinstance(self.input, Tokens)
        V = self.table.shape[1]
        counts = self.table.detach().cpu().zero_().flatten()
        for batch in data.train.eval_batches():
            tokens_BL = batch[self.input_name].cpu()
            next_BL = tokens_BL[:, self.given :]
            rows_BL = self.contexts(tokens_BL, self.order)[:, :-1]
            weight_BL = self.input.valid(next_BL).float()
            if "weight" in batch:
                weight_BL = weight_BL * batch["weight"].cpu().unsqueeze(1)
            counts.index_add_(0, (rows_BL * V + next_BL).flatten(), weight_BL.flatten())
        self.table.copy_(counts.view_as(self.table))
