"""Analyses of a trained system, by `dlx eval RUN --analysis NAME`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlx.config.errors import UserError
from dlx.random import generator
from dlx.runs.draw import subplots
from dlx.runs.media import Curve, grid
from dlx.tasks.answer import Report
from dlx.tasks.spec import Label

if TYPE_CHECKING:
    from dlx.runs.draw import Figure
    from dlx.tasks.system import System

ENUMERATED = 20  # binary values whose images are so few, a million, that all are tried
MOST_PROBABLE = 36  # images of a picture


@torch.no_grad()
def embedded(system: System, loader: Any, label: str) -> tuple[Tensor, Tensor]:
    """Features [N, F] and labels [N] of all samples, on the CPU."""
    parts = [(system.embed(batch).float().cpu(), batch[label].cpu()) for batch in loader.eval_batches()]
    features, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return features, labels


def probe(run: Any, *, strength: float = 1.0, samples: int | None = None) -> Report:
    """A linear classifier on the frozen features: how much of the labels can be read off them (Alain and Bengio 2016).

    run: an `Opened` run (dlx/training/trained.py). strength: of its L2 penalty, as scikit-learn's 1 / C.
    samples: training samples at most, the same each time, as evenly of all classes as can be.
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
            chosen = evenly(truth, samples)
            features, truth = features[chosen], truth[chosen]
            mean, std = features.mean(0), features.std(0).clamp_min(1e-6)
            classifier = LogisticRegression(C=1 / strength, max_iter=1000)
            classifier.fit(((features - mean) / std).numpy(), truth.numpy())
        found[f"probe_{split}/accuracy"] = float(classifier.score(((features - mean) / std).numpy(), truth.numpy()))
    return Report(data={"features": features.shape[1]}, metrics=found)


def evenly(label_N: Tensor, most: int | None) -> Tensor:
    """Which samples to take, int64: at most so many, in turn of each class, within a class in an order of chance that
    is the same each time. None: all."""
    if most is None:
        return torch.arange(len(label_N))
    if most < 2:
        raise UserError(f"--analysis probe samples: must be at least 2, got {most}")
    order = torch.randperm(len(label_N), generator=generator(0, "probe"))
    rank_N = torch.zeros(len(label_N), dtype=torch.int64)
    for kind in range(int(label_N.max()) + 1):
        own = order[label_N[order] == kind]
        rank_N[own] = torch.arange(len(own))
    return order[rank_N[order].argsort(stable=True)[:most]]


def anomaly(run: Any, *, data: Any = None) -> Report:
    """Density as a detector of what is unusual: log p of the run's own test samples against that of others.

    data: the others, an `Opened` data set (`data=NAME` on the command line); None: the classes that the run was not
    trained on (`dataset.classes`). `auroc` is the probability that one of the others is less probable than one of the
    run's own, 0.5 for no difference. ROC curves, one for each class of the others where they have classes.
    """
    if data is None:
        if not run.settings.classes:
            raise UserError("--analysis anomaly: needs other data, data=NAME, or a run of some classes (data.classes)")
        data = run.others()
    usual_N, _ = _log_probs(run, None)
    labels = list(data.dataset.spec.of_kind(Label))
    unusual_N, class_N = _log_probs(data, labels[0] if labels else None)
    found = {"auroc": area(usual_N, unusual_N), "log_prob": float(usual_N.mean()), "others": float(unusual_N.mean())}
    groups = {"others": unusual_N}
    if labels:
        names = data.dataset.spec.entries[labels[0]].classes
        groups |= {names[number]: unusual_N[class_N == number] for number in sorted(set(class_N.tolist()))}
    rows = [
        {"data": name, "samples": len(group), "log_prob": float(group.mean()), "auroc": area(usual_N, group)}
        for name, group in groups.items()
    ]
    lines = {f"{name} {area(usual_N, group):.3f}": roc(usual_N, group) for name, group in groups.items()}
    curves = Curve(lines, "share of the run's own that is found unusual", "share of the others", "ROC curves by log p")
    return Report(
        tables={"data": rows},
        media={"anomaly-roc": curves, "anomaly-log-prob": _histogram(usual_N, unusual_N)},
        metrics={f"anomaly/{name}": value for name, value in found.items()},
    )


