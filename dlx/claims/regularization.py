"""What each regularizer does to the generalization gap, paired over seeds, on few digits."""

from __future__ import annotations

from dlx.claims.claim import Claim, Figure, Measured, Runs, Variants, Verdict
from dlx.claims.common import mean_and_error
from dlx.config import Config
from dlx.config.checks import at_least
from dlx.training.trained import evaluate_run

METHODS = {
    "early_stopping": ["reg.early_stopping.monitor=val/loss:min"],
    "l2": ["reg.l2.strength=3e-3"],
    "l1": ["reg.l1.strength=3e-4"],
    "augmentation": ["reg.augmentation.flip=false", "reg.augmentation.crop=1", "reg.augmentation.rotate=10"],
    "input_noise": ["reg.input_noise.std=0.5"],
    "weight_noise": ["reg.weight_noise.std=0.03"],
    "label_smoothing": [],
    "mixup": ["reg.mixup.alpha=1.0"],
    "cutmix": ["reg.cutmix.probability=1.0"],
    "dropout": [],
}


class Regularization(Claim):
    """seeds: trainings with and without each method; a seed's pair has the same samples, start and order."""

    claim = "Each regularizer makes the gap between training and test accuracy smaller"
    size = (10, 4.5)

    def __init__(self, *, seeds: int = 10) -> None:
        at_least(2, seeds=seeds)
        self.seeds = seeds

    def variants(self, base: Config) -> Variants:
        return {"none": [], **{name: [f"reg=[{name}]", *words] for name, words in METHODS.items()}}

    def measure(self, base: Config, runs: Runs) -> Measured:
        def minus(ones: list[float], others: list[float]) -> list[float]:
            return [one - other for one, other in zip(ones, others, strict=True)]

        train = {
            name: [evaluate_run(run, "train", trust=base.trust)["train/accuracy"] for run in of_method]
            for name, of_method in runs.items()
        }
        test = {name: [run.summary()["test/accuracy"] for run in of_method] for name, of_method in runs.items()}
        gaps = {name: minus(train[name], test[name]) for name in runs}
        return {
            name: {
                "train": mean_and_error(train[name]),
                "test": mean_and_error(test[name]),
                "gap": mean_and_error(gaps[name]),
                "gap_change": mean_and_error(minus(gaps[name], gaps["none"])),
                "test_change": mean_and_error(minus(test[name], test["none"])),
            }
            for name in runs
        }

    def draw(self, measured: Measured, figure: Figure) -> None:
        names = [name for name in measured if name != "none"]
        titles = {"gap_change": "gap (train - test accuracy)", "test_change": "test accuracy"}
        for axes, (key, title) in zip(figure.subplots(1, 2, sharey=True), titles.items(), strict=True):
            means, errors = zip(*(measured[name][key] for name in names), strict=True)
            axes.barh(names, means, xerr=[2 * error for error in errors], color="tab:blue", alpha=0.7, capsize=3)
            axes.locator_params(axis="x", nbins=5)
            axes.axvline(0, color="0.3", linewidth=0.8)
            axes.set(title=f"change of the {title}", xlabel="with less without, two standard errors")

    def verdict(self, measured: Measured) -> Verdict:
        changes = {name: found["gap_change"] for name, found in measured.items() if name != "none"}
        smaller = [name for name, (mean, error) in changes.items() if mean < -2 * error]
        rest = [f"{name} ({mean:+.4f} ± {error:.4f})" for name, (mean, error) in changes.items() if name not in smaller]
        others = f"; not with {', '.join(rest)}" if rest else ""
        return Verdict(
            not rest,
            f"the gap of {measured['none']['gap'][0]:.4f} is smaller by more than two standard errors with "
            f"{', '.join(smaller) or 'none'}{others} ({self.seeds} seeds)",
        )
