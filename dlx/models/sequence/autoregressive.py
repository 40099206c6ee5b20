"""AR-n (Yule 1927): each step from a fixed window of those before it, by a linear map or an MLP.

On real values the linear map is fitted by least squares in closed form. On tokens it is the first neural language model
(Bengio et al. 2003): the tokens' embeddings side by side, a hidden layer, a softmax. What lies before the window is
lost; with `window=null` it is all of the past, at the cost of weights for each step of it.
Shapes: B batch, L steps, E width of a step, n window, D = n E.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.models.sequence.steps import Steps, require_longer
from dlx.tasks.generation import Cache
from dlx.tasks.sequence import SequenceModel
from dlx.tasks.spec import RealSequence, Series, Streams

if TYPE_CHECKING:
    from typing import Any

    from dlx.tasks.system import Objective

EMBEDDING = 32


class FixedLinear(nn.Module):
    """x W + b whose W [D, K] and b [K] are buffers: what a closed form finds, and no gradient changes."""

    weight: Tensor
    bias: Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(in_features, out_features))
        self.register_buffer("bias", torch.zeros(out_features))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Autoregressive(SequenceModel):
    """window: steps that the next one is told from, n; null: all. hidden: widths of an MLP's layers (tanh); none is the
    linear model. embedding: width of a token's vector (null: 32). by: least_squares (closed form, of the linear model
    of real values), or gradient; null: the former where it can be.

    Steps whose window is not whole are not scored; with `window=null` what lies before the first step is zeros.
    """

    def __init__(
        self,
        *,
        spec: Series | Streams,
        window: int | None = 4,
        hidden: tuple[int, ...] = (),
        embedding: int | None = None,
        by: Literal["least_squares", "gradient"] | None = None,
        loss: str | None = None,
    ) -> None:
        checks.at_least(1, window=window)
        checks.one_of(("least_squares", "gradient"), by=by)
        if any(width < 1 for width in hidden):
            raise ValueError(f"hidden must hold widths of at least 1, got {list(hidden)}")
        self.given = window or 1
        require_longer(spec, window=self.given)
        super().__init__(spec=spec, loss=loss)
        can_solve = isinstance(self.input, RealSequence) and not hidden and embedding is None and loss in (None, "mse")
        if by == "least_squares" and not can_solve:
            raise ValueError("by must be gradient unless the model is linear, its values real and its loss mse")
        self.by = by or ("least_squares" if can_solve else "gradient")
        self.steps = Steps(self.input, embedding, default=EMBEDDING)
        self.window = window or max(1, self.steps.length - 1)
        widths = [self.window * self.steps.width, *hidden]
        layers = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in pairwise(widths)]
        self.layers = nn.Sequential(*layers)
        fixed = self.by == "least_squares"
        self.out = FixedLinear(widths[-1], self.num_outputs) if fixed else self.make_head(widths[-1])

    def objectives(self, stage: int = 0) -> list[Objective]:
        return [] if self.by == "least_squares" else super().objectives(stage)

    def windows(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """The window that ends with each step, the oldest first, [B, L, n E]."""
        before, n = self.window - 1, self.window
        steps_BLE = self.steps(x)
        if cache is not None and "steps" in cache:
            steps_BLE = torch.cat([cache["steps"], steps_BLE], 1)
        else:
            steps_BLE = F.pad(steps_BLE, (0, 0, before, 0))
        if cache is not None:
            cache["steps"] = steps_BLE[:, steps_BLE.shape[1] - before :]
        return steps_BLE.unfold(1, n, 1).transpose(2, 3).flatten(2)

    def features(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        h_BLD: Tensor = self.layers(self.windows(x, cache))
        return h_BLD

    def fit(self, data: Any) -> None:
        """Least squares over all windows of the training split, by QR of the rows that were read so far."""
        if self.by != "least_squares":
            return
        assert isinstance(self.out, FixedLinear)
        rows: list[Tensor] = []
        D = self.window * self.steps.width
        for batch in data.train.eval_batches():
            x_BLE = batch[self.input_name].cpu().double()
            inputs_BLD = self.windows(x_BLE)[:, self.given - 1 : -1]
            ones_BL1 = torch.ones_like(inputs_BLD[..., :1])
            part = torch.cat([inputs_BLD, ones_BL1, x_BLE[:, self.given :]], -1)  # [X 1 Y]
            if "weight" in batch:
                part = part * batch["weight"].cpu().double().sqrt().view(-1, 1, 1)
            rows.append(part.flatten(0, 1))
            if sum(map(len, rows)) > 100_000:
                rows = [torch.linalg.qr(torch.cat(rows), mode="r").R]  # has the same sums of squares
        triangle = torch.linalg.qr(torch.cat(rows), mode="r").R
        # gelsd: where windows are fewer than weights, the smallest ones that fit.
        found = torch.linalg.lstsq(triangle[:, : D + 1], triangle[:, D + 1 :], driver="gelsd").solution
        self.out.weight.copy_(found[:-1])
        self.out.bias.copy_(found[-1])