@torch.no_grad()
def _log_probs(run: Any, label: str | None) -> tuple[Tensor, Tensor]:
    """log p, float64 [N], and the labels, [N], of the test split of an `Opened` run."""
    entries = dict(run.system.spec.entries)
    if label is not None:
        entries[label] = run.dataset.spec.entries[label]
    parts = []
    for batch in run.loader("test", entries).eval_batches():
        log_prob_B = run.system.log_prob(batch).double().cpu()
        parts.append((log_prob_B, batch[label].cpu() if label else torch.zeros_like(log_prob_B)))
    log_prob_N, class_N = (torch.cat(column) for column in zip(*parts, strict=True))
    return log_prob_N, class_N


def area(usual_N: Tensor, unusual_M: Tensor) -> float:
    """The probability that one of the unusual has a lower score than one of the usual; equal ones count half: the area
    under the ROC curve."""
    sorted_N = usual_N.sort().values
    above = len(usual_N) - torch.searchsorted(sorted_N, unusual_M, right=True)
    equal = torch.searchsorted(sorted_N, unusual_M, right=True) - torch.searchsorted(sorted_N, unusual_M)
    return float((above.double() + 0.5 * equal.double()).mean() / len(usual_N))


def roc(usual_N: Tensor, unusual_M: Tensor) -> tuple[list[float], list[float]]:
    """Shares of both that are below a threshold, for each threshold: x of the usual, y of the unusual."""
    thresholds = torch.cat([usual_N, unusual_M]).sort().values
    found = [
        torch.searchsorted(part.sort().values, thresholds, right=True) / len(part) for part in (usual_N, unusual_M)
    ]
    x, y = ([0.0, *part.tolist()] for part in found)
    return x, y


def _histogram(usual_N: Tensor, unusual_M: Tensor) -> Figure:
    figure, axes = subplots(size=(6.5, 3.6))
    both = torch.cat([usual_N, unusual_M])
    low, high = (float(both.quantile(share)) for share in (0.005, 0.995))  # a few far ones would hide the rest
    bins = torch.linspace(low, max(high, low + 1e-6), 41).numpy()
    for part, name in ((usual_N, "the run's own"), (unusual_M, "others")):
        axes.hist(part.clamp(low, high).numpy(), bins=bins, density=True, alpha=0.6, label=name)
    axes.set(xlabel="log p, nats", ylabel="density")
    axes.legend()
    return figure


@torch.no_grad()
def normalization(run: Any, *, free: int | None = None) -> Report:
    """Sums p over all images that differ in the last `free` values of the order, which is the probability of those
    before: what `sum` is divided by, so that it is 1. And the most probable ones.

    run: an `Opened` run of conditionals. free: how many values; None: all of an image. The others are those of the
    first test image. Raises UserError for more than 2^20 images.
    """
    system, image = run.system, run.system.input
    K, D = system.levels, system.dimensions
    free = D if free is None else free
    if not 1 <= free <= D:
        raise UserError(f"--analysis normalization free: must be from 1 to {D}, the values of an image, got {free}")
    if free * math.log2(K) > ENUMERATED:
        raise UserError(
            f"--analysis normalization free: {free} values have {K}^{free} images, and at most 2^{ENUMERATED} are tried"
        )
    first = next(iter(run.loader("test").eval_batches()))[system.input_name][:1]
    given = system.conditionals(first)[0, system.order[: D - free]].double().sum().cpu()
    place_F = K ** torch.arange(free - 1, -1, -1)
    levels_1D, last_F = system.flat_levels(first).cpu(), system.order[D - free :].cpu()

    def images(number_B: Tensor) -> Tensor:
        levels_BD = levels_1D.repeat(len(number_B), 1)
        levels_BD[:, last_F] = number_B.unsqueeze(1) // place_F % K
        return torch.as_tensor(system.image_of(levels_BD), device=system.device)

    number_N = torch.arange(K**free)
    parts = [
        system.log_prob({system.input_name: images(number_N[start : start + 4096])})
        for start in range(0, K**free, 4096)
    ]
    log_p_N = torch.cat(parts).double().cpu() - given
    p_N = log_p_N.exp()
    most = p_N.topk(min(MOST_PROBABLE, len(p_N)))
    found = {"sum": float(p_N.sum()), "entropy": -float((p_N * log_p_N).sum()), "shown": float(most.values.sum())}
    return Report(
        media={"most-probable": grid(image.draw(images(most.indices)))},
        metrics={f"normalization/{name}": value for name, value in found.items()},
        data={"images": len(p_N)},
    )
