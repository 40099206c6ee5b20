"""Loaders: batches on the training device, in an order that is a function of seed and epoch alone.

What fits in memory stays on the device and is gathered by index; the rest comes through torch's DataLoader. Both give
the same batches to the bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dlx.config.errors import UserError
from dlx.data.dataset import TensorSource
from dlx.random import generator

if TYPE_CHECKING:
    from dlx.data.dataset import Source
    from dlx.data.view import Split, View
    from dlx.tasks.spec import Spec
    from dlx.tasks.system import Batch

FLOAT_BUDGET = 2 << 30  # bytes of normalized inputs that are kept ready on a CPU
MEMORY_SHARE = 0.25  # of what is free: for data that stays in memory, and on a GPU for normalized inputs
CHUNK = 4 << 20  # bytes that are normalized at a time when a split moves: what a cache holds (twice as fast as 64 MiB)


def count_batches(samples: int, batch_size: int, drop_last: bool) -> int:
    """Batches of an epoch; `batch_size` is the effective one."""
    return samples // batch_size if drop_last else -(-samples // batch_size)


class Loader:
    """Batches of one split: what the spec names, `index` (int64 [B], positions in the source), `weight` where there is.

    The effective batch b of an epoch is its b-th run of `batch_size * world_size` samples, of which each process takes
    a contiguous part. `batch_size` is that part, `steps_per_epoch` the number of batches of `epoch`.
    """

    def __init__(
        self,
        split: Split,
        spec: Spec,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
    ) -> None:
        self.split, self.spec, self.seed, self.rank, self.world_size = split, spec, seed, rank, world_size
        self.batch_size = max(1, batch_size // world_size)
        self.effective = self.batch_size * world_size
        self.steps_per_epoch = count_batches(len(split), self.effective, drop_last)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The training batches of an epoch, from batch number `start`; nothing before it is read."""
        parts = self._cut(self.order(epoch))
        return self._batches(parts[self.rank :: self.world_size][start:], "epoch")

    def order(self, epoch: int) -> Tensor:
        """Positions in the split, in the order of an epoch; what no batch takes is left out."""
        order = torch.randperm(len(self.split), generator=generator(self.seed, "order", epoch))
        return order[: self.steps_per_epoch * self.effective]

    def all(self) -> Iterator[Batch]:
        """Every sample once, in the split's order, nothing dropped; of several processes each takes every n-th."""
        return self._batches(self._cut(torch.arange(len(self.split))[self.rank :: self.world_size]), "all")

    def _cut(self, positions: Tensor) -> tuple[Tensor, ...]:
        return tuple(positions.split(self.batch_size)) if len(positions) else ()

    def _batches(self, parts: tuple[Tensor, ...], kind: str) -> Iterator[Batch]:
        """The batches at these positions in the split; kind is what asks: "epoch" or "all"."""
        raise NotImplementedError


@dataclass(frozen=True)
class Resident:
    """The rows that a split uses, on a device, with `index` and `weight` among them; `row` finds a position's row."""

    tensors: dict[str, Tensor]
    row: Tensor
    normalized: bool


class DeviceStore:
    """Splits that stay on a device, one copy each. They share no sample, so what they share of a source moves once."""

    def __init__(self) -> None:
        self._kept: dict[Split, Resident] = {}

    def get(self, split: Split, spec: Spec, device: torch.device) -> Resident:
        if split not in self._kept:
            self._kept[split] = _move(split, spec, device)
        return self._kept[split]


