"""Functions that adversarial systems share."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """E (|grad critic(x)| - 1)^2 at x = u real + (1 - u) fake, one u in (0, 1) for each sample (Gulrajani et al. 2017,
    arXiv:1704.00028, algorithm 1).

    critic: from samples [B, ...] to scores [B] or [B, 1]. It is computed in float32 also under autocast: a gradient
    of a gradient in half precision underflows.
    """
    with torch.autocast(real.device.type, enabled=False):
        real, fake = real.float(), fake.detach().float()
        u_B = torch.rand(len(real), device=real.device).view(-1, *[1] * (real.dim() - 1))
        x = (u_B * real + (1 - u_B) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(critic(x).float().sum(), x, create_graph=True)
        norm_B = (slope.flatten(1).square().sum(1) + 1e-12).sqrt()  # a root has no slope at 0
        return (norm_B - 1).square().mean()


def discriminator_loss(real_B: Tensor, fake_B: Tensor) -> Tensor:
    """-E ln D(real) - E ln(1 - D(fake)) of logits (Goodfellow et al. 2014, arXiv:1406.2661); 2 ln 2 for D = 1/2."""
    return F.softplus(-real_B).mean() + F.softplus(fake_B).mean()


def generator_loss(fake_B: Tensor) -> Tensor:
    """-E ln D(fake) of logits, the non-saturating loss; ln 2 for D = 1/2. Unlike E ln(1 - D) it has a slope where D is
    sure that it sees a fake."""
    return F.softplus(-fake_B).mean()
