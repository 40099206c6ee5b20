"""mixup (Zhang et al. 2017, arXiv:1710.09412): one weight per batch, pairs within the batch, soft labels."""

from __future__ import annotations

import torch

from dlx.config import checks
from dlx.regularization.mixing import mix_targets
from dlx.regularization.regularizer import Regularizer
from dlx.tasks.spec import Attributes, Image, Label, Reals
from dlx.tasks.system import Batch, System


class Mixup(Regularizer):
    """x = w x_i + (1 - w) x_j and y alike, with w ~ Beta(alpha, alpha).

    alpha: 1 for CIFAR in the paper, 0.2 to 0.4 for ImageNet; small values mix little.
    """

    order = 2
    soft_labels = 1.0
    needs_target = True
    keeps_inputs = (Image, Reals)
    keeps_targets = (Label, Attributes, Reals)

    def __init__(self, *, alpha: float = 0.2) -> None:
        checks.above(0, alpha=alpha)
        self.alpha = alpha

    def on_batch(self, batch: Batch, system: System) -> Batch:
        # Drawn on the CPU: a weight from the device would have to be waited for.
        weight = torch._sample_dirichlet(torch.tensor([self.alpha, self.alpha]))[0].item()
        partner = torch.randperm(len(batch["index"]), device=batch["index"].device)
        inputs = {name: batch[name].lerp(batch[name][partner], 1 - weight) for name in system.spec.inputs}
        return {**batch, **inputs, **mix_targets(batch, system.spec, partner, 1 - weight)}
