"""What each regularizer does to the generalization gap, paired over seeds, on few digits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dlx.claims.claim import Experiment, Verdict
from dlx.claims.reading import mean_and_error, of_seeds, variants
from dlx.config import Config

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlx.runs.folder import RunFolder

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


class Regularization(Experiment):
    """seeds: trainings with and without each method; a seed's pair has the same samples, start and order."""

    claim = "Each regularizer makes the gap between training and test accuracy smaller"

    def __init__(self, *, seeds: int = 10) -> None:
        if seeds < 2:
            raise ValueError(f"seeds must be at least 2, got {seeds}")
        self.seeds = seeds

    def members(self, base: Config) -> dict[str, Config]:
        choices = {name: [f"reg=[{name}]", *words] for name, words in METHODS.items()}
        return variants(base, {"none": [], **choices}, self.seeds)

    def measure(self, base: Config, runs: Mapping[str, RunFolder]) -> dict[str, Any]:
        from dlx.training.run import evaluate_run

        train, test = {}, {}
        for name in ("none", *METHODS):
            of_method = of_seeds(runs, name)
            train[name] = [evaluate_run(run, "train", trust=base.trust)["train/accuracy"] for run in of_method]
            test[name] = [run.summary()["test/accuracy"] for run in of_method]
        found: dict[str, Any] = {}
        for name in train:
            gaps = [a - b for a, b in zip(train[name], test[name], strict=True)]
            without = [a - b for a, b in zip(train["none"], test["none"], strict=True)]
            found[name] = {
                "train": mean_and_error(train[name]),
                "test": mean_and_error(test[name]),
                "gap": mean_and_error(gaps),
                "gap_change": mean_and_error([a - b for a, b in zip(gaps, without, strict=True)]),
                "test_change": mean_and_error([a - b for a, b in zip(test[name], test["none"], strict=True)]),
            }
        return found

    def figure(self, measured: Mapping[str, Any]) -> Figure:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 4.5), layout="constrained")
        names = [name for name in measured if name != "none"]
        titles = {"gap_change": "gap (train - test accuracy)", "test_change": "test accuracy"}
        for axes, key in zip(figure.subplots(1, 2, sharey=True), titles, strict=True):
            means, errors = zip(*(measured[name][key] for name in names), strict=True)
            axes.barh(names, means, xerr=[2 * error for error in errors], color="tab:blue", alpha=0.7, capsize=3)
            axes.locator_params(axis="x", nbins=5)
            axes.axvline(0, color="0.3", linewidth=0.8)
            axes.set(title=f"change of the {titles[key]}", xlabel="with less without, two standard errors")
        return figure

    def verdict(self, measured: Mapping[str, Any]) -> Verdict:
        changes = {name: found["gap_change"] for name, found in measured.items() if name != "none"}
        smaller = [name for name, (mean, error) in changes.items() if mean < -2 * error]
        rest = {name: change for name, change in changes.items() if name not in smaller}
        said = ", ".join(f"{name} ({mean:+.4f} ± {error:.4f})" for name, (mean, error) in rest.items())
        return Verdict(
            not rest,
            f"the gap of {measured['none']['gap'][0]:.4f} is smaller by more than two standard errors with "
            f"{', '.join(smaller) or 'none'}" + (f"; not with {said}" if rest else "") + f" ({self.seeds} seeds)",
        )
