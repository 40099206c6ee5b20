"""CutMix (Yun et al. 2019, arXiv:1905.04899): a box of one image is pasted into another, labels by area."""

from __future__ import annotations

import torch

from dlx.config import checks
from dlx.regularization.mixing import mix_targets
from dlx.regularization.regularizer import Regularizer
from dlx.tasks.spec import Attributes, Image, Label
from dlx.tasks.system import Batch, System


class CutMix(Regularizer):
    """One box and one permutation per batch.

    alpha: the box's area is 1 - w of the image, w ~ Beta(alpha, alpha). The label's weight is that of the box as it is
    after the image's border cut it. probability: of a batch to be mixed (0.5 for CIFAR in the paper, 1 for ImageNet).
    """

    order = 2
    needs = (Image,)
    needs_target = True
    keeps_inputs = (Image,)
    keeps_targets = (Label, Attributes)

    def __init__(self, *, alpha: float = 1.0, probability: float = 0.5) -> None:
        checks.above(0, alpha=alpha)
        checks.between("[0, 1]", probability=probability)
        self.alpha, self.probability = alpha, probability
        self.soft_labels = probability

    def on_batch(self, batch: Batch, system: System) -> Batch:
        images = system.spec.of_kind(Image)
        height, width = batch[next(iter(images))].shape[-2:]
        # Drawn on the CPU: what a device draws would have to be waited for.
        coin, y, x = torch.rand(3).tolist()
        if coin >= self.probability:
            return batch
        side = (1 - torch._sample_dirichlet(torch.tensor([self.alpha, self.alpha]))[0].item()) ** 0.5
        top, bottom = _cut(y, side, height)
        left, right = _cut(x, side, width)
        partner = torch.randperm(len(batch["index"]), device=batch["index"].device)
        mixed = {}
        for name in images:
            mixed[name] = batch[name].clone()
            mixed[name][..., top:bottom, left:right] = batch[name][partner, :, top:bottom, left:right]
        area = (bottom - top) * (right - left) / (height * width)
        return {**batch, **mixed, **mix_targets(batch, system.spec, partner, area)}


def _cut(centre: float, side: float, length: int) -> tuple[int, int]:
    """First and last pixel (exclusive) of a box's side around a centre, both as shares of `length`, cut to 0..length.

    The border is at whole pixels.
    """
    middle, half = int(centre * length), int(side * length) // 2
    odd = int(side * length) % 2
    return max(0, middle - half), min(length, middle + half + odd)
