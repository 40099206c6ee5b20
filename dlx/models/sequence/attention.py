"""Attention and the blocks of a transformer (Vaswani et al. 2017, arXiv:1706.03762).

Shapes: B batch, L steps of queries, S steps of keys, D dim, A heads, E width of a head's queries and keys, V width of a
head's values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.tasks.generation import Cache

Activation = Literal["relu", "gelu", "gelu_tanh"]
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
}
Norm = Literal["pre", "post"]
NORMS = ("pre", "post")
PositionKind = Literal["sinusoidal", "learned", "none"]
POSITIONS = ("sinusoidal", "learned", "none")


class MultiHeadAttention(nn.Module):
    """Each of `heads` reads a weighted mean of values: softmax(q k^T / sqrt(E)) v; `project` joins what they read.

    dim: of what comes in and goes out. form: `split`, the embedding is split among the heads, so that each is
    dim / heads wide, or `full`, each head is as wide as the model. query_dim, key_dim, value_dim: the width of a head's
    queries, keys and values apart; queries and keys are multiplied, so that they must be equally wide. memory_dim: of
    what keys and values are made of, where it is not dim. dropout: rate at the weights. scale: false leaves the
    division by sqrt(E) out.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        form: Literal["split", "full"] = "split",
        query_dim: int | None = None,
        key_dim: int | None = None,
        value_dim: int | None = None,
        memory_dim: int | None = None,
        dropout: float = 0.0,
        scale: bool = True,
    ) -> None:
        super().__init__()
        checks.at_least(1, dim=dim, heads=heads, query_dim=query_dim, key_dim=key_dim, value_dim=value_dim)
        checks.one_of(("split", "full"), form=form)
        checks.between("[0, 1)", dropout=dropout)
        if form == "split" and dim % heads:
            raise ValueError(f"heads must divide dim ({dim}), got {heads}")
        width = dim // heads if form == "split" else dim
        query_dim, key_dim, value_dim = (size or width for size in (query_dim, key_dim, value_dim))
        if query_dim != key_dim:
            raise ValueError(f"query_dim must be key_dim ({key_dim}): they are multiplied, got {query_dim}")
        self.heads, self.dropout = heads, dropout
        self.scale = None if scale else 1.0
        self.query = nn.Linear(dim, heads * query_dim)
        self.key = nn.Linear(memory_dim or dim, heads * key_dim)
        self.value = nn.Linear(memory_dim or dim, heads * value_dim)
        self.project = nn.Linear(heads * value_dim, dim)

    def _split(self, x_BLD: Tensor) -> Tensor:
        """Each head's share, [B, A, L, E]."""
        return x_BLD.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _keys(self, x_BLD: Tensor, memory: Tensor | None, cache: Cache | None, name: str) -> tuple[Tensor, Tensor]:
        """Keys [B, A, S, E] and values [B, A, S, V]. Those of a memory are made once, those of x are added to what
        the cache has."""
        k, v = f"{name}.key", f"{name}.value"
        if memory is not None and cache is not None and k in cache:
            return cache[k], cache[v]
        source = x_BLD if memory is None else memory
        k_BASE, v_BASV = self._split(self.key(source)), self._split(self.value(source))
        if cache is not None:
            if k in cache:
                k_BASE, v_BASV = torch.cat([cache[k], k_BASE], 2), torch.cat([cache[v], v_BASV], 2)
            cache[k], cache[v] = k_BASE, v_BASV
        return k_BASE, v_BASV

    def forward(
        self,
        x_BLD: Tensor,
        memory: Tensor | None = None,
        *,
        causal: bool = False,
        valid_BS: Tensor | None = None,
        cache: Cache | None = None,
        name: str = "attention",
    ) -> Tensor:
        """[B, L, D]. memory: what keys and values are made of, [B, S, D]; by default x itself.

        causal: a step reads itself and those before it. valid_BS: where a key counts, bool; a step that may read none
        reads 0. cache: keys and values of earlier steps, under `name`.
        """
        q_BALE = self._split(self.query(x_BLD))
        k_BASE, v_BASV = self._keys(x_BLD, memory, cache, name)
        L, S = q_BALE.shape[2], k_BASE.shape[2]
        causal = causal and L > 1  # the last step reads all
        dropout = self.dropout if self.training else 0.0
        if valid_BS is None and (not causal or L == S):
            y_BALV = F.scaled_dot_product_attention(
                q_BALE, k_BASE, v_BASV, dropout_p=dropout, is_causal=causal, scale=self.scale
            )
            return self.project(y_BALV.transpose(1, 2).flatten(2))
        mask = allowed(L, S, causal, valid_BS, x_BLD.device)
        some = mask.any(-1, keepdim=True)  # softmax of nothing is NaN, and so is its gradient
        y_BALV = F.scaled_dot_product_attention(
            q_BALE, k_BASE, v_BASV, attn_mask=mask | ~some, dropout_p=dropout, scale=self.scale
        )
        return self.project((y_BALV * some).transpose(1, 2).flatten(2))

    def weights(
        self, x_BLD: Tensor, memory: Tensor | None = None, *, causal: bool = False, valid_BS: Tensor | None = None
    ) -> Tensor:
        """How much each step reads of each key, [B, A, L, S]; rows sum to one, or to 0 where none may be read."""
        q_BALE, k_BASE = self._split(self.query(x_BLD)), self._keys(x_BLD, memory, None, "")[0]
        scores_BALS = q_BALE @ k_BASE.transpose(-2, -1) * (self.scale or q_BALE.shape[-1] ** -0.5)
        mask = allowed(scores_BALS.shape[2], scores_BALS.shape[3], causal, valid_BS, x_BLD.device)
        some = mask.any(-1, keepdim=True)
        return scores_BALS.masked_fill(~(mask | ~some), -torch.inf).softmax(-1) * some


