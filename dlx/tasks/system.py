"""System: what dlx trains. A network, the objectives of its players, how it is judged and what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from dlx.tasks.spec import Spec

Batch = dict[str, Any]
"""Tensors under the names of the dataset's spec, always with `index`. It lives for one step: an objective may
leave detached tensors in it for the next one, so that a generator's fakes are made once."""

Statistics = dict[str, Any]
"""Sums of an evaluation. Tensors of several batches (and ranks) are added, lists are joined."""


@dataclass(frozen=True, eq=False)
class Objective:
    """One player's turn: which parameters take a gradient step, and on which steps.

    `every=5` takes its turn on each fifth step only (a generator against five critic steps).
    """

    name: str
    params: list[nn.Parameter]
    every: int = 1


class System(nn.Module):
    """The contract between a model and the one training loop.

    A subclass defines `training_loss`, and of the rest what it has. All parameters are made in the constructor; it
    keeps nothing of a step on `self` (`training_loss` is run by DDP, torch.compile and vmap alike).
    """

    players: ClassVar[tuple[str, ...]] = ()
    """Names that `optimizer.players.<name>` may set apart; empty for a system with one objective."""

    spec: Spec

    @property
    def device(self) -> torch.device:
        """Where its weights are, or its buffers: what is fitted in closed form has no weights."""
        return next(chain(self.parameters(), self.buffers())).device

    @property
    def monitor(self) -> tuple[str, str] | None:
        """What "best" means, such as ("val/accuracy", "max"); None: the last weights are the best."""
        return None

    @property
    def gaps(self) -> Mapping[str, int]:
        """Figures whose generalization gap is logged as `gap/NAME`, with the sign that makes overfitting positive: 1
        for train - val (accuracy), -1 for val - train (loss). Empty: the training data are not evaluated."""
        return {}

    def objectives(self) -> list[Objective]:
        """The players in the order of their turns; empty for a closed-form system."""
        return [Objective("loss", [p for p in self.parameters() if p.requires_grad])]

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss (a scalar tensor) and further scalars to log (detached tensors; no `.item()`)."""
        raise NotImplementedError(f"{type(self).__name__} defines no training_loss")

    def evaluate(self, batch: Batch) -> Statistics:
        """Sums over one batch in eval mode, without gradients, from which `metrics` makes figures."""
        return {}

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        """Figures from the joined sums of a whole split, without the split's prefix: {"loss": ..., "accuracy": ...}."""
        return {}

    @property
    def figures(self) -> tuple[str, ...]:
        """The names that `metrics` gives, where they are known before an evaluation; else empty."""
        return ()

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """What a person asks a trained system for; the kind says which entries."""
        raise NotImplementedError(f"{type(self).__name__} has no predict")

    def showcase(self, batch: Batch) -> dict[str, Any]:
        """Pictures by name that a person would look at (matplotlib figures)."""
        return {}

    def before_step(self, step: int, data: Any) -> bool:
        """Called before each step; True says that the objectives changed and optimizers are made anew."""
        return False

    def after_step(self, step: int) -> None:
        """Called after each step (target networks)."""

    def fit(self, data: Any) -> None:
        """A closed-form stage on the best weights, after gradient training; results are buffers of fixed shape."""

    def state(self) -> dict[str, Any]:
        """What must survive a resume and is no weight: tensors, numbers and strings."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave; called before the weights are loaded."""
