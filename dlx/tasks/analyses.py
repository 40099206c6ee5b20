"""Analyses of a trained system, by `dlx eval RUN --analysis NAME`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlx.config.errors import UserError
from dlx.tasks.answer import Report
from dlx.tasks.spec import Label

if TYPE_CHECKING:
    from dlx.tasks.system import System


@torch.no_grad()
def embedded(system: System, loader: Any, label: str) -> tuple[Tensor, Tensor]:
    """Features [N, F] and labels [N] of all samples, on the CPU."""
    parts = [(system.embed(batch).float().cpu(), batch[label].cpu()) for batch in loader.eval_batches()]
    features, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return features, labels


def probe(run: Any, *, strength: float = 1.0, samples: int | None = None) -> Report:
    """A linear classifier on the frozen features: how much of the labels can be read off them (Alain and Bengio 2016).

    run: an `Opened` run (dlx/training/trained.py). strength: of its L2 penalty, as scikit-learn's 1 / C.
    samples: training samples at most.
    """
    from sklearn.linear_model import LogisticRegression

    if strength <= 0:
        raise UserError(f"--analysis probe strength: must be above 0, got {strength:g}")
    labels = [name for name, entry in run.dataset.spec.entries.items() if isinstance(entry, Label)]
    if not labels:
        raise UserError("--analysis probe: needs class labels, and this dataset has none")
    entries = {**run.system.spec.inputs, labels[0]: run.dataset.spec.entries[labels[0]]}
    found = {}
    for split in ("train", "val", "test"):
        features, truth = embedded(run.system, run.loader(split, entries), labels[0])
        if split == "train":
            features, truth = features[:samples], truth[:samples]
            mean, std = features.mean(0), features.std(0).clamp_min(1e-6)
            classifier = LogisticRegression(C=1 / strength, max_iter=1000)
            classifier.fit(((features - mean) / std).numpy(), truth.numpy())
        found[f"probe_{split}/accuracy"] = float(classifier.score(((features - mean) / std).numpy(), truth.numpy()))
    return Report(data={"features": features.shape[1]}, metrics=found)
