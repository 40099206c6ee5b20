"""Without a nonlinearity, layers multiply out to one affine map: a deep linear network fits as a straight line does."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dlx.claims.claim import Experiment, Verdict
from dlx.claims.drawing import legend_beside
from dlx.claims.reading import mean_and_error, of_seeds, variants
from dlx.config import Config, build, settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlx.runs.folder import RunFolder

ACTIVATIONS = ("identity", "relu")


class LinearStaysLinear(Experiment):
    """seeds: trainings with each activation."""

    claim = "Stacked linear layers are one linear layer: only the nonlinearity between lets depth fit more"

    def __init__(self, *, seeds: int = 3) -> None:
        if seeds < 1:
            raise ValueError(f"seeds must be at least 1, got {seeds}")
        self.seeds = seeds

    def members(self, base: Config) -> dict[str, Config]:
        return variants(base, {name: [f"model.activation={name}"] for name in ACTIVATIONS}, self.seeds)

    def measure(self, base: Config, runs: Mapping[str, RunFolder]) -> dict[str, Any]:
        from dlx.training.run import evaluate_run, open_run

        dataset = build(base, "dataset")
        split = settings(base, "dataset").split(dataset)["train"]
        data = split.source.take(split.index)
        slope, intercept, best = best_line(data["features"].double(), data["target"].double())
        x_N1 = torch.linspace(dataset.low, dataset.high, 400).unsqueeze(1)
        found: dict[str, Any] = {"line": {"slope": slope, "intercept": intercept, "mse": best}}
        for name in ACTIVATIONS:
            of_activation = of_seeds(runs, name)
            systems = [open_run(run, "train", trust=base.trust)[0].cpu() for run in of_activation]
            with torch.no_grad():
                fits = [system(x_N1)[:, 0].tolist() for system in systems]
            errors = [evaluate_run(run, "train", trust=base.trust)["train/mse"] for run in of_activation]
            found[name] = {
                "mse": errors,
                "fits": fits,
                "affine_error": [affine_error(system, x_N1) for system in systems],
            }
        order = data["features"][:, 0].argsort()
        found["data"] = [data[key][order, 0].tolist() for key in ("features", "target")]
        found["x"] = x_N1[:, 0].tolist()
        return found

    def figure(self, measured: Mapping[str, Any]) -> Figure:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(12, 4.4), layout="constrained")
        fits, errors = figure.subplots(1, 2, width_ratios=[1.6, 1])
        fits.plot(*measured["data"], ".", color="0.75", markersize=4, label="training samples")
        colors = {"identity": "tab:blue", "relu": "tab:orange"}
        for name, color in colors.items():
            for number, fit in enumerate(measured[name]["fits"]):
                fits.plot(measured["x"], fit, color=color, linewidth=1.5, label=None if number else f"MLP, {name}")
        line = measured["line"]
        straight = [line["slope"] * x + line["intercept"] for x in measured["x"]]
        fits.plot(measured["x"], straight, "k--", linewidth=1.2, label="least squares")
        fits.set(xlabel="x", ylabel="y", title="what the networks fit")
        legend_beside(fits)
        for at, (name, color) in enumerate(colors.items()):
            values = measured[name]["mse"]
            errors.plot([at] * len(values), values, "o", color=color, markersize=8, alpha=0.7)
        errors.axhline(line["mse"], color="k", linestyle="--", linewidth=1.2)
        errors.set(
            title="how far they are off", yscale="log", xlim=(-0.6, 1.6),
            ylabel="mean squared error on the training samples", ylim=(None, 3 * line["mse"]),
        )  # fmt: skip
        errors.set_xticks([0, 1], list(colors))
        return figure

    def verdict(self, measured: Mapping[str, Any]) -> Verdict:
        line = measured["line"]["mse"]
        linear, bent = (measured[name] for name in ACTIVATIONS)
        product, above = max(linear["affine_error"]), max(linear["mse"]) / line - 1
        # No affine map is below the best one; the float32 of an evaluation may be, by its rounding.
        at_the_line = min(linear["mse"]) / line - 1 > -1e-5 and above < 0.02
        held = product < 1e-12 and at_the_line and max(bent["mse"]) < line / 2
        return Verdict(
            held,
            f"the trained layers multiply out to one affine map (to {product:.0e}, in float64); mean squared error "
            f"{mean_and_error(linear['mse'])[0]:.4f}, the best straight line's {line:.4f} (at most {above:.1%} above); "
            f"with ReLU {mean_and_error(bent['mse'])[0]:.2g}",
        )


def best_line(x_N1: Tensor, y_N1: Tensor) -> tuple[float, float, float]:
    """Slope, intercept and mean squared error of least squares."""
    design_N2 = torch.cat([x_N1, torch.ones_like(x_N1)], dim=1)
    solution_21 = torch.linalg.lstsq(design_N2, y_N1).solution
    error = (design_N2 @ solution_21 - y_N1).square().mean()
    return float(solution_21[0]), float(solution_21[1]), float(error)


def multiplied(layers: nn.Module) -> tuple[Tensor, Tensor]:
    """The weight [out, in] and bias [out] of the one affine map that the linear layers are without what is between."""
    linear = [layer for layer in layers.modules() if isinstance(layer, nn.Linear)]
    first, *rest = linear
    weight, bias = first.weight.double(), first.bias.double()
    for layer in rest:
        weight, bias = layer.weight.double() @ weight, layer.weight.double() @ bias + layer.bias.double()
    return weight, bias


def affine_error(layers: nn.Module, x_NF: Tensor) -> float:
    """The largest difference between a network and its one affine map, over the largest output, in float64."""
    with torch.no_grad():
        weight, bias = multiplied(layers)
        output = deepcopy(layers).double()(x_NF.double())
        return float((x_NF.double() @ weight.T + bias - output).abs().max() / output.abs().max())
