"""NADE (Larochelle & Murray 2011; Uria et al. 2016, arXiv:1605.02226): a hidden layer before each pixel.

h_i = sigmoid(c + sum over j < i of W_j x_j) and p(x_i = 1 | those before) = sigmoid(b_i + V_i h_i), with i in an
ordering of the pixels. The hidden layers share W, so that one is the last one plus W_i x_i: all of log p(x) takes
O(D H), where a network for each pixel takes O(D^2 H).
Shapes: B batch, C channels, H height, W width, D dimensions, N of a part of them, F hidden units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dlx.config import checks
from dlx.random import generator
from dlx.runs.media import grid
from dlx.tasks.density import Autoregressive, require_binary
from dlx.tasks.spec import Images

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlx.tasks.system import Batch

LARGEST = 2**22  # numbers of a part [B, N, F]: 16 MiB, of which a few are alive at a time
ORDERINGS = ("raster", "random")


def chosen_order(ordering: str, dimensions: int, seed: int) -> Tensor:
    """Positions in the order of the conditionals, int64 [D], on the CPU: 0, 1, ..., or a permutation that is drawn from
    the seed."""
    checks.one_of(ORDERINGS, ordering=ordering)
    if ordering == "raster":
        return torch.arange(dimensions, device="cpu")
    return torch.randperm(dimensions, generator=generator(seed, "ordering"), device="cpu")


def over_prefixes(x_BD: Tensor, weight_DF: Tensor, bias_F: Tensor, head: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """What a head makes of the activations before each dimension, [B, D, ...].

    head(a_BNF, part): of the dimensions in `part`, where a_i = bias + sum over j < i of weight_j x_j. The sum leaves
    x_i out by a shift, not by taking x_i off again, which would leave its rounding. More than 16 MiB of activations are
    made in parts, and made again in the backward pass, so that memory does not grow with D.
    """
    B, D = x_BD.shape
    size = max(1, LARGEST // max(1, B * weight_DF.shape[1]))

    def part_of(a_BF: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        added_BNF = x_BD[:, part].unsqueeze(-1) * weight_DF[part]
        a_BNF = torch.cat([a_BF.unsqueeze(1), added_BNF[:, :-1]], 1).cumsum(1)
        return head(a_BNF, part), a_BNF[:, -1] + added_BNF[:, -1]

    a_BF, made = bias_F.expand(B, -1), []
    for start in range(0, D, size):
        part = slice(start, start + size)
        if size < D and torch.is_grad_enabled():
            out, a_BF = checkpoint(part_of, a_BF, part, use_reentrant=False, preserve_rng_state=False)
        else:
            out, a_BF = part_of(a_BF, part)
        made.append(out)
    return torch.cat(made, 1)


class NADE(Autoregressive):
    """Of binary images. hidden: units. ordering: raster, or random, a permutation that is drawn from ordering_seed.

    2 D hidden + hidden + D parameters. Images are completed in the order of the raster alone.
    """

    rank: Tensor

    def __init__(
        self,
        *,
        spec: Images,
        hidden: int = 500,
        ordering: Literal["raster", "random"] = "raster",
        ordering_seed: int = 0,
    ) -> None:
        super().__init__(spec=spec)
        require_binary(self.input, "NADE")
        checks.at_least(1, hidden=hidden)
        D = self.dimensions
        order = chosen_order(ordering, D, ordering_seed).to(self.order.device)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("rank", order.argsort(), persistent=False)  # where each position stands in the order
        # Rows are in the order of the conditionals.
        self.weight = nn.Parameter(torch.empty(D, hidden).uniform_(-1, 1) / D**0.5)
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.out_weight = nn.Parameter(torch.empty(D, hidden).uniform_(-1, 1) / hidden**0.5)
        self.out_bias = nn.Parameter(torch.zeros(D))

    def logits(self, x_BCHW: Tensor) -> Tensor:
        def head(a_BNF: Tensor, part: slice) -> Tensor:
            return (a_BNF.sigmoid() * self.out_weight[part]).sum(-1) + self.out_bias[part]

        x_BD = x_BCHW.flatten(1)[:, self.order]
        return over_prefixes(x_BD, self.weight, self.bias, head)[:, self.rank].unsqueeze(-1)

    def next_logits(self, x_BCHW: Tensor, step: int, cache: dict[str, Any]) -> Tensor:
        """One addition to the activations for each dimension: O(F) instead of O(D F)."""
        if step == 0:
            cache["a"] = self.bias.expand(len(x_BCHW), -1)
        else:
            last_B1 = x_BCHW.flatten(1)[:, self.order[step - 1]].unsqueeze(1)
            cache["a"] = cache["a"] + last_B1 * self.weight[step - 1]
        return (cache["a"].sigmoid() @ self.out_weight[step] + self.out_bias[step]).unsqueeze(1)

    def showcase(self, batch: Batch) -> dict[str, Any]:
        """And the weights of the hidden units that weigh most, as images."""
        strength_F = self.weight.norm(dim=0) * self.out_weight.norm(dim=0)
        most = strength_F.topk(min(36, len(strength_F))).indices
        filters_NHW = self.weight[self.rank][:, most].T.unflatten(1, self.input.shape[1:])
        return {**super().showcase(batch), "filters": grid(draw_filters(filters_NHW))}


def draw_filters(filters_NHW: Tensor) -> Tensor:
    """Weights as pixels, uint8 [N, H, W, 3]: 0 is white, above it red and below it blue, each image on a scale of its
    own."""
    share_NHW = filters_NHW.float().cpu() / filters_NHW.abs().amax((1, 2), keepdim=True).clamp_min(1e-12).cpu()
    above_NHW1, below_NHW1 = share_NHW.clamp_min(0).unsqueeze(-1), (-share_NHW).clamp_min(0).unsqueeze(-1)
    red, blue = torch.tensor([178.0, 24.0, 43.0]), torch.tensor([33.0, 102.0, 172.0])
    return (255 - above_NHW1 * (255 - red) - below_NHW1 * (255 - blue)).round().to(torch.uint8)
