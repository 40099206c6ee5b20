"""Series: predictions [B, T, F] of the next value at each step of a real-valued series [B, T, F]."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from dlx.runs.draw import drawable, subplots
from dlx.tasks.regression import LOSSES
from dlx.tasks.system import Answer, Report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlx.tasks.spec import RealSequence
    from dlx.tasks.supervised import Supervised
    from dlx.tasks.system import Batch, Statistics


SHOWN = 4  # values of a step that a picture shows, a panel each


class NextValue:
    """The head of a model of series: mse, l1 or huber of each value given those before it, mean over values.

    given: so many steps at the beginning of a window are read and not predicted.
    Metrics: loss, mse, and r2 (share of the values' variance that is explained).
    """

    monitor = ("val/loss", "min")
    gaps: ClassVar[dict[str, int]] = {"loss": -1}
    metric_names: tuple[str, ...] = ("loss", "mse", "r2")

    def __init__(self, series: RealSequence, input_name: str, loss: str, given: int = 1) -> None:
        if loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)} for real values, got {loss!r}")
        if series.length <= given:
            raise ValueError(f"series must be longer than the {given} steps that are given, got {series.length}")
        self.series, self.input_name, self.name, self.given = series, input_name, loss, given

    def _pairs(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Predictions and values, [B, T - given, F]."""
        return output[:, self.given - 1 : -1], batch[self.input_name][:, self.given :]

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        predicted_BTF, value_BTF = self._pairs(output, batch)
        per_sample_B = LOSSES[self.name](predicted_BTF, value_BTF, reduction="none").flatten(1).mean(1)
        if "weight" in batch:
            per_sample_B = per_sample_B * batch["weight"]
        return per_sample_B.mean()

    def logs(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {}

    def statistics(self, output: Tensor, batch: Batch) -> Statistics:
        predicted_BTF, value_BTF = (part.double() for part in self._pairs(output, batch))
        return {
            "loss": LOSSES[self.name](predicted_BTF, value_BTF, reduction="sum"),
            "squared": (predicted_BTF - value_BTF).square().sum(),
            "value": value_BTF.sum((0, 1)),
            "value_squared": value_BTF.square().sum((0, 1)),
            "count": torch.tensor(value_BTF.numel(), device=value_BTF.device),
        }

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        count = statistics["count"]
        steps = count / len(statistics["value"])
        variance = (statistics["value_squared"] / steps - (statistics["value"] / steps).square()).mean()
        mse = statistics["squared"] / count
        return {"loss": float(statistics["loss"] / count), "mse": float(mse), "r2": float(1 - mse / variance)}

    def predict(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """next: the value after the last one, [B, F]."""
        return {"next": output[:, -1].float()}

    def answer(self, system: Supervised, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        rows = predicted["next"].tolist()
        return [Answer(" ".join(f"{value:.6g}" for value in row), {"next": row}) for row in rows]

    def showcase(self, output: Tensor, batch: Batch) -> dict[str, Any]:
        """One window: its values, and each as it was predicted from those before it."""
        predicted_TF, value_TF = (part[0].float().cpu() for part in self._pairs(output[:1], batch))
        shown = min(SHOWN, value_TF.shape[1])
        figure, panels = subplots(shown, 1, size=(8, 2.2 * shown + 1), sharex=True, squeeze=False)
        steps = range(self.given, self.given + len(value_TF))
        for number, axes in enumerate(panels[:, 0]):
            values = batch[self.input_name][0, :, number].float().cpu().numpy()
            axes.plot(range(len(values)), values, ".", color="0.6", label="values")
            axes.plot(steps, predicted_TF[:, number].numpy(), color="tab:blue", label="predicted one step ahead")
            axes.set_ylabel(drawable(self.series.names[number]) if self.series.names else "value")
        panels[0, 0].set_title("each value predicted from those before it")
        panels[-1, 0].set_xlabel("step")
        figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        return {"one_step": figure}

    def report(self, statistics: Statistics) -> Report:
        return Report()
