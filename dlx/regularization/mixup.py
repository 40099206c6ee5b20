"""mixup (Zhang et al. 2017, arXiv:1710.09412): one weight per batch, pairs within the batch, soft labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dlx.regularization.regularizer import Regularizer
from dlx.tasks.classification import soft_target

if TYPE_CHECKING:
    from dlx.tasks.system import Batch, System


class Mixup(Regularizer):
    """x = w x_i + (1 - w) x_j and y alike, with w ~ Beta(alpha, alpha).

    alpha: 1 for CIFAR in the paper, 0.2 to 0.4 for ImageNet; small values mix little.
    """

    place = 2
    soft_labels = 1.0

    def __init__(self, *, alpha: float = 0.2) -> None:
        if alpha <= 0:
            raise ValueError(f"alpha must be above 0, got {alpha}")
        self.alpha = alpha

    def on_batch(self, batch: Batch, system: System) -> Batch:
        spec = system.spec
        x, y = batch[spec.input_key], soft_target(batch, spec)
        # Drawn on the CPU: a weight from the device would have to be waited for.
        weight = torch._sample_dirichlet(torch.tensor([self.alpha, self.alpha]))[0].item()
        partner = torch.randperm(len(x), device=x.device)
        return {
            **batch,
            spec.input_key: x.lerp(x[partner], 1 - weight),
            spec.target_key: y.lerp(y[partner], 1 - weight),
        }
