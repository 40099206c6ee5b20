"""Dataset: what there is to learn from. Its constructor is cheap; reading starts with `splits()`."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from dlx.tasks.spec import Spec
    from dlx.tasks.system import Batch, System


class Source(Protocol):
    """Samples that are taken by index, whole batches at a time."""

    def __len__(self) -> int: ...

    def take(self, index: Tensor) -> Batch:
        """The samples at `index` (int64 [B]) as a batch of raw (not normalized) tensors on the CPU, without `index`."""
        ...


class TensorSource:
    """A source that is tensors of equal length, in memory or memory-mapped."""

    def __init__(self, **tensors: Tensor) -> None:
        lengths = {name: len(tensor) for name, tensor in tensors.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"tensors of a source must be equally long, got {lengths}")
        self.tensors = tensors

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def take(self, index: Tensor) -> Batch:
        return {name: tensor[index] for name, tensor in self.tensors.items()}


class Dataset:
    """Base of all datasets.

    `spec` may be a class attribute, an instance attribute or a property; its annotation names the spec's class, which
    `dlx.config` compares with what a model accepts before anything is loaded.
    """

    spec: Spec

    def splits(self) -> dict[str, Source]:
        """What the data comes in: `train`, and `val` and `test` where they are given.

        `dlx.data.view` makes what is missing: `test` is a stratified fifth of `train`, `val` a tenth of the rest.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no splits")

    @cached_property
    def sources(self) -> dict[str, Source]:
        """What `splits()` gave, once for all that read it."""
        return self.splits()

    def prepare(self, step: int, system: System) -> None:
        """Called before each batch: an environment acts here."""

    def state(self) -> dict[str, Any]:
        """What must survive a resume: tensors, numbers and strings."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave."""
