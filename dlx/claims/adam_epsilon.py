"""Adam's epsilon is more than a guard against division by zero: it decides which gradients count as small."""

from __future__ import annotations

import torch

from dlx.claims.claim import Claim, Figure, Measured, Runs, Variants, Verdict
from dlx.claims.common import draw_guessing, finals, guessing, legend_beside, mean_and_error, mean_curve, ordered_colors
from dlx.claims.descent import make_optimizer
from dlx.config import Config
from dlx.config.checks import at_least, rising

SIZES = [10.0**exponent for exponent in range(-10, 3)]  # of gradients


class AdamEpsilon(Claim):
    """values: values of epsilon, rising. seeds: trainings with each value."""

    claim = "With a large epsilon Adam's step is no longer of one size, but follows the gradient; training slows"

    def __init__(self, *, values: tuple[float, ...] = (1e-8, 1e-4, 1e-2, 1.0), seeds: int = 3) -> None:
        rising(1, values=values)
        at_least(1, seeds=seeds)
        self.values, self.seeds = values, seeds

    def variants(self, base: Config) -> Variants:
        return {f"eps-{value:g}": [f"optim.eps={value}"] for value in self.values}

    def measure(self, base: Config, runs: Runs) -> Measured:
        guess = guessing(base)
        return {
            f"{value:g}": {
                "curve": mean_curve(runs[f"eps-{value:g}"], "probe/loss"),
                "accuracy": finals(runs[f"eps-{value:g}"], "test/accuracy"),
                "first_step": first_steps(base, value),
                "guessing": guess,
            }
            for value in self.values
        }

    def draw(self, measured: Measured, figure: Figure) -> None:
        steps, losses = figure.subplots(1, 2)
        for (value, found), color in zip(measured.items(), ordered_colors(len(measured)), strict=True):
            steps.plot(SIZES, found["first_step"], "o-", color=color)
            losses.plot(found["curve"]["x"], found["curve"]["y"], color=color, label=f"eps {value}")
        draw_guessing(losses, found["guessing"])
        steps.set(
            xscale="log", yscale="log", xlabel="size of a gradient", ylabel="first step, over lr",
            title="how far one gradient moves a weight",
        )  # fmt: skip
        losses.set(
            yscale="log", xlabel="epoch", ylabel="loss on training samples", title="what the training makes of it"
        )
        legend_beside(losses)

    def verdict(self, measured: Measured) -> Verdict:
        small, large = (measured[f"{value:g}"] for value in (self.values[0], self.values[-1]))
        at = SIZES.index(1e-4)
        # lr g / (|g| + eps): the first step of Adam, whose corrected moments are g and g^2.
        error = max(
            abs(step / (size / (size + float(value))) - 1)
            for value, found in measured.items()
            for size, step in zip(SIZES, found["first_step"], strict=True)
        )
        loss = [found["curve"]["y"][-1] for found in (small, large)]
        accuracy = [mean_and_error(found["accuracy"])[0] for found in (small, large)]
        return Verdict(
            error < 1e-3 and loss[1] > 2 * loss[0],
            f"a gradient of 1e-4 moves a weight by {small['first_step'][at]:.3g} lr with eps {self.values[0]:g} and "
            f"by {large['first_step'][at]:.3g} lr with {self.values[-1]:g} (lr g / (g + eps), to {error:.0e}); "
            f"loss at the end {loss[0]:.3g} against {loss[1]:.3g}, test accuracy {accuracy[0]:.4f} against "
            f"{accuracy[1]:.4f}",
        )


def first_steps(base: Config, epsilon: float) -> list[float]:
    """The size of the first step over lr, for gradients of each size."""
    weights = torch.zeros(len(SIZES), dtype=torch.float64, requires_grad=True)
    weights.grad = torch.tensor(SIZES, dtype=torch.float64)
    make_optimizer(base.with_value("optimizer", "eps", epsilon), [weights], lr=1.0).step()
    return (-weights.detach()).tolist()
