"""Sequence to sequence: a recurrent encoder and decoder on batches of similar length; evaluation generates."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.tasks.spec import Translations
from dlx.tasks.system import Answer, Batch, Objective, Statistics, System


class Seq2Seq(System):
    """begin, end: tokens around a target."""

    def __init__(self, *, spec: Translations, width: int = 24, begin: int = 1, end: int = 2) -> None:
        super().__init__()
        self.spec, self.begin, self.end, self.pad = spec, begin, end, spec.target.pad or 0
        self.read = nn.Embedding(spec.source.vocabulary, width)
        self.write = nn.Embedding(spec.target.vocabulary, width)
        self.encoder, self.decoder = nn.GRU(width, width, batch_first=True), nn.GRU(width, width, batch_first=True)
        self.out = nn.Linear(width, spec.target.vocabulary)

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/loss", "min"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return "loss", "exact_match"

    def _encode(self, source: Tensor) -> Tensor:
        """The state after each text's last token, [1, B, W]."""
        states, _ = self.encoder(self.read(source))
        last = ((source != self.pad).sum(1) - 1).clamp_min(0)
        return states[torch.arange(len(source), device=source.device), last].unsqueeze(0)

    def _per_sample(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sums of losses over tokens, and how many there are."""
        target = batch["target"]
        hidden, _ = self.decoder(self.write(target[:, :-1]), self._encode(batch["source"]))
        loss = F.cross_entropy(self.out(hidden).movedim(-1, 1), target[:, 1:], reduction="none")
        counts = target[:, 1:] != self.pad
        return (loss * counts).sum(1), counts.sum(1)

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        loss, count = self._per_sample(batch)
        return loss.sum() / count.sum(), {}

    def _generate(self, source: Tensor) -> Tensor:
        """Greedy, [B, length of a target]."""
        state = self._encode(source)
        token = torch.full((len(source), 1), self.begin, device=source.device)
        tokens = [token]
        for _ in range(self.spec.target.length - 1):
            hidden, state = self.decoder(self.write(token), state)
            token = self.out(hidden).argmax(-1)
            tokens.append(token)
        made = torch.cat(tokens, 1)
        after_end = ((made == self.end).cumsum(1) - (made == self.end).long()) > 0
        return made.masked_fill(after_end, self.pad)

    def evaluate(self, batch: Batch) -> Statistics:
        loss, count = self._per_sample(batch)
        made = self._generate(batch["source"])
        target = F.pad(batch["target"], (0, made.shape[1] - batch["target"].shape[1]), value=self.pad)
        exact = (made == target).all(1).sum()
        samples = torch.tensor(float(len(made)), device=made.device)
        return {"loss": loss.double().sum(), "count": count.sum(), "exact": exact, "samples": samples}

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        return {
            "loss": float(statistics["loss"] / statistics["count"]),
            "exact_match": float(statistics["exact"] / statistics["samples"]),
        }

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        return {"target": self._generate(batch["source"])}

    def answer(self, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        texts = self.spec.target.draw(predicted["target"])
        return [Answer(text, {"text": text}) for text in texts]
