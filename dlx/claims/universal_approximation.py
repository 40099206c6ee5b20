"""Universal approximation (Cybenko 1989; Hornik et al. 1989): with enough units one hidden layer comes close to any f.

The theorem says that such weights exist, not how they are found: here some are found by training, and some are written
down (a piecewise linear interpolant is a sum of ReLUs).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import product
from typing import Any, cast

import torch
from torch import Tensor, nn

from dlx.claims.claim import Claim, Figure, Measured, Runs, Variants, Verdict
from dlx.claims.common import falls, finals, legend_beside
from dlx.config import Config, build, compose
from dlx.config.checks import at_least, rising
from dlx.data.function1d import FUNCTIONS
from dlx.training.trained import open_run

POINTS = 1001  # at which fits are drawn
CURVATURE = (3 * math.pi) ** 2  # the largest |f''| of sin(3 pi x)


class UniversalApproximation(Claim):
    """functions: functions of data=function1d. widths: units of the one hidden layer. seeds: trainings of each width.
    knots: units of the networks whose weights are computed, for sin.
    """

    claim = "The error of a network with one hidden layer falls with its width, towards any continuous function"

    def __init__(
        self,
        *,
        functions: tuple[str, ...] = ("sin", "sinc", "polynomial"),
        widths: tuple[int, ...] = (2, 4, 16, 64, 256),
        seeds: int = 5,
        knots: tuple[int, ...] = (4, 8, 16, 32, 64),
    ) -> None:
        if not functions or not set(functions) <= set(FUNCTIONS):
            raise ValueError(f"functions must be some of {', '.join(FUNCTIONS)}, got {list(functions)}")
        rising(2, widths=widths, knots=knots)
        at_least(1, seeds=seeds)
        self.functions, self.widths, self.seeds, self.knots = functions, widths, seeds, knots

    def variants(self, base: Config) -> Variants:
        return {
            f"{function}-{width}": [f"data.function={function}", f"model.hidden=[{width}]"]
            for function, width in product(self.functions, self.widths)
        }

    def measure(self, base: Config, runs: Runs) -> Measured:
        x_N1 = torch.linspace(-1, 1, POINTS).unsqueeze(1)
        learned: Measured = {}
        for function in self.functions:
            found = learned[function] = {"target": FUNCTIONS[function](x_N1)[:, 0].tolist(), "mse": {}, "fits": {}}
            for width in self.widths:
                of_width = runs[f"{function}-{width}"]
                found["mse"][str(width)] = finals(of_width, "test/mse")
                systems = [open_run(run, "test", trust=base.trust)[0].cpu() for run in of_width]
                with torch.no_grad():
                    found["fits"][str(width)] = [system(x_N1)[:, 0].tolist() for system in systems]
        written = {str(knots): self._written(base, knots, x_N1.double()) for knots in self.knots}
        return {"x": x_N1[:, 0].tolist(), "learned": learned, "written": written}

    def _written(self, base: Config, knots: int, x_N1: Tensor) -> Measured:
        """The network of `knots` units that interpolates sin(3 pi x), and its errors."""
        config = compose([f"model.hidden=[{knots}]", "model.activation=relu", "data.function=sin"], base=base)
        layers = build(config, "model", spec=build(config, "dataset").spec).double().layers
        f = FUNCTIONS["sin"]
        with torch.no_grad():
            knots_K1 = interpolate(layers, f)
            fine_N1 = torch.linspace(-1, 1, 64 * 500 + 1, dtype=torch.float64).unsqueeze(1)
            return {
                "fit": layers(x_N1)[:, 0].tolist(),
                "at_knots": float((layers(knots_K1) - f(knots_K1)).abs().max()),
                "largest": float((layers(fine_N1) - f(fine_N1)).abs().max()),
                "bound": (2 / knots) ** 2 / 8 * CURVATURE,
            }

    def draw(self, measured: Measured, figure: Figure) -> None:
        learned, written, x = measured["learned"], measured["written"], measured["x"]
        columns = max(len(self.widths), len(self.knots))
        figure.set_size_inches(2.3 * columns + 3.6, 2.5 * (len(learned) + 1))
        grid = figure.subplots(len(learned) + 1, columns + 1, width_ratios=[1] * columns + [1.4], squeeze=False)
        for axes in grid[:, :-1].flat:
            axes.set(xticks=[], yticks=[], visible=False)

        def draw(axes: Any, target: list[float], fit: list[float], title: str, color: str) -> None:
            axes.plot(x, target, color="0.7", linewidth=3)
            axes.plot(x, fit, color=color, linewidth=1.3)
            low, high = min(target), max(target)
            axes.set(visible=True, title=title, ylim=(low - 0.25 * (high - low), high + 0.25 * (high - low)))

        for row, (function, found) in zip(grid, learned.items(), strict=False):
            for axes, (width, fits) in zip(row, found["fits"].items(), strict=False):
                errors = found["mse"][width]
                draw(axes, found["target"], fits[errors.index(min(errors))], f"{width} units", "tab:blue")
            row[0].set_ylabel(f"{function}, trained", visible=True)
            for width, errors in found["mse"].items():
                row[-1].plot([int(width)] * len(errors), errors, ".", color="0.6")
            row[-1].plot(self.widths, [min(errors) for errors in found["mse"].values()], "o-", color="tab:blue")
            row[-1].set(
                xscale="log", yscale="log", ylabel="mean squared error", title=f"{self.seeds} trainings, and the best"
            )
            row[-1].set_xticks(self.widths, [str(width) for width in self.widths])
        last = grid[-1]
        target = FUNCTIONS["sin"](torch.tensor(x)).tolist()
        for axes, (knots, found) in zip(last, written.items(), strict=False):
            draw(axes, target, found["fit"], f"{knots} units", "tab:orange")
        last[0].set_ylabel("sin, written down")
        last[-1].plot(self.knots, [found["bound"] for found in written.values()], "k--", label="h² max|f''| / 8")
        last[-1].plot(self.knots, [found["largest"] for found in written.values()], "o-", color="tab:orange")
        last[-1].set(xscale="log", yscale="log", xlabel="units", ylabel="largest error")
        last[-1].set_xticks(self.knots, [str(knots) for knots in self.knots])
        legend_beside(last[-1])
        for axes in grid[:, -1]:
            axes.minorticks_off()

    def verdict(self, measured: Measured) -> Verdict:
        """By the best training of each width: the claim is that weights exist. The line names a median that rises."""
        held, lines = True, []
        for function, found in measured["learned"].items():
            best, middle = ([of(errors) for errors in found["mse"].values()] for of in (min, statistics.median))
            held &= falls(best)
            rises = "" if falls(middle) else " (the median of the trainings does not always fall)"
            lines.append(f"{function} {_at(best, self.widths)} units{rises}")
        written = measured["written"].values()
        held &= all(found["largest"] <= found["bound"] and found["at_knots"] < 1e-12 for found in written)
        bounds = [f"{found['largest']:.4g} (bound {found['bound']:.4g})" for found in written]
        return Verdict(
            held,
            f"mean squared error, the best of {self.seeds}: {'; '.join(lines)}; largest error of the networks written "
            f"down for sin: {_at(bounds, self.knots)} units",
        )


def _at(values: Sequence[float | str], sizes: Sequence[int]) -> str:
    """`0.43 with 2, 0.31 with 4`."""
    texts = [value if isinstance(value, str) else f"{value:.3g}" for value in values]
    return ", ".join(f"{text} with {size}" for text, size in zip(texts, sizes, strict=True))


def interpolate(layers: nn.Sequential, f: Any, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Sets the weights of linear, ReLU, linear with K units so that it is f at K + 1 even knots and straight between:
    f(x_0) + sum over k of (slope after x_k - slope before it) relu(x - x_k). Returns the knots [K + 1, 1].
    """
    hidden, _, output = cast(tuple[nn.Linear, nn.Module, nn.Linear], tuple(layers))
    units = hidden.out_features
    knots_K1 = torch.linspace(low, high, units + 1, dtype=hidden.weight.dtype).unsqueeze(1)
    values_K1 = f(knots_K1)
    slopes_K = values_K1[:, 0].diff() / ((high - low) / units)
    with torch.no_grad():
        hidden.weight.fill_(1.0)
        hidden.bias.copy_(-knots_K1[:-1, 0])
        output.weight.copy_(slopes_K.diff(prepend=slopes_K.new_zeros(1)).unsqueeze(0))
        output.bias.copy_(values_K1[0])
    return knots_K1
