"""Several supervised systems' outputs as one: averaged, voted on, or added up.

Shapes: M members, B batch, K outputs (classes of a classifier).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Vote = Literal["average", "majority", "sum"]
FLOOR = 1e-6  # the share of a class that nobody votes for: its logarithm must be finite


def combine_votes(output_MBK: Tensor, weight_M: Tensor, vote: Vote, *, classes: bool) -> Tensor:
    """Outputs [B, K] of members [M, B, K]. Of classifiers they are logits, and so is what comes out.

    weight_M: not negative for average and majority, [M], or [M, B] where members count differently for each sample.
    average: weighted mean of the outputs; of classifiers, of the probabilities (as log-probabilities).
    majority: each classifier votes for one class with its weight; the logarithm of the shares of the votes.
    sum: weighted sum of the outputs.
    """
    weight_MB = weight_M if weight_M.dim() == 2 else weight_M.unsqueeze(1)
    if vote == "sum":
        return (output_MBK * weight_MB.unsqueeze(-1)).sum(0)
    share_MB1 = (weight_MB / weight_MB.sum(0)).unsqueeze(-1)
    if vote == "majority":
        classes_K = torch.arange(output_MBK.shape[-1], device=output_MBK.device)
        votes_MBK = (output_MBK.argmax(-1, keepdim=True) == classes_K).to(output_MBK.dtype)
        return (votes_MBK * share_MB1).sum(0).clamp_min(FLOOR).log()
    if not classes:
        return (output_MBK * share_MB1).sum(0)
    return (output_MBK.log_softmax(-1) + share_MB1.log()).logsumexp(0)