def allowed(L: int, S: int, causal: bool, valid_BS: Tensor | None, device: torch.device) -> Tensor:
    """Which keys a query may read, bool, to be broadcast to [B, A, L, S]. The last query is at the last key."""
    mask = torch.ones(L, S, dtype=torch.bool, device=device)
    if causal:
        mask = mask.tril(S - L)
    return mask if valid_BS is None else mask & valid_BS[:, None, None, :]


class TransformerBlock(nn.Module):
    """Attention over the steps, in a decoder attention over a memory, and an MLP at each step; each is added to what
    comes in, and normalized before (`pre`) or after the addition (`post`, as in the paper).

    hidden: units of the MLP. dropout: rate at each of the two or three outputs; attention_dropout: at the weights.
    cross: whether there is a memory. eps: of the norms.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        *,
        norm: Norm = "pre",
        activation: Activation = "relu",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        cross: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        checks.one_of(NORMS, norm=norm)
        checks.one_of(ACTIVATIONS, activation=activation)
        self.pre = norm == "pre"
        self.attention = MultiHeadAttention(dim, heads, dropout=attention_dropout)
        self.norm_attention = nn.LayerNorm(dim, eps=eps)
        self.cross = MultiHeadAttention(dim, heads, dropout=attention_dropout) if cross else None
        self.norm_cross = nn.LayerNorm(dim, eps=eps) if cross else None
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), ACTIVATIONS[activation](), nn.Linear(hidden, dim))
        self.norm_mlp = nn.LayerNorm(dim, eps=eps)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x_BLD: Tensor,
        memory_BSD: Tensor | None = None,
        *,
        causal: bool = False,
        valid_BL: Tensor | None = None,
        memory_valid_BS: Tensor | None = None,
        cache: Cache | None = None,
        name: str = "",
    ) -> Tensor:
        """[B, L, D]; the arguments are those of MultiHeadAttention."""
        x_BLD = self.attended(x_BLD, causal=causal, valid_BL=valid_BL, cache=cache, name=name)
        if self.cross is not None:
            assert self.norm_cross is not None
            h_BLD = self.norm_cross(x_BLD) if self.pre else x_BLD
            y_BLD = self.cross(h_BLD, memory_BSD, valid_BS=memory_valid_BS, cache=cache, name=f"{name}.cross")
            x_BLD = self._add(x_BLD, y_BLD, self.norm_cross)
        y_BLD = self.mlp(self.norm_mlp(x_BLD) if self.pre else x_BLD)
        return self._add(x_BLD, y_BLD, self.norm_mlp)

    def attended(
        self,
        x_BLD: Tensor,
        *,
        causal: bool = False,
        valid_BL: Tensor | None = None,
        cache: Cache | None = None,
        name: str = "",
    ) -> Tensor:
        """After self-attention, before the rest."""
        h_BLD = self.norm_attention(x_BLD) if self.pre else x_BLD
        y_BLD = self.attention(h_BLD, causal=causal, valid_BS=valid_BL, cache=cache, name=f"{name}.self")
        return self._add(x_BLD, y_BLD, self.norm_attention)

    def _add(self, x_BLD: Tensor, y_BLD: Tensor, norm: nn.Module) -> Tensor:
        x_BLD = x_BLD + self.dropout(y_BLD)
        return x_BLD if self.pre else norm(x_BLD)


def sinusoidal(length: int, dim: int, start: int = 0, device: torch.device | str | None = None) -> Tensor:
    """Sines of place / 10000^(2i / D) in even columns and their cosines in odd ones (section 3.5), float32 [L, D]."""
    place_L1 = torch.arange(start, start + length, dtype=torch.float32, device=device).unsqueeze(1)
    even = torch.arange(0, dim, 2, dtype=torch.float32, device=device)
    angle = place_L1 * torch.pow(10000.0, -even / dim)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :dim]


class Positions(nn.Module):
    """What is added to a token for its place: sines, or a learned vector for each of `length` places, or nothing."""

    def __init__(self, kind: PositionKind, length: int, dim: int) -> None:
        super().__init__()
        checks.one_of(POSITIONS, positions=kind)
        self.kind, self.dim = kind, dim
        self.weight = nn.Parameter(0.02 * torch.randn(length, dim)) if kind == "learned" else None

    def forward(self, x_BLD: Tensor, start: int = 0) -> Tensor:
        """x [B, L, D] and its positions, from place `start`."""
        if self.weight is not None:
            return x_BLD + self.weight[start : start + x_BLD.shape[1]]
        if self.kind == "none":
            return x_BLD
        return x_BLD + sinusoidal(x_BLD.shape[1], self.dim, start, x_BLD.device).to(x_BLD.dtype)
