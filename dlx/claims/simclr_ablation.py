"""What SimCLR needs (Chen et al. 2020, arXiv:2002.05709, figure 5, table 5, figure 9): which augmentation, which
temperature, how large a batch. One is changed at a time; a probe on the frozen features tells what is left.

Section 3.1 says why color matters: crops of one image share their colors, so that pairs are told by these alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dlx.claims.claim import Claim, Measured, Runs, Variants, Verdict
from dlx.claims.common import mean_and_error, plus_minus
from dlx.claims.contrastive_features import classes_of
from dlx.config import Config
from dlx.config.checks import at_least, rising
from dlx.tasks.analyses import probe
from dlx.training.trained import open_all

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WITHOUT = {
    "all": [],
    "no crop": ["model.augmentation.crop=null"],
    "no color": ["model.augmentation.color=0.0", "model.augmentation.grey=0.0"],
    "no grey": ["model.augmentation.grey=0.0"],
    "no flip": ["model.augmentation.flip=false"],
    "crop alone": ["model.augmentation.color=0.0", "model.augmentation.grey=0.0", "model.augmentation.flip=false"],
    "color alone": ["model.augmentation.crop=null", "model.augmentation.flip=false"],
}
"""Overrides by what is said of them; a variant's name has no spaces."""


class SimCLRAblation(Claim):
    """temperatures, batches: that are tried. labels: of each class, that the probe uses. epochs: of each training.
    seeds: trainings of each."""

    claim = "Without a change of color SimCLR tells pairs by their colors, and its features are worth less"
    size = (13, 4.2)

    def __init__(
        self,
        *,
        temperatures: Sequence[float] = (0.05, 0.2, 1.0),
        batches: Sequence[int] = (32, 128, 256),
        labels: int = 10,
        epochs: int = 10,
        seeds: int = 2,
    ) -> None:
        rising(2, temperatures=temperatures, batches=batches)
        at_least(1, labels=labels, epochs=epochs, seeds=seeds)
        self.temperatures, self.batches = tuple(temperatures), tuple(batches)
        self.labels, self.epochs, self.seeds = labels, epochs, seeds

    def variants(self, base: Config) -> Variants:
        every = [f"trainer.epochs={self.epochs}", f"trainer.validate_every={self.epochs}epochs"]
        found = {name.replace(" ", "_"): [*words, *every] for name, words in WITHOUT.items()}
        temperature, size = base["model"]["temperature"], base["dataset"]["batch_size"]  # those of `all`
        found |= {
            f"temperature_{t:g}": [f"model.temperature={t:g}", *every] for t in self.temperatures if t != temperature
        }
        return found | {f"batch_{b}": [f"data.batch_size={b}", *every] for b in self.batches if b != size}

    def measure(self, base: Config, runs: Runs) -> Measured:
        samples = self.labels * classes_of(base)
        accuracy = {}
        for name, own in runs.items():
            opened = [open_all(run, trust=base.trust) for run in own]
            accuracy[name] = [probe(run, samples=samples).metrics["probe_test/accuracy"] for run in opened]
        return {
            "augmentation": {name: accuracy[name.replace(" ", "_")] for name in WITHOUT},
            "temperature": {f"{t:g}": accuracy.get(f"temperature_{t:g}", accuracy["all"]) for t in self.temperatures},
            "batch": {str(b): accuracy.get(f"batch_{b}", accuracy["all"]) for b in self.batches},
            "guess": 1 / classes_of(base),
        }

    def draw(self, measured: Measured, figure: Figure) -> None:
        panels: Any = figure.subplots(1, 3, sharey=True, width_ratios=(1.5, 1, 1))
        titles = {
            "augmentation": "what makes the views",
            "temperature": "temperature",
            "batch": "images in a batch, same passes",
        }
        for axes, (name, title) in zip(panels, titles.items(), strict=True):
            pairs = {label: mean_and_error(values) for label, values in measured[name].items()}
            means, errors = zip(*pairs.values(), strict=True)
            if name == "augmentation":
                axes.bar(range(len(pairs)), means, yerr=errors, capsize=3, color="C0", alpha=0.8)
                axes.tick_params(axis="x", rotation=30)
            else:
                axes.errorbar(range(len(pairs)), means, errors, marker="o", capsize=3)
            axes.set_xticks(range(len(pairs)), list(pairs))
            axes.axhline(measured["guess"], color="0.5", linestyle="--", linewidth=1)
            axes.set_title(title, fontsize=10)
        panels[0].set_ylabel(f"test accuracy of a probe,\n{self.labels} labels of each class (dashed: guessing)")

    def verdict(self, measured: Measured) -> Verdict:
        """It holds where the probe is above those of both kinds of views that keep colors."""
        found = {name: mean_and_error(values) for name, values in measured["augmentation"].items()}
        held = found["all"][0] > max(found["no color"][0], found["crop alone"][0])
        names = ("all", "no color", "crop alone", "no crop", "color alone")
        each = ", ".join(f"{name} {plus_minus(found[name], 3)}" for name in names)
        best = {
            name: max(measured[name], key=lambda value: statistics.fmean(measured[name][value]))
            for name in ("temperature", "batch")
        }
        return Verdict(held, f"{each}; best of its kind: temperature {best['temperature']}, batch {best['batch']}")
