"""DALL-E (Ramesh et al. 2021, arXiv:2102.12092): images from texts, by a transformer over the tokens of both.

First a discrete VAE (dvae.py) makes an image a grid of codes; then a transformer learns the sequence of a text's tokens
and the codes that follow it, each given those before. To make an image, codes are drawn after the text, and decoded.
All attention is dense, where the paper's codes read a row, a column or a neighbourhood of the grid each.
Shapes: B batch, L tokens of a text, N codes of an image, T = L + N, D dim, V ids of text and codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.models.generative.dvae import DVAE
from dlx.models.sequence.attention import TransformerBlock
from dlx.runs.draw import subplots
from dlx.runs.media import grid
from dlx.tasks.generation import check_sampling, generate
from dlx.tasks.spec import CaptionedImages, Images, Tokens
from dlx.tasks.system import Objective, System

if TYPE_CHECKING:
    from dlx.runs.draw import Figure
    from dlx.tasks.generation import Cache
    from dlx.tasks.system import Batch, Statistics

PROMPTS = 6  # captions of a picture
DRAWN = 4  # images that are made of each
UNKNOWN = "\ufffd"  # what a tokenizer reads a word as that it does not have


class DALLE(System):
    """image_tokens_from: a run of model=dvae, whose codes are used as they are; image_tokens: its block, which dlx
    writes into the configuration. Without it there is a discrete VAE of `codes`, code_width, code_levels, code_beta,
    code_temperature and code_likelihood (arguments of `DVAE`), which learns in a first stage, for the share `first` of
    the training.

    dim, depth, heads: of the transformer, as wide as its steps, blocks, heads. image_weight: of the codes' loss against
    the text's: 7 are the paper's 7/8 and 1/8. dropout: rate in the transformer.

    A text is filled up with padding tokens, one for each place. Of the logits, those of codes are left out at the
    places of the text, and those of text at the others. The place of a code is told by its row and its column.
    """

    players = ("codes", "sequence")
    spec: CaptionedImages

    def __init__(
        self,
        *,
        spec: CaptionedImages,
        image_tokens: DVAE | None = None,
        image_tokens_from: str | None = None,
        first: float = 0.5,
        codes: int = 8192,
        code_width: int = 256,
        code_levels: int = 4,
        code_beta: float = 6.6,
        code_temperature: float = 1 / 16,
        code_likelihood: Literal["logit_laplace", "mse"] = "logit_laplace",
        dim: int = 3968,
        depth: int = 64,
        heads: int = 62,
        image_weight: float = 7.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        checks.between("(0, 1)", first=first)
        checks.at_least(1, dim=dim, depth=depth, heads=heads)
        checks.at_least(0, image_weight=image_weight)
        checks.between("[0, 1)", dropout=dropout)
        self.trains_codes, self.first, self.image_weight = image_tokens is None, first, image_weight
        if image_tokens is None:
            image_tokens = DVAE(
                spec=Images(image=spec.image), codes=codes, width=code_width, levels=code_levels, blocks=1,
                embedding=min(128, code_width), beta=code_beta, warmup=0.02, anneal=0.7,
                temperature=code_temperature, likelihood=code_likelihood,
            )  # fmt: skip
        else:
            image_tokens.requires_grad_(False)
        self.image_tokens = image_tokens
        self.spec = CaptionedImages(image=image_tokens.image, caption=spec.caption)
        self.caption, self.L = spec.caption, spec.caption.length
        rows, columns = image_tokens.grid
        self.N = rows * columns
        self.text_ids = spec.caption.vocabulary + (self.L if spec.caption.pad is not None else 0)
        ids = self.text_ids + image_tokens.codes
        self.embedding = nn.Embedding(ids, dim)
        self.start = nn.Parameter(torch.empty(dim))
        self.place = nn.Parameter(torch.empty(self.L, dim))  # of a text
        self.row, self.column = nn.Parameter(torch.empty(rows, 1, dim)), nn.Parameter(torch.empty(1, columns, dim))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(dim, heads, 4 * dim, activation="gelu", dropout=dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, ids)
        self._initialize(depth)

    def _initialize(self, depth: int) -> None:
        """As GPT-2's: N(0, 0.02), and less by sqrt(2 depth) where the blocks add up."""
        own = [self.embedding, self.blocks, self.out]
        for part in own:
            for name, module in part.named_modules():
                if isinstance(module, nn.Linear | nn.Embedding):
                    adds = name.endswith(("attention.project", "mlp.2"))
                    nn.init.normal_(module.weight, std=0.02 * ((2 * depth) ** -0.5 if adds else 1.0))
                if isinstance(module, nn.Linear):
                    nn.init.zeros_(module.bias)
        for parameter in (self.start, self.place, self.row, self.column):
            nn.init.normal_(parameter, std=0.02)

    # Stages: codes, then the sequence.

    def stage_starts(self, total_steps: int) -> list[int]:
        if not self.trains_codes:
            return [0]
        second = round(self.first * total_steps)
        if not 0 < second < total_steps:
            raise ValueError(f"first must leave a step for each stage, got {self.first} of {total_steps} steps")
        return [0, second]

    def objectives(self, stage: int = 0) -> list[Objective]:
        if self.trains_codes and stage == 0:
            return [Objective.of("codes", self.image_tokens)]
        spared = set(self.image_tokens.parameters())
        return [Objective("sequence", [p for p in self.parameters() if p not in spared])]

    # The sequence.

    def ids(self, caption_BL: Tensor) -> Tensor:
        """A text's tokens, with a padding token of its own for each place, int64 [B, L]."""
        if self.caption.pad is None:
            return caption_BL
        pads_L = self.caption.vocabulary + torch.arange(self.L, device=caption_BL.device)
        return torch.where(caption_BL == self.caption.pad, pads_L, caption_BL)

    def tokens(self, batch: Batch) -> Tensor:
        """Ids of texts and of the codes of their images, int64 [B, T]."""
        with torch.no_grad():
            code_BN = self.image_tokens.encode(batch["image"]).flatten(1)
        return torch.cat([self.ids(batch["caption"]), self.text_ids + code_BN], 1)

    def logits(self, ids_Bn: Tensor, cache: Cache | None = None) -> Tensor:
        """Logits of each id given those before it, and of the one after the last, [B, n + 1, V]; of a full sequence the
        latter is left out. With a cache, after ids that were read before, of the one after each new id."""
        past = cache["0.self.key"].shape[2] if cache else 0
        image_ND = (self.row + self.column).flatten(0, 1)
        place_TD = torch.cat([torch.zeros_like(self.start)[None], self.place, image_ND])
        h_BnD = self.embedding(ids_Bn)
        if not past:
            h_BnD = torch.cat([self.start.expand(len(ids_Bn), 1, -1).to(h_BnD.dtype), h_BnD], 1)
        h_BnD = h_BnD[:, : self.L + self.N - past]
        h_BnD = self.dropout(h_BnD + place_TD[past : past + h_BnD.shape[1]])
        for number, block in enumerate(self.blocks):
            h_BnD = block(h_BnD, causal=True, cache=cache, name=str(number))
        logits_BnV = self.out(self.norm(h_BnD))
        at_n1 = torch.arange(past, past + h_BnD.shape[1], device=ids_Bn.device).unsqueeze(1)
        is_code_V = torch.arange(logits_BnV.shape[-1], device=ids_Bn.device) >= self.text_ids
        return logits_BnV.masked_fill((at_n1 >= self.L) != is_code_V, -torch.inf)

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of each sample, nats a token, [B]: of its text, and of its codes."""
        ids_BT = self.tokens(batch)
        logits_BTV = self.logits(ids_BT).float()
        loss_BT = F.cross_entropy(logits_BTV.movedim(-1, 1), ids_BT, reduction="none")
        return loss_BT[:, : self.L].mean(1), loss_BT[:, self.L :].mean(1)

    def weighted(self, text: Tensor, image: Tensor) -> Tensor:
        return (text + self.image_weight * image) / (1 + self.image_weight)

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        if objective.name == "codes":
            return self.image_tokens.training_loss(batch, objective)
        text, image = (loss_B.mean() for loss_B in self.losses(batch))
        return self.weighted(text, image), {"text": text.detach(), "image": image.detach()}

    # Evaluation.

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/loss", "min"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return "loss", "text", "image", "hard", "soft", "codes_used", "perplexity"

    def evaluate(self, batch: Batch) -> Statistics:
        text_B, image_B = self.losses(batch)
        own = {"text": text_B.double().sum(), "image": image_B.double().sum()}
        return {**own, **{f"codes/{name}": value for name, value in self.image_tokens.evaluate(batch).items()}}

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        """loss: text and image weighted, nats a token; the others are those of `DVAE`. Before the second stage loss,
        text and image are of a transformer that has learned nothing."""
        inner = {name.removeprefix("codes/"): value for name, value in statistics.items() if name.startswith("codes/")}
        found = self.image_tokens.metrics(inner)
        text, image = (statistics[name] / int(inner["count"]) for name in ("text", "image"))
        own = {"loss": float(self.weighted(text, image)), "text": float(text), "image": float(image)}
        return {**own, **{name: found[name] for name in ("hard", "soft", "codes_used", "perplexity")}}

    # What a person asks for.

    @torch.no_grad()
    def paint(
        self, ids_Bn: Tensor, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None,
        use_cache: bool = True,
    ) -> Batch:  # fmt: skip
        """Completes sequences of ids, of a text alone, with a part of an image, or of nothing: texts and images."""

        def next_logits(unread_Bn: Tensor, cache: Cache | None) -> Tensor:
            return self.logits(unread_Bn, cache)[:, -1]

        rest = self.L + self.N - ids_Bn.shape[1]
        for made_BT in generate(
            next_logits, ids_Bn, rest, temperature=temperature, top_k=top_k, top_p=top_p, use_cache=use_cache
        ):
            ids_Bn = made_BT
        text_BL, code_BN = ids_Bn[:, : self.L], ids_Bn[:, self.L :] - self.text_ids
        if self.caption.pad is not None:
            text_BL = text_BL.where(text_BL < self.caption.vocabulary, self.caption.pad)
        image = self.image_tokens.decode(code_BN.unflatten(1, self.image_tokens.grid))
        return {"image": image, "caption": text_BL}

    def sample(
        self,
        count: int,
        *,
        prompt: Tokens | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        use_cache: bool = True,
    ) -> Batch:
        """Images of a text; without one texts are drawn too. use_cache: false reads all again for each code, and gives
        the same."""
        try:
            check_sampling(temperature=temperature, top_k=top_k, top_p=top_p)
        except ValueError as error:
            name, _, what = str(error).partition(" ")
            raise UserError(f"--given {name}: {what}") from None
        ids_Bn = torch.zeros(count, 0, dtype=torch.int64, device=self.device)
        if prompt is not None:
            text: Any = prompt
            text_1L = self.caption.padded(text.to(self.device))
            if text_1L.shape[1] != self.L:
                raise UserError(
                    f"--prompt: must have {self.L} tokens, got {text_1L.shape[1]}: these data have no padding"
                )
            if self.caption.tokenizer is not None and UNKNOWN in (words := self.caption.draw(text_1L)[0]):
                raise UserError(f"--prompt: has words that the captions of the data do not have: {words}")
            ids_Bn = self.ids(text_1L).expand(count, -1)
        return self.paint(ids_Bn, temperature=temperature, top_k=top_k, top_p=top_p, use_cache=use_cache)

    def sample_from(self, batch: Batch) -> Batch:
        """An image of each caption."""
        return self.paint(self.ids(self.caption.padded(batch["caption"])))

    def showcase(self, batch: Batch) -> dict[str, Any]:
        """Captions with their images and those that are made of them; images and what their codes give."""
        image, caption_BL = batch["image"][:PROMPTS], batch["caption"][:PROMPTS]
        made = self.paint(self.ids(caption_BL).repeat_interleave(DRAWN, 0))["image"]
        drawn = self.spec.image.draw(made).unflatten(0, (-1, DRAWN))
        rebuilt = self.image_tokens.decode(self.image_tokens.encode(image))
        rows = [self.spec.image.draw(part) for part in (image, rebuilt)]
        prompts = draw_prompts(self.caption.draw(caption_BL), rows[0], drawn)
        return {"prompts": prompts, "reconstructions": grid(torch.cat(rows), columns=len(image))}


def draw_prompts(captions: list[str], image: Tensor, drawn: Tensor) -> Figure:
    """A row for each caption: its image, uint8 [B, H, W, C], then those that were made of it, [B, n, H, W, C]."""
    count = len(captions)
    figure, axes = subplots(count, 1, size=(6.4, 1.55 * count), squeeze=False)
    for axis, caption, real, made in zip(axes[:, 0], captions, image, drawn, strict=True):
        gap = torch.full((real.shape[0], max(1, real.shape[1] // 4), real.shape[2]), 255, dtype=torch.uint8)
        row = torch.cat([real, gap, torch.as_tensor(grid(made, columns=len(made)))], 1).numpy()
        axis.imshow(row.squeeze(-1) if row.shape[-1] == 1 else row, cmap="gray", vmin=0, vmax=255)
        axis.set_title(caption, fontsize=9, loc="left", pad=3)
        axis.set_axis_off()
    figure.suptitle("the image of a caption, and images made of it", fontsize=9)
    return figure
