"""Regression: outputs [B, D] against real targets [B, D]."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from dlx.tasks.spec import Spec
    from dlx.tasks.system import Batch, Statistics

_LOSSES: dict[str, Callable[..., Tensor]] = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}


class Regression:
    """The target of a regressor: mse, l1 or huber, mean over the target's dimensions.

    Figures: loss, mse, mae, r2 (share of the targets' variance that is explained; 1 is perfect, 0 the mean).
    """

    monitor = ("val/loss", "min")
    gaps: ClassVar[dict[str, int]] = {"loss": -1}

    def __init__(self, spec: Spec, loss: str) -> None:
        if loss not in _LOSSES:
            raise ValueError(f"loss must be one of {', '.join(_LOSSES)} for real targets, got {loss!r}")
        self.spec = spec
        self.name = loss
        self.figures: tuple[str, ...] = ("loss", "mse", "mae", "r2")

    def _per_sample(self, output: Tensor, target: Tensor) -> Tensor:
        return _LOSSES[self.name](output, target, reduction="none").flatten(1).mean(-1)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        per_sample_B = self._per_sample(output, batch["target"])
        if "weight" in batch:
            per_sample_B = per_sample_B * batch["weight"]
        return per_sample_B.mean()

    def logs(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {}

    def statistics(self, output: Tensor, batch: Batch) -> Statistics:
        output, target = output.double(), batch["target"].double()
        residual = output - target
        return {
            "loss": self._per_sample(output, target).sum(),
            "squared": residual.square().mean(-1).sum(),
            "absolute": residual.abs().mean(-1).sum(),
            "target": target.sum(0),
            "target_squared": target.square().sum(0),
            "count": torch.tensor(len(target), device=target.device, dtype=torch.float64),
        }

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        count = statistics["count"]
        variance = (statistics["target_squared"] / count - (statistics["target"] / count).square()).mean()
        means = torch.stack([statistics["loss"], statistics["squared"], statistics["absolute"]]) / count
        loss, mse, mae, r2 = torch.cat([means, (1 - means[1] / variance).view(1)]).tolist()
        return {"loss": loss, "mse": mse, "mae": mae, "r2": r2}

    def predict(self, output: Tensor) -> dict[str, Tensor]:
        return {"target": output.float()}

    def showcase(self, output: Tensor, batch: Batch) -> dict[str, Any]:
        """The fit over a single feature; with several features, predictions against targets."""
        from matplotlib.figure import Figure

        features, target = batch["features"].float().cpu(), batch["target"].float().cpu()[:, 0]
        predicted = output.float().cpu()[:, 0]
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        if features.shape[1] == 1:
            order = features[:, 0].argsort()
            x = features[order, 0].numpy()
            axes.plot(x, target[order].numpy(), ".", color="0.6", label="data")
            axes.plot(x, predicted[order].numpy(), color="tab:blue", label="prediction")
            axes.set(xlabel="x", ylabel="y")
        else:
            axes.plot(target.numpy(), predicted.numpy(), ".", label="samples")
            axes.axline((float(target.mean()),) * 2, slope=1, color="0.6")
            axes.set(xlabel="target", ylabel="prediction")
        axes.legend()
        return {"fit": figure}
