"""k-fold cross-validation (Stone 1974): each part of the training data is once what the others are validated on.

The folds are stratified by class and differ by at most one sample (dlx/data/view.py). The test split has no part in it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from dlx.config import Config, compose
from dlx.config.errors import ConfigError, Problem
from dlx.methods.method import Answer, Method, check_unset
from dlx.methods.outputs import answers
from dlx.methods.spread import spread, strip
from dlx.runs.files import write_atomic
from dlx.tasks.classification import Classification
from dlx.tasks.confusion import draw_confusion
from dlx.tasks.supervised import Supervised
from dlx.training.load import load_system

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlx.runs.folder import RunFolder
    from dlx.tasks.system import System

FILE = "out_of_fold.npz"


class KFold(Method):
    """k: folds, and trainings."""

    def __init__(self, *, k: int = 5) -> None:
        if k < 2:
            raise ValueError(f"k must be at least 2, got {k}")
        self.k = k

    def check(self, base: Config, system: System) -> None:
        if not system.defines("evaluate"):
            why = f"kfold validates each member on a fold, and {type(system).__name__} is not evaluated"
            raise ConfigError([Problem("method", why)])

    def members(self, base: Config, done: Mapping[str, RunFolder], folder: Path) -> dict[str, Config]:
        check_unset(base, "fold", "folds")
        words = [[f"dataset.folds={self.k}", f"dataset.fold={fold}"] for fold in range(self.k)]
        return {f"fold-{fold}": compose(own, base=base) for fold, own in enumerate(words)}

    def answer(self, base: Config, runs: Mapping[str, RunFolder], folder: Path) -> Answer:
        """The mean over the folds. Of classifiers and regressors also `out_of_fold.npz`: for each training sample its
        `index` in the source, its `fold`, its `label` and the `probability` [N, K] of the network that was not trained
        on it (or `target` and `prediction`).
        """
        metrics, details = spread(runs)
        pictures: dict[str, Callable[[], Figure]] = {"spread": partial(strip, details)}
        first = load_system(next(iter(runs.values())), trust=base.trust)
        if not isinstance(first, Supervised):
            return Answer(metrics, details, pictures)
        found = [answers(run, "val", trust=base.trust) for run in runs.values()]
        folds = [int(name.removeprefix("fold-")) for name in runs]
        index, truth, output = (torch.cat([getattr(one, k) for one in found]) for k in ("index", "truth", "output"))
        fold = torch.cat([torch.full_like(one.index, number) for number, one in zip(folds, found, strict=True)])
        classes = found[0].classes
        names = ("label", "probability") if classes else ("target", "prediction")
        columns = {"index": index, "fold": fold, names[0]: truth, names[1]: output.softmax(1) if classes else output}
        order = index.argsort(stable=True)
        content = io.BytesIO()
        np.savez(content, **{name: column[order].numpy() for name, column in columns.items()})  # type: ignore[arg-type]
        write_atomic(folder / FILE, content.getvalue())
        figures = found[0].judge(output, truth)
        said = f"{figures['accuracy']:.4f} accuracy" if classes else f"{figures['mse']:.4g} mean squared error"
        details = {
            "out of fold": f"{said} on {len(index)} samples, each by the network that was not trained on it",
            "out_of_fold": {name: value for name, value in figures.items() if name != "error"},
            **details,
        }
        if isinstance(kind := found[0].target, Classification):
            confusion_KK = kind.statistics(output, {kind.target_name: truth})["confusion"]
            title = f"{len(runs)} folds, out of fold"
            pictures["confusion"] = partial(draw_confusion, confusion_KK, kind.classes, title)
        return Answer(metrics, details, pictures)