def _move(split: Split, spec: Spec, device: torch.device) -> Resident:
    assert isinstance(split.source, TensorSource)
    rows, row = split.index.unique(return_inverse=True)
    source = split.source.tensors
    tensors = {
        name: tensor.index_select(0, rows).to(device) for name, tensor in source.items() if name != spec.input_key
    }
    tensors["index"] = rows.to(device)
    if split.weight is not None:
        tensors["weight"] = split.weight[rows].to(device)
    raw = source[spec.input_key]
    row_bytes = max(1, raw[:1].numel() * 4)
    # What is float already grows no further.
    normalized = raw.is_floating_point() or row_bytes * len(rows) <= _float_budget(device)
    first = raw.index_select(0, rows[:1]).to(device)
    like = spec.normalize(first) if normalized else first
    kept = like.new_empty((len(rows), *like.shape[1:]))
    step = max(1, CHUNK // row_bytes)
    for chunk, target in zip(rows.split(step), kept.split(step), strict=True):
        moved = raw.index_select(0, chunk).to(device)
        target.copy_(spec.normalize(moved) if normalized else moved)
    return Resident({spec.input_key: kept, **tensors}, row, normalized)


class DeviceLoader(Loader):
    """All that the split uses is on the device; a batch is one gather."""

    def __init__(self, split: Split, spec: Spec, device: torch.device, store: DeviceStore, **order: Any) -> None:
        super().__init__(split, spec, **order)
        self.device = device
        self.resident = store.get(split, spec, device)

    def _batches(self, parts: tuple[Tensor, ...], kind: str) -> Iterator[Batch]:
        if not parts:
            return
        sizes = [len(part) for part in parts]
        order = self.resident.row[torch.cat(parts)].to(self.device)
        # Labels and the like are gathered once and sliced. Inputs are not: each batch is memory of its own, aligned
        # alike in any run, since matrix products may round by alignment.
        wide = {name: tensor for name, tensor in self.resident.tensors.items() if tensor.dim() > 1}
        flat = [name for name, tensor in self.resident.tensors.items() if tensor.dim() == 1]
        sliced = zip(*(self.resident.tensors[name].index_select(0, order).split(sizes) for name in flat), strict=True)
        for rows, values in zip(order.split(sizes), sliced, strict=True):
            batch = {name: tensor.index_select(0, rows) for name, tensor in wide.items()}
            if not self.resident.normalized:
                batch[self.spec.input_key] = self.spec.normalize(batch[self.spec.input_key])
            batch.update(zip(flat, values, strict=True))
            yield batch


class _WholeBatches(Dataset):
    """What a worker does: takes the samples of one batch from the source. Positions come as numpy: small to send."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, index: Any) -> Batch:
        return self.source.take(torch.from_numpy(index))


class _Positions(Sampler):
    """The batches to load; set anew for each pass, while the workers live on."""

    batches: tuple[Tensor, ...] = ()

    def __iter__(self) -> Iterator[Any]:
        return (index.numpy() for index in self.batches)


class WorkerLoader(Loader):
    """Samples come through worker processes, pinned memory and prefetch; normalization happens on the device.

    The workers live on from pass to pass; `epoch` and `all` have their own (started when first asked), so that a split
    can be walked through in the middle of an epoch.
    """

    def __init__(self, split: Split, spec: Spec, device: torch.device, workers: int, **order: Any) -> None:
        super().__init__(split, spec, **order)
        self.device, self.workers = device, workers
        self._passes = {kind: self._make_pass() for kind in ("epoch", "all")}

    def _make_pass(self) -> tuple[_Positions, DataLoader[Any]]:
        positions = _Positions()
        return positions, DataLoader(
            _WholeBatches(self.split.source),
            batch_size=None,
            sampler=positions,
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            prefetch_factor=4 if self.workers else None,
            persistent_workers=self.workers > 0,
            generator=generator(self.seed, "workers"),  # else it draws from the default one
        )

    def _batches(self, parts: tuple[Tensor, ...], kind: str) -> Iterator[Batch]:
        if not parts:
            return
        sizes = [len(part) for part in parts]
        index = self.split.index[torch.cat(parts)]
        positions, loader = self._passes[kind]
        positions.batches = tuple(index.split(sizes))
        known = {"index": index.to(self.device).split(sizes)}
        if self.split.weight is not None:
            known["weight"] = self.split.weight[index].to(self.device).split(sizes)
        for number, raw in enumerate(loader):
            batch = {name: tensor.to(self.device, non_blocking=True) for name, tensor in raw.items()}
            batch[self.spec.input_key] = self.spec.normalize(batch[self.spec.input_key])
            yield batch | {name: values[number] for name, values in known.items()}


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():  # Linux: what can be had without swapping, file cache included
        values = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(values["MemAvailable"].split()[0]) * 1024
    if hasattr(os, "sysconf"):  # macOS says what there is, not what is free
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return 4 << 30


def _float_budget(device: torch.device) -> float:
    return _free_memory(device) * MEMORY_SHARE if device.type == "cuda" else FLOAT_BUDGET


def _fits(split: Split, device: torch.device) -> bool:
    if not isinstance(split.source, TensorSource):
        return False
    row_bytes = sum(tensor[:1].numel() * tensor.element_size() for tensor in split.source.tensors.values())
    return row_bytes * min(len(split), len(split.source)) <= _free_memory(device) * MEMORY_SHARE


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
    """The loader that suits a split: on the device where it fits and no workers were asked for.

    batch_size: for evaluation, where it need not be the view's. store: shared by the loaders of a run.
    Raises UserError for a training batch that the processes cannot share evenly.
    """
    if batch_size is None and view.batch_size % world_size:
        raise UserError(f"dataset.batch_size: {view.batch_size} cannot be shared evenly by {world_size} processes")
    if batch_size is None and world_size > 1 and not view.drop_last:
        raise UserError("dataset.drop_last: several processes need full batches; set it to true")
    order = {
        "batch_size": batch_size or view.batch_size,
        "seed": seed,
        "rank": rank,
        "world_size": world_size,
        "drop_last": view.drop_last,
    }
    if view.workers == 0 and _fits(split, device):
        return DeviceLoader(split, spec, device, store or DeviceStore(), **order)
    return WorkerLoader(split, spec, device, view.workers, **order)
