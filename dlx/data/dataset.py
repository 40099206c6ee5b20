"""Dataset: the base of all datasets. Its constructor is cheap; reading starts with `splits()`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from dlx.tasks.spec import Spec
    from dlx.tasks.system import Batch, System


class Source(Protocol):
    """Samples that are taken by index, whole batches at a time.

    A source may have further attributes. lengths: by the names of entries that are padded to the longest sample, int64
    [N] tokens, or [N, 2] rows and columns; batches are then made of samples of similar length and cut to their longest.
    keys: names of the samples (paths); a sample is then drawn into a split
    by its own name, so that one more or less moves no other. only(names): gives a source that decodes no more.
    """

    def __len__(self) -> int: ...

    def take(self, index: Tensor, draw: int = 0) -> Batch:
        """The samples at `index` (int64 [B]) as a batch of raw (not normalized) tensors on the CPU, without `index`.

        draw: a hash of the run's seed and the epoch, for sources that draw.
        """
        ...


class TensorSource:
    """A source that is tensors of equal length, in memory or memory-mapped."""

    lengths: Mapping[str, Tensor] | None = None
    keys: Sequence[str] | None = None

    def __init__(self, **tensors: Tensor) -> None:
        sizes = {name: len(tensor) for name, tensor in tensors.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"tensors of a source must be equally long, got {sizes}")
        self.tensors = tensors

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def take(self, index: Tensor, draw: int = 0) -> Batch:
        return {name: tensor[index] for name, tensor in self.tensors.items()}

    def only(self, names: Collection[str]) -> TensorSource:
        source = type(self).__new__(type(self))
        vars(source).update(vars(self))
        source.tensors = {name: tensor for name, tensor in self.tensors.items() if name in names}
        return source


def only(source: Source, names: Collection[str]) -> Source:
    """A source with only these entries, if the source supports it."""
    narrowed = getattr(source, "only", None)
    return narrowed(names) if narrowed else source


class Windows:
    """Windows of `length` tokens over one stream, int64 or smaller [T], which is kept once.

    stride: from the start of one window to that of the next; a stride of length - 1 shares a token, so that each one
    is predicted once.
    """

    def __init__(self, stream: Tensor, length: int, *, stride: int | None = None, name: str = "tokens") -> None:
        self.stream, self.length, self.stride, self.name = stream, length, stride or length, name

    def __len__(self) -> int:
        return max(0, (len(self.stream) - self.length) // self.stride + 1)

    def take(self, index: Tensor, draw: int = 0) -> Batch:
        start_B1 = (index * self.stride).unsqueeze(1)
        return {self.name: self.stream[start_B1 + torch.arange(self.length, device=index.device)]}

    def to(self, device: torch.device) -> Windows:
        return Windows(self.stream.to(device), self.length, stride=self.stride, name=self.name)


class Unpaired:
    """Two sources whose samples do not belong together. Each is split by itself and has an order of its own; an epoch
    is as long as that of the longer, and `index` is the first one's."""

    def __init__(self, a: Source, b: Source) -> None:
        self.a, self.b = a, b

    def __len__(self) -> int:
        return max(len(self.a), len(self.b))

    def take(self, index: Tensor, draw: int = 0) -> Batch:
        return {**self.a.take(index % len(self.a), draw), **self.b.take(index % len(self.b), draw)}


class Dataset:
    """Base of all datasets.

    `spec` may be a class attribute, an instance attribute or a property; its annotation names the spec's class, which
    `dlx.config` compares with what a model accepts before anything is loaded.
    """

    acts: ClassVar[bool] = False
    """Whether it is an environment: what it learns from is what `prepare` makes it do. It has no folds, subsets,
    replicates or weights, and is loaded by the process that trains."""

    keeps: ClassVar[tuple[str, ...]] = ()
    """Constructor arguments that `adopt` stands in for: where a run is read they stay as they are."""

    spec: Spec

    def splits(self) -> Mapping[str, Source | Unpaired]:
        """What the data comes in: `train`, and `val` and `test` where they are given.

        `dlx.data.splits` makes what is missing: `test` is a stratified fifth of `train`, `val` a tenth of the rest.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no splits")

    @cached_property
    def sources(self) -> Mapping[str, Any]:
        """The output of `splits()`, computed once."""
        return self.splits()

    def adopt(self, spec: Spec) -> None:
        """Called before anything is read where a run goes on or is evaluated: `spec` is that of the data it was trained
        on. A dataset that makes a tokenizer takes that run's from it: on changed or other texts each token still means
        what it meant to the model."""

    def notes(self) -> list[str]:
        """Lines for the user before a training, such as images that were left out."""
        return []

    def fingerprint(self) -> dict[str, Any]:
        """What a run keeps to tell later whether these are the same data: `path`, where they lie, and `samples`, the
        bytes (or another number) of each by its name. Empty where the data cannot change. Any other key is a setting
        that a later evaluation may not change (`binarization`)."""
        return {}

    def prepare(self, step: int, system: System) -> dict[str, Tensor] | None:
        """Called before each batch, under the random scope `act`: an environment acts here. Returns scalars to log."""
        return None

    def state(self) -> dict[str, Any]:
        """The state that a resume restores: tensors, numbers and strings. Each process saves its own."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores the output of `state`, tensors on the training device."""
