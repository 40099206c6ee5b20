"""ViT (Dosovitskiy et al. 2020, arXiv:2010.11929): an image is a sequence of patches, read by a transformer encoder.

Shapes: B batch, C channels, H height, W width, N tokens, D dim, A attention heads, E = D / A.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.models.layers import drop_path, require_size
from dlx.tasks.spec import LabeledImages
from dlx.tasks.supervised import Supervised

# size -> dim, depth, heads: table 1 of the paper; tiny and small are DeiT's (arXiv:2012.12877), mini is dlx's.
SIZES = {
    "mini": (64, 4, 4),
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}


class Attention(nn.Module):
    """Multi-head self-attention over all tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)

    def _split(self, x_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of each head, [B, A, N, E]."""
        B, N, _ = x_BND.shape
        q_BANE, k_BANE, v_BANE = self.qkv(x_BND).view(B, N, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return q_BANE, k_BANE, v_BANE

    def forward(self, x_BND: Tensor) -> Tensor:
        y_BANE = F.scaled_dot_product_attention(*self._split(x_BND))
        return self.project(y_BANE.transpose(1, 2).flatten(2))

    def weights(self, x_BND: Tensor) -> Tensor:
        """How much each token reads of each other, [B, A, N, N]; rows sum to one."""
        q_BANE, k_BANE, _ = self._split(x_BND)
        return (q_BANE @ k_BANE.transpose(-2, -1) / q_BANE.shape[-1] ** 0.5).softmax(-1)


class Block(nn.Module):
    """Attention, then an MLP at each token, both normalized before and added to what comes in.

    skip: rate of drop path in training.
    """

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float, skip: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim))
        self.dropout = nn.Dropout(dropout)
        self.skip = skip

    def _branch(self, y_BND: Tensor) -> Tensor:
        return drop_path(self.dropout(y_BND), self.skip, self.training)

    def forward(self, x_BND: Tensor) -> Tensor:
        x_BND = x_BND + self._branch(self.attention(self.norm1(x_BND)))
        return x_BND + self._branch(self.mlp(self.norm2(x_BND)))


class ViT(Supervised):
    """size: sets dim (of a token), depth (blocks) and heads, each of which can be given apart; None is mini for images
    below 64 pixels and base above. mlp_ratio: hidden units of a block's MLP per dim.

    patch: side of a patch in pixels; None is 16 from 64 pixels up, 4 from 16 up, and 2 below. pool: what the classifier
    reads: `class_token`, a token that stands for no patch, or the `mean` of the patches' tokens (there is no class
    token then). dropout: rate after the positions, after attention and twice in the MLP. stochastic_depth: probability
    of skipping the last block's branches, falling linearly to 0 at the first, per sample.
    """

    def __init__(
        self,
        *,
        spec: LabeledImages,
        size: Literal["mini", "tiny", "small", "base", "large", "huge"] | None = None,
        patch: int | None = None,
        dim: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        mlp_ratio: float = 4.0,
        pool: Literal["class_token", "mean"] = "class_token",
        dropout: float = 0.1,
        stochastic_depth: float = 0.0,
        loss: str | None = None,
    ) -> None:
        super().__init__(spec=spec, loss=loss)
        height, width = spec.image.height, spec.image.width
        side = min(height, width)
        checks.one_of(SIZES, size=size)
        checks.one_of(("class_token", "mean"), pool=pool)
        checks.between("[0, 1)", dropout=dropout, stochastic_depth=stochastic_depth)
        checks.at_least(1, patch=patch, dim=dim, depth=depth, heads=heads)
        checks.above(0, mlp_ratio=mlp_ratio)
        standard = SIZES[size or ("base" if side >= 64 else "mini")]
        dim, depth, heads = dim or standard[0], depth or standard[1], heads or standard[2]
        if dim % heads:
            raise ValueError(f"heads must divide dim ({dim}), got {heads}")
        if patch is None:
            patch = 16 if side >= 64 else 4 if side >= 16 else 2
        require_size(spec.image, patch, f"patch {patch}")
        if height % patch or width % patch:
            raise ValueError(f"patch must divide the image's {height}x{width}, got {patch}")

        tokens = (height // patch) * (width // patch) + (pool == "class_token")
        self.patches = nn.Conv2d(spec.image.channels, dim, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim)) if pool == "class_token" else None
        self.positions = nn.Parameter(torch.zeros(1, tokens, dim))
        self.dropout = nn.Dropout(dropout)
        hidden = max(1, round(mlp_ratio * dim))
        self.blocks = nn.Sequential(
            *(
                Block(dim, heads, hidden, dropout, stochastic_depth * number / max(1, depth - 1))
                for number in range(depth)
            )
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = self.make_head(dim)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        nn.init.trunc_normal_(self.patches.weight, std=self.patches.weight[0].numel() ** -0.5)
        nn.init.normal_(self.positions, std=0.02)
        if isinstance(self.head, nn.Linear):
            nn.init.normal_(self.head.weight, std=0.02)

    def embed_patches(self, x_BCHW: Tensor) -> Tensor:
        """Each patch as a token, row by row, [B, N, D], without positions."""
        return self.patches(x_BCHW).flatten(2).transpose(1, 2)

    def _place(self, x_BND: Tensor) -> Tensor:
        """Tokens of patches plus positions, after the class token if there is one."""
        if self.class_token is not None:
            x_BND = torch.cat([self.class_token.expand(x_BND.shape[0], -1, -1), x_BND], dim=1)
        return self.dropout(x_BND + self.positions)

    def encode(self, x_BND: Tensor) -> Tensor:
        """Tokens of patches through all blocks."""
        return self.norm(self.blocks(self._place(x_BND)))

    def attention(self, x_BCHW: Tensor) -> list[Tensor]:
        """The attention weights of each block, [B, A, N, N] per block."""
        x_BND, found = self._place(self.embed_patches(x_BCHW)), []
        for block in self.blocks:
            assert isinstance(block, Block)
            found.append(block.attention.weights(block.norm1(x_BND)))
            x_BND = block(x_BND)
        return found

    def features(self, x_BCHW: Tensor) -> Tensor:
        """The encoded tokens, [B, N, D]."""
        return self.encode(self.embed_patches(x_BCHW))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BND = self.features(x_BCHW)
        return self.head(x_BND[:, 0] if self.class_token is not None else x_BND.mean(1))
