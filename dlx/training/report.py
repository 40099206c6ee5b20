"""What a trained run is worth on a split: its figures, and what a person would look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from dlx.random import reseed
from dlx.tasks.classification import Classification
from dlx.tasks.confusion import Worst, draw_confusion, draw_mistakes, per_class
from dlx.training.evaluate import collect
from dlx.training.run import open_run
from dlx.training.session import shown_batch
from dlx.training.world import World

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from dlx.data.loader import Loader
    from dlx.runs.folder import RunFolder
    from dlx.tasks.spec import ImageSpec
    from dlx.tasks.system import Batch, System


@dataclass(frozen=True)
class Report:
    """metrics: by name, with the split's prefix. per_class, confusion (rows are true classes): of classifiers only."""

    metrics: dict[str, float]
    pictures: dict[str, Figure]
    per_class: list[dict[str, Any]] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)


def report_run(folder: RunFolder, split: str, *, trust: tuple[str, ...] = ()) -> Report:
    """Judges a run's best weights on `train`, `val` or `test` of the data it was trained on."""
    system, loader = open_run(folder, split, trust=trust)
    world = World(system.device)
    title = f"{folder.name}, {split}"
    target = getattr(system, "target", None)
    if isinstance(target, Classification):
        return _of_classifier(system, target.spec, loader, world, split, title)
    figures = system.metrics(collect(system, loader, world, loader.seed))
    reseed(loader.seed, "eval", device=world.device)
    with torch.no_grad():
        pictures = system.showcase(shown_batch(loader))
    return Report(_prefixed(split, figures), pictures)


def _of_classifier(system: System, spec: ImageSpec, loader: Loader, world: World, split: str, title: str) -> Report:
    """In one pass: the mistakes are read off the logits that the evaluation computes."""
    worst = Worst()
    logits: list[Tensor] = []

    def look(batch: Batch) -> None:
        worst.look(batch, logits.pop())

    watching = system.register_forward_hook(lambda _module, _inputs, output: logits.append(output))
    try:
        statistics = collect(system, loader, world, loader.seed, look)
    finally:
        watching.remove()
    confusion_KK = statistics["confusion"]
    return Report(
        _prefixed(split, system.metrics(statistics)),
        {
            "confusion": draw_confusion(confusion_KK, spec.classes, title),
            "confused": draw_mistakes(worst.mistakes, spec, title),
        },
        per_class(confusion_KK, spec.classes),
        confusion_KK.tolist(),
    )


def _prefixed(split: str, figures: dict[str, float]) -> dict[str, float]:
    return {f"{split}/{name}": value for name, value in figures.items()}
