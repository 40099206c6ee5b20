"""Regularizer: hooks into a training step. A method defines the hooks it needs, and the loop calls no others."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from dlx.tasks.system import Batch, System


class Regularizer:
    """Base of all regularizers. `place` orders `on_batch`, whatever the order on the command line:
    augmentation (0), input noise (1), mixup and CutMix (2), label smoothing (3). Two in one place are alternatives: a
    coin is thrown for each batch. Those in place 9 all apply."""

    place: ClassVar[int] = 9
    monitor: str | None = None
    """What "best" means where this is on, such as val/loss:min; None leaves it to the trainer and the system."""

    needs_monitor: ClassVar[bool] = False
    """Whether it can do nothing where no figure says what "best" means."""

    soft_labels: float = 0.0
    """The share of batches whose labels it turns into float [B, K]."""

    def check(self, system: System) -> None:
        """Raises ValueError where it cannot work on such a system (which may be on the meta device)."""

    def on_batch(self, batch: Batch, system: System) -> Batch:
        """Changes a micro-batch; may turn `label` into float [B, K]."""
        return batch

    def around_loss(self, system: System) -> AbstractContextManager[Any]:
        """Spans the forward and its backward, once per micro-batch."""
        return nullcontext()

    def penalty(self, system: System) -> Tensor | float:
        """A term added to the loss, so that the logged loss has it."""
        return 0.0

    def on_gradients(self, params: Sequence[nn.Parameter]) -> None:
        """Changes gradients in place, before clipping."""

    def after_step(self, system: System, lr: float) -> None:
        """Changes weights in place, after the optimizer took its step with learning rate `lr` (proximal steps)."""

    def on_validation(self, history: list[dict[str, float]], monitor: tuple[str, str] | None) -> bool:
        """Told all validations so far (`step` and figures such as `val/loss`, the newest last) and what "best" means,
        such as ("val/loss", "min"); True ends the training."""
        return False

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave."""

    def defines(self, hook: str) -> bool:
        """Whether this method has its own version of a hook."""
        return getattr(type(self), hook) is not getattr(Regularizer, hook)
