"""Ensemble (Hansen and Salamon 1990; bagging: Breiman 1996; boosting: Freund and Schapire 1997): one answer of several.

The mean of B predictors with variance s2 and pairwise correlation r has variance r s2 + (1 - r) s2 / B. The loss of the
averaged probabilities is at most the members' mean loss (Jensen), the squared error of the mean at most their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from dlx.config import checks
from dlx.tasks.supervised import AnySamples, Supervised
from dlx.tasks.system import Objective, System
from dlx.tasks.vote import combine_votes


class Ensemble(Supervised):
    """Trained systems that answer as one; nothing of it is trained.

    members_from: the runs whose best weights its members have. members: their `model:` blocks, which dlx writes into
    the configuration, so that the ensemble needs those runs no more. weights: of the members; None: all alike.
    vote: average (of classifiers: of the probabilities), majority (weighted votes; classifiers only; SAMME's), sum (of
    the weighted outputs: gradient boosting's). offset: added to a sum, a number for each output.
    """

    def __init__(
        self,
        *,
        spec: AnySamples,
        members: tuple[System, ...] = (),
        members_from: tuple[str, ...] = (),
        weights: Sequence[float] | None = None,
        vote: Literal["average", "majority", "sum"] = "average",
        offset: Sequence[float] | None = None,
        loss: str | None = None,
    ) -> None:
        super().__init__(spec=spec, loss=loss)
        if not members:
            raise ValueError("members_from must name at least one run")
        weights = [1.0] * len(members) if weights is None else list(weights)
        if len(weights) != len(members):
            raise ValueError(f"weights must be {len(members)} numbers, one for each member, got {len(weights)}")
        checks.one_of(("average", "majority", "sum"), vote=vote)
        if vote == "majority" and not self.is_classifier:
            raise ValueError("vote must be average or sum for real targets, got majority")
        if vote != "sum" and (min(weights) < 0 or sum(weights) == 0):
            raise ValueError(f"weights must not be negative, nor all 0, for vote={vote}, got {weights}")
        if offset is not None and (vote != "sum" or len(offset) != self.num_outputs):
            raise ValueError(f"offset must be {self.num_outputs} numbers, with vote=sum, got {list(offset)}")
        self.vote = vote
        self.members = nn.ModuleList(members)
        self.weight_M = nn.Buffer(torch.tensor(weights))
        self.offset_K = nn.Buffer(torch.tensor(offset or (0.0,) * self.num_outputs))

    def objectives(self, stage: int = 0) -> list[Objective]:
        return []

    def forward(self, x: Tensor) -> Tensor:
        output_MBK = torch.stack([member(x) for member in self.members])
        return combine_votes(output_MBK, self.weight_M, self.vote, classes=self.is_classifier) + self.offset_K
