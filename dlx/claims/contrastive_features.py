"""What features without labels are worth: probes on SimCLR's features and on random ones, and the network trained on
the labels alone, over the labels used (Chen et al. 2020, arXiv:2002.05709, table 7).

All read the same test images. A probe is a linear classifier on frozen features of some of the training images, evenly
of all classes; the network is trained from its start on as many images, as they are and with SimCLR's augmentation.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dlx.claims.claim import Claim, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals, mean_and_error, plus_minus
from dlx.config import Config, build
from dlx.config.checks import at_least, rising
from dlx.tasks.analyses import probe
from dlx.tasks.spec import Label
from dlx.training.trained import open_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.figure import Figure

NAMES = {
    "simclr": "probe, SimCLR's features",
    "random": "probe, random features",
    "alone": "trained on the labels",
    "views": "trained on the labels, with SimCLR's views",
}


class ContrastiveFeatures(Claim):
    """labels: images of each class whose labels are used. bar: that number of labels at which the claim is decided.
    steps: of a training on them. seeds: trainings of each."""

    claim = "With few labels a linear probe on SimCLR's features beats the same network trained on those labels"
    size = (7.2, 4.6)

    def __init__(
        self, *, labels: Sequence[int] = (1, 3, 10, 30, 100), bar: int = 10, steps: int = 300, seeds: int = 3
    ) -> None:
        rising(2, labels=labels)
        at_least(1, steps=steps, seeds=seeds)
        if bar not in labels:
            raise ValueError(f"bar must be one of labels, {list(labels)}, got {bar}")
        self.labels, self.bar, self.steps, self.seeds = tuple(labels), bar, steps, seeds

    def variants(self, base: Config) -> Variants:
        classes, model = classes_of(base), base["model"]
        network = [f"model={model['encoder']['name']}", *settings("model", model["encoder"])]
        views = ["reg=[simclr_views]", *settings("reg.simclr_views", model["augmentation"])]
        found: Variants = {"simclr": [], "random": ["optim.lr=0.0", "trainer.epochs=1"]}  # its batch norms see the data
        for count in self.labels:
            subset, size = with_validation(count * classes), min(64, count * classes)
            training = [
                *network, f"data.subset={subset}", f"data.batch_size={size}", f"trainer.max_steps={self.steps}",
                f"trainer.validate_every={self.steps}",  # the last weights: so few images choose none
            ]  # fmt: skip
            found |= {f"alone-{count}": training, f"views-{count}": [*training, *views]}
        return found

    def measure(self, base: Config, runs: Runs) -> Measured:
        classes = classes_of(base)
        found: Measured = {"guess": 1 / classes, "knn": finals(runs["simclr"], "test/knn_accuracy")}
        for name in ("simclr", "random"):
            opened = [open_all(run, trust=base.trust) for run in runs[name]]
            found[name] = {
                str(count): [probe(run, samples=count * classes).metrics["probe_test/accuracy"] for run in opened]
                for count in self.labels
            }
        for name in ("alone", "views"):
            found[name] = {str(count): finals(runs[f"{name}-{count}"], "test/accuracy") for count in self.labels}
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
        axes = figure.subplots()
        for name, label in NAMES.items():
            pairs = [mean_and_error(measured[name][str(count)]) for count in self.labels]
            means, errors = zip(*pairs, strict=True)
            axes.errorbar(self.labels, means, errors, marker="o", capsize=3, label=label)
        axes.axhline(measured["guess"], color="0.5", linestyle="--", linewidth=1, label="guessing")
        axes.set(xscale="log", xlabel="labels of each class", ylabel="test accuracy", xticks=self.labels)
        axes.set_xticklabels(map(str, self.labels))
        axes.minorticks_off()
        axes.set_title(f"mean of {self.seeds} seeds and its standard error", fontsize=9)
        axes.legend(fontsize=9)

    def verdict(self, measured: Measured) -> Verdict:
        """It holds where the probe on SimCLR's features is above that on random ones and the network on the labels."""
        at: dict[str, Any] = {name: mean_and_error(measured[name][str(self.bar)]) for name in NAMES}
        held = at["simclr"][0] > max(at["random"][0], at["alone"][0])
        each = ", ".join(f"{label} {plus_minus(at[name], 3)}" for name, label in NAMES.items())
        return Verdict(held, f"at {self.bar} labels of each class: {each}")


def settings(prefix: str, part: Mapping[str, Any]) -> list[str]:
    """Overrides that give another block the keys of a part."""
    return [f"{prefix}.{key}={json.dumps(value)}" for key, value in part.items() if key not in ("name", "_target_")]


def classes_of(base: Config) -> int:
    """How many classes the labels have. Raises ValueError where there are none."""
    labels = build(base, "dataset").spec.of_kind(Label)
    if not labels:
        raise ValueError("dataset must have class labels")
    return len(next(iter(labels.values())).classes)


def with_validation(count: int) -> int:
    """The size of a subset of which so many are trained on: a tenth of it, rounded up, validates."""
    size = count
    while size - -(-size // 10) < count:
        size += 1
    return size
