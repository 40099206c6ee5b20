"""Tagging: logits [B, L, K] against a class at each token [B, L]; positions with the label `ignore` do not count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dlx.runs.draw import visible
from dlx.runs.media import Table
from dlx.tasks.language import token_mean
from dlx.tasks.spec import Tokens
from dlx.tasks.system import Answer, Report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlx.tasks.spec import Spec, TokenLabels
    from dlx.tasks.system import Batch, Statistics, System


class Tagging:
    """Softmax cross-entropy of each token's class, in nats, mean over those that count.

    Metrics: loss, accuracy (of tokens), exact_match (texts whose tokens are all right).
    """

    monitor = ("val/accuracy", "max")
    gaps: ClassVar[dict[str, int]] = {"accuracy": 1, "loss": -1}
    metric_names: tuple[str, ...] = ("loss", "accuracy", "exact_match")

    def __init__(self, spec: Spec, input_name: str, target_name: str) -> None:
        self.input = spec.entries[input_name]
        self.labels: TokenLabels = spec.entries[target_name]  # type: ignore[assignment]
        self.input_name, self.target_name = input_name, target_name

    def _per_token(self, logits_BLK: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of each token, 0 where it does not count, and where it counts, [B, L]."""
        labels_BL = batch[self.target_name]
        ignore = self.labels.ignore
        loss_N = F.cross_entropy(logits_BLK.flatten(0, 1), labels_BL.flatten(), ignore_index=ignore, reduction="none")
        return loss_N.view_as(labels_BL), labels_BL != ignore

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        return token_mean(*self._per_token(output, batch), batch)

    def counted(self, batch: Batch) -> Tensor:
        labels_BL: Tensor = batch[self.target_name]
        return (labels_BL != self.labels.ignore).sum()

    def logs(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        labels_BL = batch[self.target_name]
        return {"accuracy": (output.argmax(-1) == labels_BL).sum() / self.counted(batch).clamp_min(1)}

    def statistics(self, output: Tensor, batch: Batch) -> Statistics:
        loss_BL, counts_BL = self._per_token(output.float(), batch)
        right_BL = (output.argmax(-1) == batch[self.target_name]) | ~counts_BL
        return {
            "loss": loss_BL.double().sum(),
            "right": (right_BL & counts_BL).sum(),
            "count": counts_BL.sum(),
            "exact": right_BL.all(1).sum(),
            "samples": torch.tensor(len(output), device=output.device),
        }

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        count = max(1, int(statistics["count"]))
        return {
            "loss": float(statistics["loss"]) / count,
            "accuracy": int(statistics["right"]) / count,
            "exact_match": int(statistics["exact"]) / max(1, int(statistics["samples"])),
        }

    def predict(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {self.target_name: output.argmax(-1)}

    def answer(self, system: System, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        """The class of each token that is text."""
        assert isinstance(self.input, Tokens)
        answers = []
        for tokens, labels in zip(batch[self.input_name].tolist(), predicted[self.target_name].tolist(), strict=True):
            text = [
                (token, label) for token, label in zip(tokens, labels, strict=True) if token not in self.input.marks
            ]
            pieces = [self.input.draw(torch.tensor([[token]]))[0] for token, _ in text]
            names = [self.labels.classes[label] for _, label in text]
            line = " ".join(f"{visible(piece)}/{name}" for piece, name in zip(pieces, names, strict=True))
            answers.append(Answer(line, {self.input_name: pieces, self.target_name: names}))
        return answers

    def showcase(self, output: Tensor, batch: Batch) -> dict[str, Any]:
        """Texts, and the predicted and true class of each token that counts; the wrong ones first."""
        labels_BL = batch[self.target_name]
        counts_BL = labels_BL != self.labels.ignore
        predicted_BL = torch.where(counts_BL, output.argmax(-1), self.labels.ignore)
        first = (predicted_BL == labels_BL).all(1).int().argsort(stable=True)[:16]
        columns = (
            self.input.draw(batch[self.input_name][first]),
            self.labels.draw(predicted_BL[first]),
            self.labels.draw(labels_BL[first]),
        )
        return {"predictions": Table([self.input_name, "predicted", "true"], list(zip(*columns, strict=True)))}

    def report(self, statistics: Statistics) -> Report:
        return Report()
