"""A language model on one stream: the next token from the one before it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.runs.media import Text
from dlx.tasks.spec import Streams, Tokens
from dlx.tasks.system import Batch, Objective, Statistics, System


class Language(System):
    film = True

    def __init__(self, *, spec: Streams, width: int = 16) -> None:
        super().__init__()
        self.spec = spec
        self.letters = nn.Embedding(spec.tokens.vocabulary, width)
        self.out = nn.Linear(width, spec.tokens.vocabulary)

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/loss", "min"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return "loss", "perplexity"

    def _per_token(self, batch: Batch) -> Tensor:
        tokens = batch["tokens"]
        logits = self.out(self.letters(tokens[:, :-1]))
        return F.cross_entropy(logits.movedim(-1, 1), tokens[:, 1:], reduction="none")

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        return self._per_token(batch).mean(), {}

    def evaluate(self, batch: Batch) -> Statistics:
        loss = self._per_token(batch)
        return {"loss": loss.double().sum(), "count": torch.tensor(float(loss.numel()), device=loss.device)}

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        loss = float(statistics["loss"] / statistics["count"])
        return {"loss": loss, "perplexity": math.exp(loss)}

    def sample(self, count: int, *, prompt: Tokens | None = None, length: int = 12, temperature: float = 1.0) -> Any:
        """Texts that go on from a prompt; they come a token at a time."""
        return self._sample(count, prompt, length, temperature)  # type: ignore[arg-type]

    def _sample(self, count: int, prompt: Tensor | None, length: int, temperature: float) -> Iterator[Batch]:
        start = torch.full((1, 1), 3, device=self.device) if prompt is None else prompt
        tokens = start.expand(count, -1)
        for _ in range(length):
            logits = self.out(self.letters(tokens[:, -1])) / temperature
            drawn = torch.multinomial(logits.softmax(-1), 1)
            tokens = torch.cat([tokens, drawn], 1)
        yield {"tokens": tokens}

    def showcase(self, batch: Batch) -> dict[str, Any]:
        (made,) = self._sample(2, None, 12, 1.0)
        return {"text": Text("\n".join(self.spec.tokens.draw(made["tokens"])))}
