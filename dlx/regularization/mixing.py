"""Mixes targets and sample weights of two samples, for mixup and CutMix."""

from __future__ import annotations

from torch import Tensor

from dlx.tasks.classification import soft_labels
from dlx.tasks.spec import Label, Spec
from dlx.tasks.system import Batch


def soft_targets(batch: Batch, spec: Spec) -> Batch:
    """A batch's targets in a form that can be mixed: class labels as distributions, numbers as they are."""
    labels = {name: entry for name, entry in spec.of_kind(Label).items() if name in spec.targets}
    soft = {name: soft_labels(batch[name], len(entry.classes)) for name, entry in labels.items()}
    return {name: soft.get(name, batch[name]) for name in spec.targets}


def mix_targets(batch: Batch, spec: Spec, partner: Tensor, share: float) -> Batch:
    """Targets with `share` of the partner's, and the samples' weights, where they have some.

    The loss of a mixed sample is (1 - s) w_i l(y_i) + s w_j l(y_j). As one sample with one target that is weight
    (1 - s) w_i + s w_j, and the targets by their parts of it: equal for the cross-entropy, and for the squared error up
    to a constant.
    """
    mixed: Batch = {}
    own: Tensor | float = share
    if "weight" in batch:
        weight_B = batch["weight"]
        partner_B = share * weight_B[partner]
        mixed["weight"] = (1 - share) * weight_B + partner_B
        own = (partner_B / mixed["weight"]).where(mixed["weight"] > 0, share).unsqueeze(-1)
    for name, target in soft_targets(batch, spec).items():
        mixed[name] = target.lerp(target[partner], own)
    return mixed
