"""A masked language model, and a classifier that is built on one that was trained, on data of another spec."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.random import uniform_rows
from dlx.tasks.spec import LabeledTokens, Streams
from dlx.tasks.supervised import Supervised
from dlx.tasks.system import Batch, Objective, Statistics, System


class Masked(System):
    """share: of the tokens that are hidden; hidden ones become the padding token."""

    def __init__(self, *, spec: Streams, width: int = 16, share: float = 0.3) -> None:
        super().__init__()
        self.spec, self.share, self.width = spec, share, width
        self.letters = nn.Embedding(spec.tokens.vocabulary, width)
        self.mix = nn.Sequential(
            nn.Conv1d(width, width, 3, padding=1), nn.GELU(), nn.Conv1d(width, width, 3, padding=1)
        )
        self.out = nn.Linear(width, spec.tokens.vocabulary)

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/loss", "min"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("loss",)

    def encode(self, tokens: Tensor) -> Tensor:
        """[B, L, W]."""
        x = self.letters(tokens)
        return x + self.mix(x.transpose(1, 2)).transpose(1, 2)

    def embed(self, batch: Batch) -> Tensor:
        return self.encode(batch["tokens"]).mean(1)

    def _sums(self, tokens: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.out(self.encode(tokens.masked_fill(hidden, self.spec.tokens.pad or 0)))
        loss = F.cross_entropy(logits.movedim(-1, 1), tokens, reduction="none")
        return (loss * hidden).sum(), hidden.sum()

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        hidden = torch.rand(batch["tokens"].shape, device=batch["tokens"].device) < self.share
        loss, count = self._sums(batch["tokens"], hidden)
        return loss / count.clamp_min(1), {}

    def evaluate(self, batch: Batch) -> Statistics:
        """The same tokens are hidden each time, whatever batch a sample is in."""
        hidden = uniform_rows("masked", batch["index"], batch["tokens"].shape[1]) < self.share
        loss, count = self._sums(batch["tokens"], hidden)
        return {"loss": loss.double(), "count": count}

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        return {"loss": float(statistics["loss"] / statistics["count"])}


class Finetuned(Supervised):
    """body_from: the run whose network it begins with; body: its block, which dlx writes into the configuration."""

    def __init__(
        self, *, spec: LabeledTokens, body: Masked | None = None, body_from: str | None = None, loss: str | None = None
    ) -> None:
        super().__init__(spec=spec, loss=loss)
        if body is None:
            raise ValueError("body_from must name a run")
        self.body = body
        body.out.requires_grad_(False)  # it is not used here
        self.out = self.make_head(body.width * spec.tokens.length)

    def features(self, tokens: Tensor) -> Tensor:
        return self.body.encode(tokens).flatten(1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.features(tokens))
