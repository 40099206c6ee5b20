"""Fingerprints of a run's data, by which a later command sees whether the data changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dlx.config.errors import UserError
from dlx.data.dataset import only
from dlx.tasks.spec import Attributes, Boxes, Image, Label, Mask

if TYPE_CHECKING:
    from torch import Tensor

    from dlx.data.dataset import Dataset
    from dlx.data.splits import AnySplit
    from dlx.tasks.spec import Spec

LOOKED_AT = 64  # images whose brightness is kept
FAR = 4.0  # standard deviations
LISTED = 3  # names that a message lists


def fingerprint(dataset: Dataset) -> dict[str, Any]:
    """`counts` of the sources, and the dataset's own fingerprint: `path`, and `samples` by name. Of an environment as
    many episodes are played as are asked for."""
    if dataset.acts:
        return dataset.fingerprint()
    return {"counts": {name: len(source) for name, source in dataset.sources.items()}, **dataset.fingerprint()}


def brightness(split: AnySplit, spec: Spec) -> dict[str, list[float]]:
    """Of some images of a split, by entry: the mean and standard deviation of their mean normalized values."""
    images = spec.of_kind(Image)
    if not images or not len(split):
        return {}
    chosen = torch.linspace(0, len(split.index) - 1, min(LOOKED_AT, len(split.index))).long()
    batch = only(split.source, tuple(images)).take(split.index[chosen])
    found = {}
    for name, entry in images.items():
        mean_B = entry.normalize(batch[name].clone()).flatten(1).mean(1)
        found[name] = [float(mean_B.mean()), float(mean_B.std(unbiased=False))]
    return found


def is_far(image: Tensor, known: Any) -> bool:
    """True if normalized images [B, C, H, W] are much brighter or darker than those of the training (`brightness`)."""
    if not isinstance(known, list) or len(known) != 2 or not known[1] > 0:
        return False
    distance_B = (image.flatten(1).mean(1) - known[0]) / known[1]
    return bool(distance_B.median().abs() > FAR)


def check_classes(before: Spec, after: Spec) -> None:
    """Raises UserError if the classes differ from those of the training: labels would mean other classes."""
    for name, entry in before.entries.items():
        now = after.entries.get(name)
        names = ("names",) if isinstance(entry, Attributes) else ("classes",)
        if not isinstance(entry, Label | Attributes | Boxes | Mask) or now is None:
            continue
        old, new = (tuple(getattr(one, names[0], ())) for one in (entry, now))
        if old == new:
            continue
        gone, come = ([c for c in a if c not in b] for a, b in ((old, new), (new, old)))
        how = [f"{word} {', '.join(found[:LISTED])}" for word, found in (("without", gone), ("with", come)) if found]
        raise UserError(
            f"dataset: these are other data than the run's: {name} has {len(new)} classes, not its {len(old)} "
            f"({' and '.join(how) or 'in another order'})"
        )


def check_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Raises UserError if what the dataset says of how its samples are made differs: metrics would not compare."""
    for name in (before.keys() & after.keys()) - {"counts", "path", "samples"}:
        if before[name] != after[name]:
            raise UserError(f"dataset.{name}: the run's data have {before[name]}, got {after[name]}")


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The changes of the data, one line each, with numbers."""
    old, new = before.get("samples"), after.get("samples")
    if isinstance(old, dict) and isinstance(new, dict):
        found = {
            "missing": [name for name in old if name not in new],
            "new": [name for name in new if name not in old],
            "changed": [name for name in old if name in new and old[name] != new[name]],
        }
        parts = [
            f"{len(names)} {word} ({', '.join(names[:LISTED])}{', ...' if len(names) > LISTED else ''})"
            for word, names in found.items()
            if names
        ]
        return [f"of the run's {len(old)} samples: {', '.join(parts)}"] if parts else []
    counts = before.get("counts"), after.get("counts")
    if all(isinstance(count, dict) for count in counts) and counts[0] != counts[1]:
        return [f"the data had {_counts(counts[0])} samples, and have {_counts(counts[1])}"]
    return []


def _counts(counts: Any) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
