"""k-fold cross-validation (Stone 1974): each part of the training data validates once a network trained on the others.

The folds are stratified by class and differ by at most one sample (dlx/data/splits.py). The test split is in none.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from dlx.config import Config, compose
from dlx.config.checks import at_least
from dlx.config.errors import ConfigError, Problem
from dlx.methods.predictions import predict_split
from dlx.methods.spread import plot_members, spread
from dlx.runs.draw import Figure
from dlx.runs.files import write_atomic
from dlx.runs.folder import RunFolder
from dlx.sweeps.method import Method, MethodResult, check_unset
from dlx.tasks.classification import Classification
from dlx.tasks.confusion import draw_confusion
from dlx.tasks.supervised import Supervised
from dlx.tasks.system import System
from dlx.training.load import load_system

FILE = "out_of_fold.npz"


class KFold(Method):
    """k: number of folds, and of trainings."""

    def __init__(self, *, k: int = 5) -> None:
        at_least(2, k=k)
        self.k = k

    def check(self, base: Config, system: System) -> None:
        if not system.defines("evaluate"):
            why = f"kfold validates each member on a fold, and {type(system).__name__} is not evaluated"
            raise ConfigError([Problem("method", why)])

    def members(self, base: Config, done: Mapping[str, RunFolder], folder: Path) -> dict[str, Config]:
        check_unset(base, "fold", "folds")
        return {
            f"fold-{fold}": compose([f"dataset.folds={self.k}", f"dataset.fold={fold}"], base=base)
            for fold in range(self.k)
        }

    def aggregate(self, base: Config, runs: Mapping[str, RunFolder], folder: Path) -> MethodResult:
        """The mean over the folds. Of classifiers and regressors also `out_of_fold.npz`: for each training sample its
        `index` in the source, its `fold`, its `label` and the `probability` [N, K] of the network that was not trained
        on it (or `target` and `prediction`).
        """
        metrics, details = spread(runs)
        figures: dict[str, Callable[[], Figure]] = {"spread": partial(plot_members, details)}
        first = load_system(next(iter(runs.values())), trust=base.trust)
        if not isinstance(first, Supervised) or not first.answers_once:
            return MethodResult(metrics, details, figures)
        found = [predict_split(run, "val", trust=base.trust) for run in runs.values()]
        folds = [int(name.removeprefix("fold-")) for name in runs]
        index, truth, output = (torch.cat([getattr(one, k) for one in found]) for k in ("index", "truth", "output"))
        fold = torch.cat([torch.full_like(one.index, number) for number, one in zip(folds, found, strict=True)])
        are_labels = found[0].are_labels
        names = ("label", "probability") if are_labels else ("target", "prediction")
        columns = {"index": index, "fold": fold, names[0]: truth, names[1]: output.softmax(1) if are_labels else output}
        order = index.argsort(stable=True)
        content = io.BytesIO()
        np.savez(content, **{name: column[order].numpy() for name, column in columns.items()})  # type: ignore[arg-type]
        write_atomic(folder / FILE, content.getvalue())
        scores = found[0].score(output, truth)
        text = f"{scores['accuracy']:.4f} accuracy" if are_labels else f"{scores['mse']:.4g} mean squared error"
        details = {
            "out of fold": f"{text} on {len(index)} samples, each by the network that was not trained on it",
            "out_of_fold": {name: value for name, value in scores.items() if name != "error"},
            **details,
        }
        if isinstance(head := found[0].head, Classification):
            confusion_KK = head.statistics(output, {head.target_name: truth})["confusion"]
            title = f"{len(runs)} folds, out of fold"
            figures["confusion"] = partial(draw_confusion, confusion_KK, head.classes, title)
        return MethodResult(metrics, details, figures)
