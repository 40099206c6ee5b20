"""Markov pixels: p(x) is a product of tables, one for each pixel given the level of one other that comes before it.

Each channel is given the same channel of that pixel. By counts a closed form, p(level | given) = (count + smoothing) /
(all counts + smoothing K); by gradient tables of logits, which go to the same without smoothing. Of n binary pixels in
a chain it has 2n - 1 free numbers, where independent pixels have n and a table of all images 2^n - 1.
Shapes: B batch, C channels, H height, W width, D dimensions, G levels of the given pixel, K levels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from dlx.config import checks
from dlx.runs.media import grid
from dlx.tasks import structure
from dlx.tasks.density import Autoregressive
from dlx.tasks.spec import Images

if TYPE_CHECKING:
    from dlx.tasks.system import Batch, Objective

GIVEN = ("above", "left", "previous")
MOST = 2**27  # entries of the tables: 512 MiB


class MarkovPixels(Autoregressive):
    """given: the pixel above, the left one in the row, or the previous one in the raster, which for the first of a row
    is the last of the row above. by: counts, or gradient. smoothing: added to each count."""

    table: Tensor
    parent: Tensor
    has_parent: Tensor

    def __init__(
        self,
        *,
        spec: Images,
        given: Literal["above", "left", "previous"] = "above",
        by: Literal["counts", "gradient"] = "counts",
        smoothing: float = 1.0,
    ) -> None:
        super().__init__(spec=spec)
        checks.one_of(GIVEN, given=given)
        checks.one_of(("counts", "gradient"), by=by)
        if not smoothing > 0:
            raise ValueError(f"smoothing must be above 0, or a new level would have no probability, got {smoothing}")
        D, K, (C, H, W) = self.dimensions, self.levels, self.input.shape
        if D * K * K > MOST:
            raise ValueError(
                f"spec must be of images whose tables have at most {MOST:,} entries, got {D * K * K:,}: "
                f"{K} levels of {D} dimensions given {K} of another (dataset.image_size)"
            )
        self.by, self.smoothing = by, smoothing
        position_D = torch.arange(D)
        back = W * C if given == "above" else C
        has_parent_D = position_D % (W * C) >= C if given == "left" else position_D >= back
        # Without a pixel before it, a table is that of level 0 alone.
        self.register_buffer("parent", (position_D - back).clamp_min(0), persistent=False)
        self.register_buffer("has_parent", has_parent_D, persistent=False)
        self.first = {"above": W * C, "left": H * C, "previous": C}[given]
        table_DGK = torch.zeros(D, K, K)
        if by == "counts":
            self.register_buffer("table", table_DGK)
        else:
            self.table = nn.Parameter(table_DGK)

    @property
    def free_numbers(self) -> int:
        return structure.markov(self.dimensions, self.levels, first=self.first)

    def objectives(self, stage: int = 0) -> list[Objective]:
        return [] if self.by == "counts" else super().objectives(stage)

    def given_levels(self, levels_BD: Tensor) -> Tensor:
        """The level that each dimension is given, int64 [B, D]; 0 for those without a pixel before them."""
        return levels_BD[:, self.parent] * self.has_parent

    @property
    def table_logits(self) -> Tensor:
        """[D, G, K]."""
        return (self.table + self.smoothing).log() if self.by == "counts" else self.table

    def outputs_of(self, table_DGK: Tensor) -> Tensor:
        """Of two levels the logit of level 1, [D, G, 1]."""
        return table_DGK[..., 1:] - table_DGK[..., :1] if self.outputs == 1 else table_DGK

    def logits(self, x_BCHW: Tensor) -> Tensor:
        position_D = torch.arange(self.dimensions, device=x_BCHW.device)
        return self.outputs_of(self.table_logits)[position_D, self.given_levels(self.flat_levels(x_BCHW))]

    def next_logits(self, x_BCHW: Tensor, step: int, cache: dict[str, Any]) -> Tensor:
        """A row of one table."""
        if not cache:
            cache["table"] = self.outputs_of(self.table_logits)
        given_B = self.flat_levels(x_BCHW)[:, self.parent[step]] * self.has_parent[step]
        return cache["table"][step, given_B]

    def fit(self, data: Any) -> None:
        if self.by != "counts":
            return
        D, K = self.dimensions, self.levels
        self.table.zero_()
        position_D = torch.arange(D, device=self.device)
        for batch in data.train.eval_batches():
            levels_BD = self.flat_levels(batch[self.input_name])
            entry_BD = (position_D * K + self.given_levels(levels_BD)) * K + levels_BD
            weight_B = batch.get("weight", torch.ones(len(levels_BD), device=self.device))
            self.table.view(-1).index_add_(0, entry_BD.flatten(), weight_B.repeat_interleave(D))

    def showcase(self, batch: Batch) -> dict[str, Any]:
        """And the mean of each pixel where the given one is black, and where it is white."""
        mean_DG = self.table_logits.softmax(-1) @ torch.arange(self.levels, device=self.device).float()
        mean_GD = mean_DG[:, [0, -1]].T.where(self.has_parent, mean_DG[:, 0])
        return {**super().showcase(batch), "table": grid(self.input.draw(self.image_of(mean_GD)))}
