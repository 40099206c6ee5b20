"""Codes, then a prior over them: both stages in one run, or the codes of a run that was trained before."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.runs.media import grid
from dlx.tasks.spec import CaptionedImages, Images, Tokens
from dlx.tasks.system import Batch, Objective, Statistics, System


class Codes(System):
    """A discrete autoencoder: each quarter of an image is one of `codes` patterns."""

    def __init__(self, *, spec: Images, codes: int = 8) -> None:
        super().__init__()
        self.spec, self.codes = spec, codes
        self.half = (spec.image.height // 2, spec.image.width // 2)
        pixels = spec.image.channels * self.half[0] * self.half[1]
        self.encoder, self.decoder = nn.Linear(pixels, codes), nn.Linear(codes, pixels)

    def _quarters(self, image: Tensor) -> Tensor:
        """[B, 4, pixels]."""
        return F.unfold(image, self.half, stride=self.half).transpose(1, 2)

    def encode(self, image: Tensor) -> Tensor:
        return self.encoder(self._quarters(image)).argmax(-1)

    def decode(self, code: Tensor) -> Tensor:
        quarters = self.decoder(F.one_hot(code, self.codes).float())
        sides = self.spec.image.shape[1:]
        return F.fold(quarters.transpose(1, 2), (2 * self.half[0], 2 * self.half[1]), self.half, stride=self.half)[
            ..., : sides[0], : sides[1]
        ]

    def loss_B(self, image: Tensor, temperature: float = 1.0) -> Tensor:
        quarters = self._quarters(image)
        soft = (self.encoder(quarters) / temperature).softmax(-1)
        return (self.decoder(soft) - quarters).square().mean((1, 2))

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        return self.loss_B(batch["image"]).mean(), {}

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/loss", "min"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("loss",)

    def evaluate(self, batch: Batch) -> Statistics:
        loss = self.loss_B(batch["image"]).double()
        return {"loss": loss.sum(), "count": torch.tensor(float(len(loss)), device=loss.device)}

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        return {"loss": float(statistics["loss"] / statistics["count"])}


class Painter(System):
    """codes_from: a run of `Codes`; without one the first stage trains them, for `first` steps. Then the four codes of
    an image are learned from its caption's first letters."""

    def __init__(
        self, *, spec: CaptionedImages, codes: Codes | None = None, codes_from: str | None = None, first: int = 6
    ) -> None:
        super().__init__()
        self.spec, self.first = spec, first
        self.trains_codes = codes is None
        self.codes = Codes(spec=Images(image=spec.image)) if codes is None else codes
        self.letters = nn.Embedding(spec.caption.vocabulary, 8)
        self.prior = nn.Linear(8 * spec.caption.length, 4 * self.codes.codes)

    def stage_starts(self, total_steps: int) -> list[int]:
        if not self.trains_codes:
            return [0]
        if total_steps <= self.first:
            raise ValueError(f"first must be below the {total_steps} steps of the training, got {self.first}")
        return [0, self.first]

    def objectives(self, stage: int = 0) -> list[Objective]:
        if self.trains_codes and stage == 0:
            return [Objective.of("codes", self.codes)]
        return [Objective.of("prior", self.letters, self.prior)]

    def _logits(self, caption: Tensor) -> Tensor:
        """[B, 4, codes]."""
        return self.prior(self.letters(caption).flatten(1)).unflatten(-1, (4, -1))

    def _prior_B(self, batch: Batch) -> Tensor:
        code = self.codes.encode(batch["image"])
        return F.cross_entropy(self._logits(batch["caption"]).movedim(-1, 1), code, reduction="none").mean(1)

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        if objective.name == "codes":
            return self.codes.loss_B(batch["image"]).mean(), {}
        return self._prior_B(batch).mean(), {}

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/loss", "min"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("loss",)

    def evaluate(self, batch: Batch) -> Statistics:
        codes = self.codes.loss_B(batch["image"])
        first = (batch["stage"] == 0) & (batch["progress"] < 1)  # never in an evaluation: it comes after all
        loss = torch.where(first, codes, self._prior_B(batch)).double()
        return {"loss": loss.sum(), "count": torch.tensor(float(len(loss)), device=loss.device)}

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        return {"loss": float(statistics["loss"] / statistics["count"])}

    def sample(self, count: int, *, prompt: Tokens | None = None, temperature: float = 1.0) -> Batch:
        caption = torch.zeros(1, self.spec.caption.length, dtype=torch.int64, device=self.device)
        if prompt is not None:
            caption[:, : prompt.shape[1]] = prompt  # type: ignore[attr-defined]
        share = (self._logits(caption.expand(count, -1)) / temperature).softmax(-1)
        code = torch.multinomial(share.flatten(0, 1), 1).view(count, 4)
        return {"image": self.codes.decode(code), "caption": caption.expand(count, -1)}

    def showcase(self, batch: Batch) -> dict[str, Any]:
        return {"samples": grid(self.spec.image.draw(self.sample(4)["image"]))}
