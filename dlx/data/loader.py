"""Loaders: batches on the training device, in an order that is a function of seed and epoch alone.

What fits in memory stays on the device and is gathered by index; the rest comes through torch's DataLoader. Both give
the same batches to the bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dlx.config.errors import UserError
from dlx.data.dataset import TensorSource
from dlx.random import generator

if TYPE_CHECKING:
    from dlx.data.dataset import Source
    from dlx.data.view import Split, View
    from dlx.tasks.spec import Spec
    from dlx.tasks.system import Batch

FLOAT_BUDGET = 2 << 30  # bytes of normalized inputs that are kept ready on a CPU
MEMORY_SHARE = 0.25  # of what is free, for data that stays in memory


class Loader:
    """Batches of one split. `batch_size` is this process's part of the effective batch."""

    def __init__(
        self, split: Split, *, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1, drop_last: bool = True
    ) -> None:
        if batch_size % world_size:
            raise UserError(f"dataset.batch_size: {batch_size} cannot be shared by {world_size} processes")
        self.split, self.seed, self.rank, self.world_size = split, seed, rank, world_size
        self.effective, self.batch_size = batch_size, batch_size // world_size
        full, rest = divmod(len(split), batch_size)
        self.steps_per_epoch = full if drop_last or not rest else full + 1

    def order(self, epoch: int) -> Tensor:
        """The split's positions in the order of an epoch."""
        return self.split.index[torch.randperm(len(self.split), generator=generator(self.seed, "order", epoch))]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The training batches of an epoch, from batch number `start`; nothing before it is read."""
        order = self.order(epoch)
        parts = []
        for number in range(start, self.steps_per_epoch):
            first = number * self.effective + self.rank * self.batch_size
            parts.append(order[first : min(first + self.batch_size, (number + 1) * self.effective)])
        return self._batches(parts)

    def all(self) -> Iterator[Batch]:
        """Every sample once, in the split's order (this process's share of them), nothing dropped."""
        return self._batches(list(self.split.index[self.rank :: self.world_size].split(self.batch_size)))

    def _batches(self, parts: list[Tensor]) -> Iterator[Batch]:
        raise NotImplementedError


class DeviceStore:
    """Sources that stay on a device: one copy each, however many splits share it."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Source, dict[str, Tensor], bool]] = {}

    def get(self, source: TensorSource, spec: Spec, device: torch.device) -> tuple[dict[str, Tensor], bool]:
        """The source's tensors on the device, and whether the input is normalized already."""
        if id(source) not in self._kept:
            raw = source.tensors[spec.input_key]
            ready = 4 * raw.numel() <= _float_budget(device)
            tensors = {name: tensor.to(device) for name, tensor in source.tensors.items()}
            if ready:
                tensors[spec.input_key] = spec.normalize(tensors[spec.input_key])
            self._kept[id(source)] = (source, tensors, ready)
        return self._kept[id(source)][1:]


class DeviceLoader(Loader):
    """All of the source is on the device; a batch is one gather per tensor."""

    def __init__(self, split: Split, spec: Spec, device: torch.device, store: DeviceStore, **order: Any) -> None:
        super().__init__(split, **order)
        assert isinstance(split.source, TensorSource)
        self.tensors, self.ready = store.get(split.source, spec, device)
        self.spec, self.device = spec, device
        if split.weight is not None:
            self.tensors = {**self.tensors, "weight": split.weight.to(device)}

    def _batches(self, parts: list[Tensor]) -> Iterator[Batch]:
        if not parts:
            return
        sizes = [len(part) for part in parts]
        for index in torch.cat(parts).to(self.device).split(sizes):
            batch = {name: tensor.index_select(0, index) for name, tensor in self.tensors.items()}
            if not self.ready:
                batch[self.spec.input_key] = self.spec.normalize(batch[self.spec.input_key])
            batch["index"] = index
            yield batch


class _WholeBatches(torch.utils.data.Dataset):
    """What a worker does: takes the samples of one batch from the source."""

    def __init__(self, source: Source, weight: Tensor | None) -> None:
        self.source, self.weight = source, weight

    def __getitem__(self, index: Tensor) -> Batch:
        batch = {**self.source.take(index), "index": index}
        if self.weight is not None:
            batch["weight"] = self.weight[index]
        return batch


class WorkerLoader(Loader):
    """Samples come through worker processes, pinned memory and prefetch; normalization happens on the device."""

    def __init__(self, split: Split, spec: Spec, device: torch.device, workers: int, **order: Any) -> None:
        super().__init__(split, **order)
        self.spec, self.device, self.workers = spec, device, workers

    def _batches(self, parts: list[Tensor]) -> Iterator[Batch]:
        loader: DataLoader[Any] = DataLoader(
            _WholeBatches(self.split.source, self.split.weight),
            batch_size=None,
            sampler=parts,  # type: ignore[arg-type] (batches of positions, in their order)
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            prefetch_factor=4 if self.workers else None,
        )
        for raw in loader:
            batch = {name: tensor.to(self.device, non_blocking=True) for name, tensor in raw.items()}
            batch[self.spec.input_key] = self.spec.normalize(batch[self.spec.input_key])
            yield batch


def _float_budget(device: torch.device) -> float:
    return torch.cuda.mem_get_info(device)[0] * MEMORY_SHARE if device.type == "cuda" else FLOAT_BUDGET


def _fits(source: Source, device: torch.device) -> bool:
    if not isinstance(source, TensorSource):
        return False
    size = sum(tensor.numel() * tensor.element_size() for tensor in source.tensors.values())
    if device.type == "cuda":
        return size <= torch.cuda.mem_get_info(device)[0] * MEMORY_SHARE
    return size <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") * MEMORY_SHARE


def make_loader(
    split: Split,
    spec: Spec,
    view: View,
    *,
    device: torch.device,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    batch_size: int | None = None,
    store: DeviceStore | None = None,
) -> Loader:
    """The loader that suits a split: on the device where it fits and no workers were asked for."""
    order = {
        "batch_size": batch_size or view.batch_size,
        "seed": seed,
        "rank": rank,
        "world_size": world_size,
        "drop_last": view.drop_last,
    }
    if view.workers == 0 and _fits(split.source, device):
        return DeviceLoader(split, spec, device, store or DeviceStore(), **order)
    return WorkerLoader(split, spec, device, view.workers, **order)
