"""Regularizer: hooks into a training step. A method defines the hooks it needs, and the loop calls no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from torch import Tensor, nn

from dlx.tasks.spec import Entry, Label
from dlx.tasks.system import Batch, System


class Regularizer:
    """Base of all regularizers. `order` sorts `on_batch`, not the order on the command line: augmentation (0), input
    noise (1), mixup and CutMix (2), label smoothing (3). Of two with the same order one is drawn for each batch; those
    of order 9 all apply."""

    order: ClassVar[int] = 9
    monitor: str | None = None
    """What "best" means with this regularizer, such as val/loss:min; None leaves it to the trainer and the system."""

    needs_monitor: ClassVar[bool] = False
    """True if it needs a metric that defines "best"."""

    needs: ClassVar[tuple[type[Entry], ...]] = ()
    """Of `on_batch`: the system must read an entry of one of these kinds."""

    needs_target: ClassVar[bool] = False
    """Of `on_batch`: True if it changes the target, so that there must be one."""

    keeps_inputs: ClassVar[tuple[type[Entry], ...]] = ()
    keeps_targets: ClassVar[tuple[type[Entry], ...]] = ()
    """Of `on_batch`: kinds of entries that are still right after it. A system that reads others is refused."""

    soft_labels: float = 0.0
    """The share of batches whose labels it turns into float [B, K]."""

    def check(self, system: System) -> None:
        """Raises ValueError if it cannot work on this system (which may be on the meta device)."""
        if not self.defines("on_batch"):
            return
        if system.views:
            raise ValueError("would change one view of several; the model's augmentation says how views are made")
        spec = system.spec
        inputs, targets = spec.inputs, {name: spec.entries[name] for name in spec.targets}
        if self.needs_target and not targets:
            raise ValueError(f"needs a target, and {type(system).__name__} has none")
        if self.needs and not any(isinstance(entry, self.needs) for entry in spec.entries.values()):
            kinds = " or ".join(_PLURALS.get(kind.__name__, kind.__name__) for kind in self.needs)
            raise ValueError(f"needs {kinds}, and {type(system).__name__} reads none")
        for found, kept in ((inputs, self.keeps_inputs), (targets, self.keeps_targets)):
            for name, entry in found.items():
                if not isinstance(entry, kept):
                    raise ValueError(f"would leave `{name}` ({type(entry).__name__}) wrong")
        softened = self.soft_labels and any(isinstance(entry, Label) for entry in targets.values())
        if softened and "soft_label" not in system.takes:
            raise ValueError(f"makes labels soft, which {type(system).__name__} does not take")

    def on_batch(self, batch: Batch, system: System) -> Batch:
        """Changes a micro-batch; may turn a label into float [B, K]. What it mixes it also mixes in `weight`."""
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
        """Called after each validation; True ends the training.

        history: all validations of the stage so far, the newest last: `step` and metrics such as `val/loss`. monitor:
        what "best" means, such as ("val/loss", "min").
        """
        return False

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores the output of `state`."""

    def defines(self, hook: str) -> bool:
        """True if this class overrides a hook."""
        return getattr(type(self), hook) is not getattr(Regularizer, hook)


_PLURALS = {"Image": "images", "Label": "class labels", "Reals": "real numbers", "Attributes": "attributes"}
