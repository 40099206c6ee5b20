"""Batch size and flat minima (Keskar et al. 2016, arXiv:1609.04836), at matched training loss."""

from __future__ import annotations

from dlx.claims.claim import Claim, Figure, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals, guessing, mean_and_error, plus_minus
from dlx.config import Config
from dlx.config.checks import at_least
from dlx.training.sharpness import Landscape, sharpness
from dlx.training.trained import open_run

VALIDATE_EVERY = 500  # samples between two readings of the training loss, so that all stop near the target


class BatchSize(Claim):
    """sizes: batch sizes. rates: learning rate of each size, tuned for validation accuracy on other seeds.
    target: training loss at which every training stops. epsilon: size of the box in which sharpness is measured;
    Keskar's 1e-3 shows no ordering at this scale. seeds: trainings with each size.
    """

    claim = "Small batches end in flat minima, which generalize better; large batches in sharp ones"

    def __init__(
        self,
        *,
        sizes: tuple[int, ...] = (16, 64, 256, 1024, 4500),
        rates: tuple[float, ...] = (5e-4, 2e-3, 8e-3, 1.6e-2, 8e-3),
        target: float = 0.1,
        epsilon: float = 5e-3,
        seeds: int = 5,
    ) -> None:
        if len(sizes) < 2 or len(sizes) != len(rates):
            raise ValueError(f"sizes must be at least 2, with one of rates for each, got {list(sizes)}")
        at_least(2, seeds=seeds)
        self.sizes, self.rates, self.target, self.epsilon, self.seeds = sizes, rates, target, epsilon, seeds

    def variants(self, base: Config) -> Variants:
        return {
            f"batch-{size}": [
                f"data.batch_size={size}",
                f"optim.lr={rate}",
                f"reg.early_stopping.target={self.target}",
                f"trainer.validate_every={max(1, VALIDATE_EVERY // size)}",
            ]
            for size, rate in zip(self.sizes, self.rates, strict=True)
        }

    def measure(self, base: Config, runs: Runs) -> Measured:
        found, guess = {}, guessing(base)
        for size in self.sizes:
            of_size = runs[f"batch-{size}"]
            landscapes = [Landscape(*open_run(run, "train", trust=base.trust)) for run in of_size]
            found[str(size)] = {
                "accuracy": finals(of_size, "test/accuracy"),
                "sharpness": [sharpness(landscape, epsilon=self.epsilon) for landscape in landscapes],
                "loss": [landscape.loss() for landscape in landscapes],
                "steps": finals(of_size, "steps"),
                "guessing": guess,
            }
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
        guess = measured[str(self.sizes[0])]["guessing"]
        titles = {
            "accuracy": "test accuracy" + (f" (guessing: {1 / guess['classes']:.4g})" if guess else ""),
            "sharpness": f"sharpness (eps {self.epsilon:g})",
            "loss": "training loss at the end",
        }
        for axes, (key, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
            pairs = [mean_and_error(found[key]) for found in measured.values()]
            sizes = [int(size) for size in measured]
            axes.errorbar(sizes, [m for m, _ in pairs], [e for _, e in pairs], marker="o", capsize=3)
            for size, found in zip(sizes, measured.values(), strict=True):
                axes.plot([size] * len(found[key]), found[key], ".", color="0.6")
            axes.set(xscale="log", xlabel="batch size", title=title)

    def verdict(self, measured: Measured) -> Verdict:
        ends = measured[str(self.sizes[0])], measured[str(self.sizes[-1])]
        (flat, sharp), (small, large), loss = (
            [mean_and_error(found[key]) for found in ends] for key in ("sharpness", "accuracy", "loss")
        )
        flatter, better = _exceeds(sharp, flat), _exceeds(small, large)
        return Verdict(
            flatter and better,
            f"batch {self.sizes[0]} against {self.sizes[-1]}, training losses {loss[0][0]:.3f} and {loss[1][0]:.3f}: "
            f"sharpness {plus_minus(flat, 1)} against {plus_minus(sharp, 1)} ({'' if flatter else 'not '}flatter), "
            f"test accuracy {plus_minus(small)} against {plus_minus(large)} ({'' if better else 'not '}better)",
        )


def _exceeds(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """By more than two standard errors of the difference."""
    return one[0] - other[0] > 2 * (one[1] ** 2 + other[1] ** 2) ** 0.5
