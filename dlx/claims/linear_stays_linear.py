"""Without a nonlinearity, layers multiply out to one affine map: a deep linear network fits as a straight line does."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from dlx.claims.claim import Claim, Figure, Measured, Runs, Variants, Verdict
from dlx.claims.common import legend_beside, mean_and_error
from dlx.config import Config, build, build_shared
from dlx.config.checks import at_least
from dlx.training.trained import evaluate_run, open_run

COLORS = {"identity": "tab:blue", "relu": "tab:orange"}  # by activation


class LinearStaysLinear(Claim):
    """seeds: trainings with each activation."""

    claim = "Stacked linear layers are one linear layer: only the nonlinearity between lets depth fit more"
    size = (12, 4.4)

    def __init__(self, *, seeds: int = 3) -> None:
        at_least(1, seeds=seeds)
        self.seeds = seeds

    def variants(self, base: Config) -> Variants:
        return {name: [f"model.activation={name}"] for name in COLORS}

    def measure(self, base: Config, runs: Runs) -> Measured:
        dataset = build(base, "dataset")
        split = build_shared(base, "dataset").split(dataset)["train"]
        data = split.source.take(split.index)
        slope, intercept, best = best_line(data["features"].double(), data["target"].double())
        x_N1 = torch.linspace(dataset.low, dataset.high, 400).unsqueeze(1)
        order = data["features"][:, 0].argsort()
        found: Measured = {
            "line": {"slope": slope, "intercept": intercept, "mse": best},
            "data": [data[key][order, 0].tolist() for key in ("features", "target")],
            "x": x_N1[:, 0].tolist(),
        }
        for name, of_activation in runs.items():
            systems = [open_run(run, "train", trust=base.trust)[0].cpu() for run in of_activation]
            with torch.no_grad():
                fits = [system(x_N1)[:, 0].tolist() for system in systems]
            found[name] = {
                "mse": [evaluate_run(run, "train", trust=base.trust)["train/mse"] for run in of_activation],
                "fits": fits,
                "affine_error": [affine_error(system, x_N1) for system in systems],
            }
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
        fits, errors = figure.subplots(1, 2, width_ratios=[1.6, 1])
        fits.plot(*measured["data"], ".", color="0.75", markersize=4, label="training samples")
        for at, (name, color) in enumerate(COLORS.items()):
            for number, fit in enumerate(measured[name]["fits"]):
                fits.plot(measured["x"], fit, color=color, linewidth=1.5, label=None if number else f"MLP, {name}")
            values = measured[name]["mse"]
            errors.plot([at] * len(values), values, "o", color=color, markersize=8, alpha=0.7)
        line = measured["line"]
        straight = [line["slope"] * x + line["intercept"] for x in measured["x"]]
        fits.plot(measured["x"], straight, "k--", linewidth=1.2, label="least squares")
        fits.set(xlabel="x", ylabel="y", title="what the networks fit")
        legend_beside(fits)
        errors.axhline(line["mse"], color="k", linestyle="--", linewidth=1.2)
        errors.set(
            title="how far they are off", yscale="log", xlim=(-0.6, 1.6),
            ylabel="mean squared error on the training samples", ylim=(None, 3 * line["mse"]),
        )  # fmt: skip
        errors.set_xticks([0, 1], list(COLORS))

    def verdict(self, measured: Measured) -> Verdict:
        line = measured["line"]["mse"]
        linear, bent = (measured[name] for name in COLORS)
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


def affine_map(layers: nn.Module) -> tuple[Tensor, Tensor]:
    """The weight [out, in] and bias [out] of the product of the linear layers, without what is between them."""
    first, *rest = [layer for layer in layers.modules() if isinstance(layer, nn.Linear)]
    weight, bias = first.weight.double(), first.bias.double()
    for layer in rest:
        weight, bias = layer.weight.double() @ weight, layer.weight.double() @ bias + layer.bias.double()
    return weight, bias


def affine_error(layers: nn.Module, x_NF: Tensor) -> float:
    """The largest difference between a network and its one affine map, over the largest output, in float64."""
    with torch.no_grad():
        weight, bias = affine_map(layers)
        output = deepcopy(layers).double()(x_NF.double())
        return float((x_NF.double() @ weight.T + bias - output).abs().max() / output.abs().max())
