"""Regression: outputs [B, D] against real targets [B, D]."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dlx.runs.draw import subplots
from dlx.tasks.spec import Reals
from dlx.tasks.system import Answer, Report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlx.tasks.spec import Spec
    from dlx.tasks.system import Batch, Statistics, System

LOSSES: dict[str, Callable[..., Tensor]] = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}


class Regression:
    """The target of a regressor: mse, l1 or huber, mean over the target's dimensions.

    Metrics: loss, mse, mae, r2 (share of the targets' variance that is explained; 1 is perfect, 0 the mean).
    """

    monitor = ("val/loss", "min")
    gaps: ClassVar[dict[str, int]] = {"loss": -1}

    def __init__(self, spec: Spec, input_name: str, target_name: str, loss: str) -> None:
        if loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)} for real targets, got {loss!r}")
        self.input, self.input_name, self.target_name = spec.entries[input_name], input_name, target_name
        self.name = loss
        self.metric_names: tuple[str, ...] = ("loss", "mse", "mae", "r2")

    def _per_sample(self, output: Tensor, target: Tensor) -> Tensor:
        return LOSSES[self.name](output, target, reduction="none").flatten(1).mean(-1)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        per_sample_B = self._per_sample(output, batch[self.target_name])
        if "weight" in batch:
            per_sample_B = per_sample_B * batch["weight"]
        return per_sample_B.mean()

    def logs(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {}

    def statistics(self, output: Tensor, batch: Batch) -> Statistics:
        output, target = output.double(), batch[self.target_name].double()
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

    def predict(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"target": output.float()}

    def answer(self, system: System, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        rows = predicted["target"].tolist()
        return [Answer(" ".join(f"{value:.6g}" for value in row), {"values": row}) for row in rows]

    def report(self, statistics: Statistics) -> Report:
        return Report()

    def showcase(self, output: Tensor, batch: Batch) -> dict[str, Any]:
        """The fit over a single feature; with several features, predictions against targets."""
        target = batch[self.target_name].float().cpu()[:, 0]
        predicted = output.float().cpu()[:, 0]
        figure, axes = subplots(size=(7, 4))
        if isinstance(self.input, Reals) and self.input.size == 1:
            features = batch[self.input_name].float().cpu()
            order = features[:, 0].argsort()
            x = features[order, 0].numpy()
            if f"training/{self.input_name}" in batch:
                seen, wanted = (batch[f"training/{name}"].float().cpu() for name in (self.input_name, self.target_name))
                axes.plot(
                    seen[:, 0].numpy(), wanted[:, 0].numpy(), ".", color="tab:orange", ms=4, label="training data"
                )
            axes.plot(x, target[order].numpy(), ".", color="0.6", ms=3, label="held-out data")
            axes.plot(x, predicted[order].numpy(), color="tab:blue", label="prediction")
            axes.set(xlabel="x", ylabel="y", title="prediction over the input")
        else:
            axes.plot(target.numpy(), predicted.numpy(), ".", label="samples")
            axes.axline((float(target.mean()),) * 2, slope=1, color="0.6")
            axes.set(xlabel="target", ylabel="prediction", title="prediction against target")
        figure.legend(loc="outside right upper", frameon=False)  # on the data it would hide them
        return {"fit": figure}
