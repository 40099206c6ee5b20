"""Every optimizer of the course: loss curves on one plot, paths in a valley and off a saddle, effective steps."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from dlx.claims.claim import Claim, Figure, Measured, Runs, Variants, Verdict
from dlx.claims.common import draw_guessing, finals, guessing, legend_beside, mean_curve
from dlx.claims.descent import descent_path, make_optimizer, momentum_path, optimizer_path
from dlx.config import Config, compose
from dlx.config.checks import at_least

NAMES = (
    "sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam", "adamw", "radam", "adamp", "sgdp",
)  # fmt: skip
VALLEY, SADDLE = (1.0, 100.0), (1.0, -1.0)  # curvatures of 1/2 sum h x^2
# Learning rates for the valley and the saddle; SGD is stable below 2 / 100 in the valley. On vectors SGDP is Nesterov's
# momentum and AdamP is Adam, so they are not drawn.
TOY = {
    "sgd": 0.018, "momentum": 0.004, "nesterov": 0.004, "adagrad": 0.3, "adadelta": 20.0, "rmsprop": 0.02, "adam": 0.05,
    "radam": 0.01,
}  # fmt: skip
STEPS = 300
BAR = 0.95


class Optimizers(Claim):
    """seeds: trainings of each optimizer on the digits."""

    claim = "With the right learning rate each optimizer trains the network; adaptive ones leave a saddle fast"
    size = (13.5, 9)

    def __init__(self, *, seeds: int = 3) -> None:
        at_least(1, seeds=seeds)
        self.seeds = seeds

    def variants(self, base: Config) -> Variants:
        return {name: [f"optim={name}"] for name in NAMES}

    def measure(self, base: Config, runs: Runs) -> Measured:
        makers = {name: compose([f"optim={name}"], base=base) for name in TOY}

        def walk(name: str, curvature: tuple[float, ...], start: tuple[float, ...], lr: float) -> np.ndarray:
            h = torch.tensor(curvature, dtype=torch.float64)
            return optimizer_path(partial(make_optimizer, makers[name], lr=lr), lambda x: h * x, start, STEPS)

        valley = {name: walk(name, VALLEY, (1.0, 0.5), lr) for name, lr in TOY.items()}
        saddle = {name: walk(name, SADDLE, (1.0, 1e-3), lr) for name, lr in TOY.items()}
        known = {
            "sgd": (valley["sgd"], descent_path((1.0, 0.5), VALLEY, TOY["sgd"], STEPS)),
            "momentum": (valley["momentum"], momentum_path((1.0, 0.5), VALLEY, TOY["momentum"], 0.9, STEPS)),
            "sgd, saddle": (saddle["sgd"], descent_path((1.0, 1e-3), SADDLE, TOY["sgd"], STEPS)),
        }
        return {
            "guessing": guessing(base),
            "curves": {name: mean_curve(runs[name], "train/loss") for name in NAMES},
            "accuracy": {name: finals(runs[name], "test/accuracy") for name in NAMES},
            "valley": {name: points.tolist() for name, points in valley.items()},
            "saddle": {name: points.tolist() for name, points in saddle.items()},
            "closed_form_error": {
                name: float(np.abs(points - exact).max() / np.abs(exact).max())
                for name, (points, exact) in known.items()
            },
            "saddle_steps": {
                name: next((step for step, (_, y) in enumerate(points.tolist()) if abs(y) > 1), None)
                for name, points in saddle.items()
            },
            "effective_step": {name: effective_step(makers[name]) for name in ("adagrad", "rmsprop", "adadelta")},
        }

    def draw(self, measured: Measured, figure: Figure) -> None:
        losses, steps, valley, saddle = figure.subplots(2, 2).flat
        for name, curve in measured["curves"].items():
            losses.plot(curve["x"], curve["y"], label=name, linestyle="--" if name in ("adamp", "sgdp") else "-")
        draw_guessing(losses, measured["guessing"])
        losses.set(yscale="log", xlabel="epoch", ylabel="training loss", title="digits, each with its own lr")
        for name, values in measured["effective_step"].items():
            steps.plot(range(1, len(values) + 1), [v / values[0] for v in values], label=name)
        steps.set(
            xscale="log", yscale="log", xlabel="step", title="step per gradient over the first, noise of one size"
        )
        for axes, key, curvature in ((valley, "valley", VALLEY), (saddle, "saddle", SADDLE)):
            x, y = np.meshgrid(np.linspace(-1.2, 1.2, 200), np.linspace(-0.7, 0.7, 200))
            axes.contour(x, y, 0.5 * (curvature[0] * x**2 + curvature[1] * y**2), 20, colors="0.85", linewidths=0.7)
            for name, points in measured[key].items():
                axes.plot(*np.array(points).T, label=name, marker=".", markersize=2, linewidth=0.8)
            axes.set(xlim=(-1.2, 1.2), ylim=(-0.7, 0.7), title=f"{key}: {STEPS} steps")
        for axes in (losses, steps, valley, saddle):
            legend_beside(axes)

    def verdict(self, measured: Measured) -> Verdict:
        worst = {name: min(values, default=0.0) for name, values in measured["accuracy"].items()}
        name = min(worst, key=lambda key: worst[key])
        error = max(measured["closed_form_error"].values())
        slopes = {key: slope(values) for key, values in measured["effective_step"].items()}
        leaves = measured["saddle_steps"]
        held = (
            worst[name] >= BAR
            and error < 1e-9
            and abs(slopes["adagrad"] + 0.5) < 0.05
            and abs(slopes["rmsprop"]) < 0.05
            and (leaves["adam"] or STEPS) < (leaves["sgd"] or STEPS + 1)
        )
        return Verdict(
            held,
            f"each of {len(worst)} optimizers reaches {worst[name]:.4f} or more on digits (least: {name}); paths equal "
            f"closed forms to {error:.0e}; Adagrad's step shrinks as t^{slopes['adagrad']:.2f}, RMSprop's as "
            f"t^{slopes['rmsprop']:.2f}; off the saddle Adam is in {leaves['adam']} steps, SGD in "
            f"{leaves['sgd'] or f'more than {STEPS}'}",
        )


def effective_step(config: Config, steps: int = 2000) -> list[float]:
    """|change| / |gradient| at each step, the root mean square over 256 weights whose gradients are N(0, 1) draws."""
    rng = torch.Generator().manual_seed(0)
    weights = torch.zeros(256, requires_grad=True)
    optimizer = make_optimizer(config, [weights], config["optimizer"]["lr"])
    found = []
    for _ in range(steps):
        before = weights.detach().clone()
        weights.grad = torch.randn(256, generator=rng)
        optimizer.step()
        found.append(((weights.detach() - before).norm() / weights.grad.norm()).item())
    return found


def slope(values: list[float]) -> float:
    """The exponent of t, fitted over the last nine tenths of the steps."""
    t = np.arange(1, len(values) + 1)[len(values) // 10 :]
    return float(np.polyfit(np.log(t), np.log(values[len(values) // 10 :]), 1)[0])
