"""RNADE (Uria, Murray & Larochelle 2013, arXiv:1306.0186): NADE of real numbers, a mixture of Gaussians for each.

h_i = relu(rho_i (c + sum over j < i of W_j x_j)), and from h_i a linear layer of its own for the weights, means and
log standard deviations of p(x_i | those before). Of points log p(x) is a density's.

Of images it is a bound on the probability of their levels. With u uniform in [0, 1) for each value, P(levels) is the
integral of the density p over levels + u, and by Jensen's inequality (Theis et al. 2016, arXiv:1511.01844, 3.1)
log P(levels) >= E_u log p(levels + u), so that nll is in nats, never below that of the levels, and compares with models
that have a softmax over them. The network reads z = 4 (level + u) / K - 2, of which log p(levels + u) is
log p(z) + D ln(4 / K). One u is drawn in each training step; an evaluation draws one for each sample by its index.
Shapes: B batch, D dimensions, N of a part of them, F hidden units, M components, S = 3 M.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.models.generative.nade import chosen_order, over_prefixes
from dlx.random import uniform_rows
from dlx.tasks.density import POINTS, Density, draw_points, levels_of
from dlx.tasks.spec import Image, Images, Points

if TYPE_CHECKING:
    from dlx.tasks.system import Batch

WIDTH = 4.0  # of the interval that an image's values are spread over, which has a standard deviation near 1
GRID = 160  # points on a side of a picture of a density


class RNADE(Density):
    """Of points or of images. hidden: units. components: Gaussians of each conditional. least_std: below which none
    falls, or the density of a value that comes again would be without bound. ordering: as of NADE, of an image's values
    or a point's coordinates."""

    order: Tensor
    rank: Tensor

    def __init__(
        self,
        *,
        spec: Points | Images,
        hidden: int = 128,
        components: int = 20,
        least_std: float = 1e-3,
        ordering: Literal["raster", "random"] = "raster",
        ordering_seed: int = 0,
    ) -> None:
        super().__init__(spec=spec)
        checks.at_least(1, hidden=hidden, components=components)
        checks.above(0, least_std=least_std)
        D, M = self.dimensions, components
        self.levels = levels_of(self.input) if isinstance(self.input, Image) else 0  # 0: real numbers
        self.least_std = least_std
        order = chosen_order(ordering, D, ordering_seed).to(torch.empty(0).device)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("rank", order.argsort(), persistent=False)
        # Rows are in the order of the conditionals.
        self.weight = nn.Parameter(torch.empty(D, hidden).uniform_(-1, 1) / D**0.5)
        self.bias = nn.Parameter(torch.empty(hidden).uniform_(-1, 1))
        self.rescale = nn.Parameter(torch.ones(D))
        self.out_weight = nn.Parameter(torch.empty(D, hidden, 3 * M).uniform_(-1, 1) / hidden**0.5)
        means_M = torch.linspace(-2, 2, M) if M > 1 else torch.zeros(1)
        start_S = torch.cat([torch.zeros(M), means_M, torch.full((M,), math.log(2 / M))])
        self.out_bias = nn.Parameter(start_S.repeat(D, 1))

    # The network.

    def head(self, a_BNF: Tensor, part: slice) -> Tensor:
        """Weights' logits, means and log standard deviations, [B, N, 3 M]."""
        h_BNF = (a_BNF * self.rescale[part].unsqueeze(-1)).relu()
        return torch.einsum("bnf,nfs->bns", h_BNF, self.out_weight[part]) + self.out_bias[part]

    def mixture_log_prob(self, out_BNS: Tensor, z_BN: Tensor) -> Tensor:
        """log p of each value under its mixture, [B, N]."""
        logits_BNM, mean_BNM, log_std_BNM = out_BNS.chunk(3, -1)
        std_BNM = log_std_BNM.exp() + self.least_std
        each_BNM = -0.5 * ((z_BN.unsqueeze(-1) - mean_BNM) / std_BNM).square() - std_BNM.log()
        return (logits_BNM.log_softmax(-1) + each_BNM).logsumexp(-1) - 0.5 * math.log(2 * math.pi)

    def conditionals(self, z_BD: Tensor) -> Tensor:
        """log p(z_i | those before it), [B, D], in the order of the conditionals, as z is."""
        return self.mixture_log_prob(over_prefixes(z_BD, self.weight, self.bias, self.head), z_BD)

    # What it reads and makes.

    def log_prob(self, batch: Batch) -> Tensor:
        z_BD, shift = self.values(batch)
        return self.conditionals(z_BD[:, self.order]).sum(1) + shift

    def values(self, batch: Batch) -> tuple[Tensor, float]:
        """What the network reads, [B, D], and what its log p lacks to that of the points or levels."""
        x = batch[self.input_name]
        if not isinstance(self.input, Image):
            return x, 0.0
        level_BD = self.input.levels(x).movedim(1, -1).flatten(1)
        if self.training:
            u_BD = torch.rand_like(level_BD, dtype=torch.float32)
        else:
            u_BD = uniform_rows("dequantize", batch["index"], self.dimensions)
        z_BD = WIDTH * ((level_BD + u_BD) / self.levels - 0.5)
        return z_BD, self.dimensions * math.log(WIDTH / self.levels)

    @torch.no_grad()
    def sample(self, count: int, *, temperature: float = 1.0, use_cache: bool = True) -> Batch:
        """temperature: multiplies the standard deviations. use_cache: false computes the activations anew for each
        value, and gives the same."""
        if temperature < 0:
            raise UserError(f"--given temperature: must be at least 0, got {temperature:g}")
        z_BD = torch.zeros(count, self.dimensions, device=self.device)
        a_BF = self.bias.expand(count, -1)
        for step in range(self.dimensions):
            if not use_cache:
                a_BF = self.bias + z_BD[:, :step] @ self.weight[:step]
            out_BS = self.head(a_BF.unsqueeze(1), slice(step, step + 1))[:, 0]
            z_B = self.draw_value(out_BS, temperature)
            # A level is never read as more than the interval that it was spread over.
            z_BD[:, step] = z_B.clamp(-WIDTH / 2, WIDTH / 2) if self.levels else z_B
            a_BF = a_BF + z_BD[:, step : step + 1] * self.weight[step]
        return {self.input_name: self.from_values(z_BD[:, self.rank])}

    def draw_value(self, out_BS: Tensor, temperature: float) -> Tensor:
        """A value of each mixture, [B], by one uniform number for the component and a normal one for the place."""
        logits_BM, mean_BM, log_std_BM = out_BS.chunk(3, -1)
        u_B1 = torch.rand(len(out_BS), 1, device=out_BS.device)
        below_BM = logits_BM.softmax(-1).cumsum(-1) <= u_B1
        chosen_B1 = below_BM.sum(-1, keepdim=True).clamp_max(logits_BM.shape[-1] - 1)
        std_B1 = log_std_BM.gather(1, chosen_B1).exp() + self.least_std
        place_B1 = torch.randn_like(std_B1) * temperature
        return (mean_BM.gather(1, chosen_B1) + std_B1 * place_B1)[:, 0]

    def from_values(self, z_BD: Tensor) -> Tensor:
        """Points, or images whose levels are those that the values fall into."""
        if not self.levels:
            return z_BD
        level_BD = ((z_BD / WIDTH + 0.5) * self.levels).floor().clamp(0, self.levels - 1)
        C, H, W = self.input.shape
        return (level_BD / (self.levels - 1)).view(-1, H, W, C).movedim(-1, 1)

    def showcase(self, batch: Batch) -> dict[str, Any]:
        """Samples; of points in the plane beside them the density, over the part of it where the data lie."""
        if self.levels or self.dimensions != 2:
            return super().showcase(batch)
        data_B2 = batch[self.input_name]
        low, high = data_B2.min(0).values, data_B2.max(0).values
        margin = 0.15 * (high - low)
        x_G, y_G = (
            torch.linspace(float(start), float(end), GRID, device=self.device)
            for start, end in zip(low - margin, high + margin, strict=True)
        )
        points = torch.cartesian_prod(y_G, x_G).flip(1)
        p_GG = self.log_prob({self.input_name: points}).exp().view(GRID, GRID)
        made = self.sample(POINTS)
        return {"samples": draw_points(data_B2, made[self.input_name], (x_G, y_G, p_GG))}
