"""BERT (Devlin et al. 2018, arXiv:1810.04805): a transformer encoder that learns to fill in hidden tokens of texts.

Shapes: B batch, L tokens, D dim, V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.models.sequence.attention import TransformerBlock
from dlx.random import uniform_rows
from dlx.runs.media import Table
from dlx.tasks.spec import SentencePairs, Streams
from dlx.tasks.system import Answer, Batch, Objective, Statistics, System

if TYPE_CHECKING:
    from collections.abc import Mapping

# size -> dim, depth, heads: section 3 of the paper; mini is dlx's.
SIZES = {"mini": (128, 4, 4), "base": (768, 12, 12), "large": (1024, 24, 16)}
HIDDEN, RANDOM = 0.8, 0.1  # shares of the chosen tokens; the rest stay as they are
GUESSES = 3


class BERT(System):
    """size: sets dim (of a token), depth (blocks) and heads, each of which can be given apart.

    share: of the tokens of a text that are to be predicted. dropout: rate after the embeddings, at the attention
    weights and at each block's outputs. context: tokens that can be read; None: those of the longest text. Of sentence
    pairs it also learns whether the second follows the first. Where the data have no mark that begins a text, or none
    that hides a token, BERT adds its own to the vocabulary. Micro-batches and processes each take the mean over the
    tokens that they hide, and count alike.
    """

    takes = ("weight",)

    def __init__(
        self,
        *,
        spec: SentencePairs | Streams,
        size: Literal["mini", "base", "large"] = "mini",
        dim: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        context: int | None = None,
        share: float = 0.15,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        checks.one_of(SIZES, size=size)
        checks.at_least(1, dim=dim, depth=depth, heads=heads)
        checks.between("(0, 1]", share=share)
        checks.between("[0, 1)", dropout=dropout)
        dim, depth, heads = (given or usual for given, usual in zip((dim, depth, heads), SIZES[size], strict=True))
        self.share, self.dim = share, dim
        self._mark(spec)
        length = self.tokens.length + self.begins
        checks.at_least(length, context=context)
        self.pairs = isinstance(spec, SentencePairs)
        self.token_embedding = nn.Embedding(self.vocabulary, dim)
        self.positions = nn.Embedding(context or length, dim)
        self.segments = nn.Embedding(2, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                dim, heads, 4 * dim, norm="post", activation="gelu", dropout=dropout, attention_dropout=dropout,
                eps=1e-12,
            )
            for _ in range(depth)
        )  # fmt: skip
        self.transform = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim, eps=1e-12))
        self.out_bias = nn.Parameter(torch.zeros(self.vocabulary))
        self.pooler = nn.Sequential(nn.Linear(dim, dim), nn.Tanh())
        self.pooler.requires_grad_(self.pairs)  # nothing here reads it else; a classifier on this BERT does
        self.follows = nn.Linear(dim, 2) if self.pairs else None
        for module in self.modules():
            initialize(module)

    def _mark(self, spec: SentencePairs | Streams) -> None:
        """The marks, and the spec with a mask among the tokens, so that a person can hide some."""
        given = spec.tokens
        self.vocabulary = given.vocabulary
        mask = given.mask
        if mask is None:
            mask, self.vocabulary = self.vocabulary, self.vocabulary + 1
        self.tokens = replace(given, mask=mask, vocabulary=self.vocabulary)
        self.begins = given.begin is None
        self.begin = given.begin
        if self.begin is None:  # not among the spec's tokens: it is set before them here, and never elsewhere
            self.begin, self.vocabulary = self.vocabulary, self.vocabulary + 1
        self.mask = mask
        self.never = sorted({*given.marks, mask, self.begin})
        self.spec = replace(spec, tokens=self.tokens)

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/loss", "min"

    @property
    def gaps(self) -> Mapping[str, int]:
        return {"loss": -1}

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("loss", "mlm_loss", "mlm_accuracy", *(("nsp_accuracy",) if self.pairs else ()))

    def encode(self, tokens_BL: Tensor, segment_BL: Tensor | None = None) -> Tensor:
        """Features of each token, [B, L, D]; of the mark that begins a text they are first, also where BERT set it
        before the tokens: then there are L + 1."""
        if self.begins:
            tokens_BL = F.pad(tokens_BL, (1, 0), value=self.begin)
        place_L = torch.arange(tokens_BL.shape[1], device=tokens_BL.device)
        segment_BL = torch.zeros_like(tokens_BL) if segment_BL is None else segment_BL.clamp_min(0)
        x_BLD = self.token_embedding(tokens_BL) + self.positions(place_L) + self.segments(segment_BL)
        x_BLD = self.dropout(self.norm(x_BLD))
        valid_BL = None if self.tokens.pad is None else self.tokens.valid(tokens_BL)
        for block in self.blocks:
            x_BLD = block(x_BLD, valid_BL=valid_BL)
        return x_BLD

    def pool(self, x_BLD: Tensor) -> Tensor:
        """What stands for the whole text, [B, D], of the features of each token."""
        pooled_BD: Tensor = self.pooler(x_BLD[:, 0])
        return pooled_BD

    def pretraining(self) -> list[nn.Parameter]:
        """The parameters that only pre-training reads."""
        heads = [self.transform] if self.follows is None else [self.transform, self.follows]
        return [*(p for head in heads for p in head.parameters()), self.out_bias]

    def decode(self, x_BLD: Tensor) -> Tensor:
        """Logits of what each token of the text is, [B, L, V]."""
        x_BLD = x_BLD[:, 1:] if self.begins else x_BLD
        return F.linear(self.transform(x_BLD), self.token_embedding.weight, self.out_bias)

    def corrupt(self, tokens_BL: Tensor, draw_BL3: Tensor) -> tuple[Tensor, Tensor]:
        """The text with some tokens hidden, and which are to be predicted, bool; both [B, L].

        draw: uniform in (0, 1): chooses tokens, what becomes of each, and another token for it. Marks are never chosen,
        and never put anywhere but the mask.
        """
        text_BL = torch.ones_like(tokens_BL, dtype=torch.bool)
        for mark in self.never:
            text_BL = text_BL & (tokens_BL != mark)
        choose_BL, fate_BL, other_BL = draw_BL3.unbind(-1)
        chosen_BL = text_BL & (choose_BL < self.share)
        number_BL = (other_BL * (self.vocabulary - len(self.never))).long()
        for mark in self.never:
            number_BL = number_BL + (number_BL >= mark).long()  # the marks are skipped, from the lowest
        hidden_BL = torch.where(fate_BL < HIDDEN, self.mask, tokens_BL)
        hidden_BL = torch.where((fate_BL >= HIDDEN) & (fate_BL < HIDDEN + RANDOM), number_BL, hidden_BL)
        return torch.where(chosen_BL, hidden_BL, tokens_BL), chosen_BL

    def sums(self, batch: Batch, draw_BL3: Tensor, weight_B: Tensor | None = None) -> Statistics:
        """Sums over the chosen tokens and, of pairs, over the samples. weight: multiplies a sample's losses."""
        tokens_BL = batch["tokens"]
        hidden_BL, chosen_BL = self.corrupt(tokens_BL, draw_BL3)
        x_BLD = self.encode(hidden_BL, batch.get("segment") if self.pairs else None)
        logits_BLV = self.decode(x_BLD).float()
        loss_BL = F.cross_entropy(logits_BLV.flatten(0, 1), tokens_BL.flatten(), reduction="none").view_as(tokens_BL)
        if weight_B is not None:
            loss_BL = loss_BL * weight_B.unsqueeze(1)
        found = {
            "mlm": (loss_BL * chosen_BL).sum(),
            "right": ((logits_BLV.argmax(-1) == tokens_BL) & chosen_BL).sum(),
            "count": chosen_BL.sum(),
        }
        if self.follows is not None:
            follows_B2 = self.follows(self.pool(x_BLD)).float()
            nsp_B = F.cross_entropy(follows_B2, batch["follows"], reduction="none")
            found["nsp"] = (nsp_B if weight_B is None else nsp_B * weight_B).sum()
            found["nsp_right"] = (follows_B2.argmax(-1) == batch["follows"]).sum()
            found["samples"] = torch.tensor(len(tokens_BL), device=tokens_BL.device)
        return found

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        tokens_BL = batch["tokens"]
        found = self.sums(batch, torch.rand(*tokens_BL.shape, 3, device=tokens_BL.device), batch.get("weight"))
        count = found["count"].clamp_min(1)
        loss = found["mlm"] / count
        logs = {"mlm_loss": loss.detach(), "mlm_accuracy": found["right"] / count}
        if self.pairs:
            loss = loss + found["nsp"] / len(tokens_BL)
            logs["nsp_accuracy"] = found["nsp_right"] / len(tokens_BL)
        return loss, logs

    def evaluate(self, batch: Batch) -> Statistics:
        """A sample's hidden tokens are the same each time, whatever batch it is in."""
        found = self.sums(batch, uniform_rows("bert", batch["index"], batch["tokens"].shape[1], 3))
        return {name: value.double() if value.is_floating_point() else value for name, value in found.items()}

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        count = max(1, int(statistics["count"]))
        loss = float(statistics["mlm"]) / count
        found = {"loss": loss, "mlm_loss": loss, "mlm_accuracy": int(statistics["right"]) / count}
        if "nsp" in statistics:
            samples = max(1, int(statistics["samples"]))
            found["loss"] += float(statistics["nsp"]) / samples
            found["nsp_accuracy"] = int(statistics["nsp_right"]) / samples
        return found

    def embed(self, batch: Batch) -> Tensor:
        """The mean of the text's features, [B, D]; the mark that begins it is not trained where there are no pairs."""
        x_BLD = self.encode(batch["tokens"])
        x_BLD = x_BLD[:, 1:] if self.begins else x_BLD
        counts_BL1 = self.tokens.valid(batch["tokens"]).unsqueeze(-1)
        return (x_BLD * counts_BL1).sum(1) / counts_BL1.sum(1).clamp_min(1)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """filled: the text with the most probable token at each mask, int64 [B, L]; guesses and probability: the most
        probable three at each token, [B, L, 3]."""
        tokens_BL = batch["tokens"]
        logits_BLV = self.decode(self.encode(tokens_BL, batch.get("segment"))).float()
        never = torch.tensor(self.never, device=logits_BLV.device)
        probable = logits_BLV.index_fill(-1, never, -torch.inf).softmax(-1).topk(min(GUESSES, self.tokens.vocabulary))
        filled_BL = torch.where(tokens_BL == self.mask, probable.indices[..., 0], tokens_BL)
        return {"filled": filled_BL, "guesses": probable.indices, "probability": probable.values}

    def answer(self, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        answers = []
        for row, tokens_L in enumerate(batch["tokens"]):
            places = (tokens_L == self.mask).nonzero()[:, 0].tolist()
            masks = []
            for place in places:
                names = [self._piece(token) for token in predicted["guesses"][row, place].tolist()]
                masks.append(dict(zip(names, predicted["probability"][row, place].tolist(), strict=True)))
            text = self.tokens.draw(predicted["filled"][row : row + 1])[0]
            shown = ["  ".join(f"{name!r} {share:.1%}" for name, share in mask.items()) for mask in masks]
            line = f"{text}   {';  '.join(shown)}" if masks else f"{text}   (no [MASK] to fill in)"
            answers.append(Answer(line, {"text": text, "masks": masks}))
        return answers

    def _piece(self, token: int) -> str:
        return self.tokens.draw(torch.tensor([[token]]))[0]

    def showcase(self, batch: Batch) -> dict[str, Any]:
        """Texts with hidden tokens, what BERT makes of them, and the text as it was."""
        tokens_BL = batch["tokens"][:8]
        _, chosen_BL = self.corrupt(tokens_BL, uniform_rows("bert", batch["index"][:8], tokens_BL.shape[1], 3))
        hidden_BL = torch.where(chosen_BL, self.mask, tokens_BL)
        filled_BL = self.predict({**batch, "tokens": hidden_BL, **self._segment(batch)})["filled"]
        columns = (self._shown(hidden_BL), self.tokens.draw(filled_BL), self.tokens.draw(tokens_BL))
        return {"filled": Table(["hidden", "filled in", "true"], list(zip(*columns, strict=True)))}

    def _segment(self, batch: Batch) -> Batch:
        return {"segment": batch["segment"][:8]} if self.pairs else {}

    def _shown(self, hidden_BL: Tensor) -> list[str]:
        """Texts with _ for each mask."""
        pieces = []
        for row in hidden_BL.tolist():
            parts: list[str] = []
            run: list[int] = []
            for token in (*row, self.mask):
                if token == self.mask:
                    parts.append(self.tokens.draw(torch.tensor([run]))[0] if run else "")
                    run = []
                else:
                    run.append(token)
            pieces.append("_".join(parts))
        return pieces


def initialize(module: nn.Module) -> None:
    """Weights of linear layers and embeddings N(0, 0.02), cut at two standard deviations; biases 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
