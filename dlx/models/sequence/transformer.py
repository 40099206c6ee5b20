"""Transformer (Vaswani et al. 2017, arXiv:1706.03762): an encoder reads the source, a decoder reads it and writes.

Shapes: B batch, S source tokens, L target tokens, D dim, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from dlx.config import checks
from dlx.models.sequence.attention import Positions, TransformerBlock
from dlx.tasks.spec import Tokens, Translations
from dlx.tasks.translation import AnyTexts, Translator

if TYPE_CHECKING:
    from dlx.tasks.generation import Cache
    from dlx.tasks.system import Batch

# size -> dim, depth, heads, dropout: table 3 of the paper; mini is dlx's.
SIZES = {"mini": (128, 2, 4, 0.1), "base": (512, 6, 8, 0.1), "big": (1024, 6, 16, 0.3)}


class Transformer(Translator):
    """size: sets dim (of a token), depth (blocks of the encoder, and of the decoder), heads and dropout, each of which
    can be given apart. mlp_ratio: hidden units of a block's MLP per dim.

    positions: `sinusoidal`, `learned` or `none`. norm: `post`, after the addition as in the paper, or `pre`. tie: which
    embeddings are one: `all`, those of source and target and the output layer (one vocabulary), `output`, the target's
    and the output layer, or `none`; None is all where both texts have the same tokens, else output. dropout: rate after
    the positions and at each block's outputs; attention_dropout: at the attention weights, which the paper lacks.
    Of labeled texts the encoder's mean over tokens is classified; there is no decoder then.
    """

    def __init__(
        self,
        *,
        spec: AnyTexts,
        size: Literal["mini", "base", "big"] = "mini",
        dim: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        mlp_ratio: float = 4.0,
        positions: Literal["sinusoidal", "learned", "none"] = "sinusoidal",
        norm: Literal["pre", "post"] = "post",
        tie: Literal["all", "output", "none"] | None = None,
        dropout: float | None = None,
        attention_dropout: float = 0.0,
        label_smoothing: float = 0.1,
        beam: int = 4,
        bleu: bool = False,
        loss: str | None = None,
    ) -> None:
        super().__init__(spec=spec, label_smoothing=label_smoothing, beam=beam, bleu=bleu, loss=loss)
        checks.one_of(SIZES, size=size)
        checks.at_least(1, dim=dim, depth=depth, heads=heads)
        checks.above(0, mlp_ratio=mlp_ratio)
        checks.one_of(("all", "output", "none"), tie=tie)
        checks.between("[0, 1)", dropout=dropout, attention_dropout=attention_dropout)
        standard = SIZES[size]
        dim, depth, heads = dim or standard[0], depth or standard[1], heads or standard[2]
        dropout = standard[3] if dropout is None else dropout
        self.dim = dim

        def stack(*, cross: bool) -> nn.ModuleList:
            return nn.ModuleList(
                TransformerBlock(
                    dim, heads, max(1, round(mlp_ratio * dim)), norm=norm, dropout=dropout,
                    attention_dropout=attention_dropout, cross=cross,
                )
                for _ in range(depth)
            )  # fmt: skip

        def final() -> nn.Module:
            return nn.LayerNorm(dim) if norm == "pre" else nn.Identity()

        source = self.input
        assert isinstance(source, Tokens)
        self.source = source
        self.source_embedding = nn.Embedding(source.vocabulary, dim)
        self.source_positions = Positions(positions, source.length, dim)
        self.encoder, self.encoder_norm = stack(cross=False), final()
        self.dropout = nn.Dropout(dropout)
        if not isinstance(spec, Translations):
            self.out = self.make_head(dim)
            self._initialize()
            return
        target = spec.target
        same = (source.vocabulary, source.tokenizer) == (target.vocabulary, target.tokenizer)
        tie = tie or ("all" if same else "output")
        if tie == "all" and source.vocabulary != target.vocabulary:
            raise ValueError(
                f"tie must be output or none: the source has {source.vocabulary} tokens, the target {target.vocabulary}"
            )
        self.target_embedding = nn.Embedding(target.vocabulary, dim)
        self.target_positions = Positions(positions, target.length, dim)
        self.decoder, self.decoder_norm = stack(cross=True), final()
        self.out = nn.Linear(dim, target.vocabulary, bias=False)
        self._initialize()
        if tie != "none":
            self.out.weight = self.target_embedding.weight
        if tie == "all":
            self.source_embedding.weight = self.target_embedding.weight

    def _initialize(self) -> None:
        """Xavier's, uniform; embeddings N(0, 1 / D), so that times sqrt(D) they are as large as the sines."""
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=self.dim**-0.5)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def features(self, source_BS: Tensor) -> Tensor:
        """The encoded source, [B, S, D]."""
        x_BSD = self.dropout(self.source_positions(self.source_embedding(source_BS) * self.dim**0.5))
        valid_BS = None if self.source.pad is None else self.source.valid(source_BS)
        for block in self.encoder:
            x_BSD = block(x_BSD, valid_BL=valid_BS)
        return self.encoder_norm(x_BSD)

    def forward(self, x_BS: Tensor) -> Tensor:
        """Logits of a text's class, [B, K]."""
        return self.out(self._mean(x_BS))

    def _mean(self, x_BS: Tensor) -> Tensor:
        """The mean of the encoded tokens that are no padding, [B, D]."""
        counts_BS1 = self.source.valid(x_BS).unsqueeze(-1)
        return (self.features(x_BS) * counts_BS1).sum(1) / counts_BS1.sum(1).clamp_min(1)

    def embed(self, batch: Batch) -> Tensor:
        return self._mean(batch[self.input_name])

    def encode(self, source_BS: Tensor) -> Cache:
        return {"memory": self.features(source_BS), "valid": self.source.valid(source_BS)}

    def _place(self, target_BL: Tensor, start: int = 0) -> Tensor:
        return self.dropout(self.target_positions(self.target_embedding(target_BL) * self.dim**0.5, start))

    def decode(self, target_BL: Tensor, memory: Cache, *, cached: bool = False) -> Tensor:
        cache = memory if cached else None
        start = memory["0.self.key"].shape[2] if cached and "0.self.key" in memory else 0
        x_BLD = self._place(target_BL, start)
        valid_BS = None if self.source.pad is None else memory["valid"]
        for number, block in enumerate(self.decoder):
            x_BLD = block(x_BLD, memory["memory"], causal=True, memory_valid_BS=valid_BS, cache=cache, name=str(number))
        return self.out(self.decoder_norm(x_BLD))

    def attention(self, target_BL: Tensor, memory: Cache) -> Tensor:
        """Mean over the heads of the last block's attention over the source."""
        memory_BSD, valid_BS = memory["memory"], None if self.source.pad is None else memory["valid"]
        x_BLD = self._place(target_BL)
        *first, last = self.decoder
        for block in first:
            x_BLD = block(x_BLD, memory_BSD, causal=True, memory_valid_BS=valid_BS)
        assert isinstance(last, TransformerBlock)
        assert last.cross is not None
        assert last.norm_cross is not None
        x_BLD = last.attended(x_BLD, causal=True)
        x_BLD = last.norm_cross(x_BLD) if last.pre else x_BLD
        return last.cross.weights(x_BLD, memory_BSD, valid_BS=valid_BS).mean(1)
