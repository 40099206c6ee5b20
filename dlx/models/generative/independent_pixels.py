"""Independent pixels: p(x) is the product of a table for each pixel, the least structure that a density can have.

By counts a closed form, p(level) = (count + smoothing) / (N + smoothing K), Laplace's rule at 1; by gradient a table of
logits, which goes to the same. Of n binary pixels it has n parameters, where a table of all images has 2^n - 1.
Shapes: B batch, D dimensions, K levels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.runs.media import grid
from dlx.tasks import structure
from dlx.tasks.density import Autoregressive
from dlx.tasks.spec import Images

if TYPE_CHECKING:
    from dlx.tasks.system import Batch, Objective


class IndependentPixels(Autoregressive):
    """by: counts, or gradient. smoothing: added to each count."""

    table: Tensor

    def __init__(self, *, spec: Images, by: Literal["counts", "gradient"] = "counts", smoothing: float = 1.0) -> None:
        super().__init__(spec=spec)
        checks.one_of(("counts", "gradient"), by=by)
        if not smoothing > 0:
            raise ValueError(f"smoothing must be above 0, or a new level would have no probability, got {smoothing}")
        self.by, self.smoothing = by, smoothing
        table_DK = torch.zeros(self.dimensions, self.levels)
        if by == "counts":
            self.register_buffer("table", table_DK)
        else:
            self.table = nn.Parameter(table_DK)

    @property
    def free_numbers(self) -> int:
        return structure.independent(self.dimensions, self.levels)

    def objectives(self, stage: int = 0) -> list[Objective]:
        return [] if self.by == "counts" else super().objectives(stage)

    def logits(self, x_BCHW: Tensor) -> Tensor:
        table_DK = (self.table + self.smoothing).log() if self.by == "counts" else self.table
        if self.outputs == 1:
            table_DK = table_DK[:, 1:] - table_DK[:, :1]
        return table_DK.expand(len(x_BCHW), -1, -1)

    def fit(self, data: Any) -> None:
        if self.by != "counts":
            return
        self.table.zero_()
        for batch in data.train.eval_batches():
            one_hot_BDK = F.one_hot(self.flat_levels(batch[self.input_name]), self.levels).float()
            weight_B = batch.get("weight", torch.ones(len(one_hot_BDK), device=self.device))
            self.table += torch.einsum("bdk,b->dk", one_hot_BDK, weight_B)

    def showcase(self, batch: Batch) -> dict[str, Any]:
        """And the mean of each pixel."""
        logits_DK = (self.table + self.smoothing).log() if self.by == "counts" else self.table
        mean_1D = (logits_DK.softmax(-1) @ torch.arange(self.levels, device=self.device).float())[None]
        return {**super().showcase(batch), "table": grid(self.input.draw(self.image_of(mean_1D)))}
