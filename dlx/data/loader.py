"""Loaders: batches on the training device, in an order that is a function of seed and epoch alone.

What fits in memory stays on the device and is gathered by index; the rest comes through torch's DataLoader. Both give
the same batches to the bit. A loader delivers the entries that it is asked for, normalized as they say.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlx.config.errors import UserError
from dlx.data.dataset import TensorSource, Windows, only
from dlx.data.proposals import Proposed
from dlx.data.splits import Split, UnpairedSplit
from dlx.data.workers import Workers, named
from dlx.random import derive, generator
from dlx.tasks.spec import Image, Size, normalize

if TYPE_CHECKING:
    from dlx.data.splits import AnySplit, SplitSettings
    from dlx.tasks.spec import Entry
    from dlx.tasks.system import Batch

FLOAT_BUDGET = 2 << 30  # bytes of normalized inputs that are kept ready on a CPU
MEMORY_SHARE = 0.25  # of what is free: for data that stays in memory, and on a GPU for normalized inputs
CHUNK = 4 << 20  # bytes that are normalized at a time when a split moves: what a cache holds (twice as fast as 64 MiB)
EVALUATED = 256  # samples that are evaluated at a time, or
EVALUATED_BYTES = 64 << 20  # as many as this holds; both only where the training batch is not larger
SIMILAR = 50  # batches whose samples are sorted by length together

Entries = Mapping[str, "Entry"]


def count_batches(samples: int, batch_size: int, drop_last: bool) -> int:
    """Batches of an epoch; `batch_size` is the effective one."""
    return samples // batch_size if drop_last else -(-samples // batch_size)


class Loader:
    """Batches of one split: the entries, `index` (int64 [B], positions in the source), `weight` where there is one.

    The effective batch b of an epoch is its b-th run of `batch_size * world_size` samples, of which each process takes
    a contiguous part. `batch_size` is that part, `steps_per_epoch` the number of batches of `epoch`.
    """

    split: AnySplit

    def __init__(
        self,
        split: AnySplit,
        entries: Entries,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
    ) -> None:
        self.split, self.entries, self.seed, self.rank, self.world_size = split, entries, seed, rank, world_size
        self.batch_size = max(1, batch_size // world_size)
        self.effective = self.batch_size * world_size
        self.steps_per_epoch = count_batches(len(split), self.effective, drop_last)
        lengths = getattr(split.source, "lengths", None) or {}
        self.lengths = {name: values for name, values in lengths.items() if name in entries}

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The training batches of an epoch, from batch number `start`; nothing before it is read."""
        parts = self._cut(self.order(epoch))
        return self.batches(parts[self.rank :: self.world_size][start:], "epoch", derive(self.seed, "draw", epoch))

    def order(self, epoch: int) -> Tensor:
        """Positions in the split, in the order of an epoch; what no batch takes is left out."""
        rng = generator(self.seed, "order", epoch)
        # What is left out is left out at random: after sorting it would be the longest.
        order = torch.randperm(len(self.split), generator=rng)[: self.steps_per_epoch * self.effective]
        return similar(order, self._sizes(), self.effective, rng) if self.lengths else order

    def _sizes(self) -> Tensor:
        """What a sample of the split costs: its tokens, or pixels, [N]."""
        each = [values[self.split.index] for values in self.lengths.values()]
        return torch.stack([values if values.dim() == 1 else values.prod(1) for values in each]).sum(0)

    def eval_batches(self) -> Iterator[Batch]:
        """Every sample once, in the split's order, nothing dropped; of several processes each takes every n-th."""
        positions = torch.arange(len(self.split))[self.rank :: self.world_size]
        return self.batches(self._cut(positions), "all", derive(self.seed, "draw/all"))

    def first(self, count: int) -> Batch:
        """The first samples of the split as one batch; of several processes all get the same."""
        return next(self.batches((torch.arange(min(count, len(self.split))),), "all", derive(self.seed, "draw/all")))

    def _cut(self, positions: Tensor) -> tuple[Tensor, ...]:
        return tuple(positions.split(self.batch_size)) if len(positions) else ()

    def batches(self, parts: tuple[Tensor, ...], kind: str, draw: int) -> Iterator[Batch]:
        """The batches at these positions in the split; kind is what asks: "epoch" or "all"."""
        raise NotImplementedError

    def _trimmed(self, batch: Batch, index: Tensor) -> Batch:
        """The batch cut to its longest sample; index: on the CPU, so that nothing waits for the device."""
        for name, values in self.lengths.items():
            longest = values[index].amax(0)
            if longest.dim():
                height, width = longest.tolist()
                batch[name] = batch[name][..., :height, :width]
            else:
                batch[name] = batch[name][:, : int(longest)]
        return batch


def similar(order: Tensor, size: Tensor, batch_size: int, rng: torch.Generator) -> Tensor:
    """An order whose batches are of similar size: runs of many batches are sorted, then the batches are shuffled."""
    chunks = order.split(SIMILAR * batch_size)
    order = torch.cat([chunk[size[chunk].argsort(stable=True)] for chunk in chunks])
    whole = len(order) // batch_size
    shuffled = order[: whole * batch_size].view(whole, batch_size)[torch.randperm(whole, generator=rng)]
    return torch.cat([shuffled.flatten(), order[whole * batch_size :]])


@dataclass(frozen=True)
class DeviceTensors:
    """The rows that a split uses, on a device, with `index` and `weight` among them; `row` finds a position's row.

    raw: entries that are normalized when a batch is made.
    """

    tensors: dict[str, Tensor]
    row: Tensor
    raw: tuple[str, ...] = ()


class DeviceStore:
    """Splits that stay on a device, one copy for each set of entries. They share no sample, so what they share of a
    source moves once."""

    def __init__(self) -> None:
        self._kept: dict[Any, DeviceTensors] = {}
        self._streams: dict[Any, Windows] = {}

    def get(self, split: Split, entries: Entries, device: torch.device) -> DeviceTensors:
        key = split, tuple(entries.items())
        if key not in self._kept:
            self._kept[key] = _move(split, entries, device)
        return self._kept[key]

    def windows(self, source: Windows, device: torch.device) -> Windows:
        if source not in self._streams:
            self._streams[source] = source.to(device)
        return self._streams[source]


def _move(split: Split, entries: Entries, device: torch.device) -> DeviceTensors:
    assert isinstance(split.source, TensorSource)
    rows, row = split.index.unique(return_inverse=True)
    tensors: dict[str, Tensor] = {}
    raw: list[str] = []
    budget = _free_memory(device) * MEMORY_SHARE if device.type == "cuda" else FLOAT_BUDGET
    padded = {entry.of for entry in entries.values() if isinstance(entry, Size)}
    for name, entry in entries.items():
        if (tensor := split.source.tensors.get(name)) is None:
            continue
        # Bytes as floats are four times as many; what is float already grows no further.
        grown = 0 if tensor.is_floating_point() else 4 * tensor[:1].numel() * len(rows)
        late = name in padded or (isinstance(entry, Image) and grown > budget)
        if late:
            raw.append(name)
        elif isinstance(entry, Image):
            budget -= grown
        tensors[name] = _copied(tensor, rows, device, None if late else entry)
    tensors["index"] = rows.to(device)
    if split.weight is not None:
        tensors["weight"] = split.weight[rows].to(device)
    return DeviceTensors(tensors, row, tuple(raw))


def _copied(tensor: Tensor, rows: Tensor, device: torch.device, entry: Entry | None) -> Tensor:
    """Rows of a tensor on the device, normalized where an entry is given, a part at a time."""

    def moved(chosen: Tensor) -> Tensor:
        part = tensor.index_select(0, chosen).to(device)
        return part if entry is None else entry.normalize(part)

    like = moved(rows[:1])
    kept = like.new_empty((len(rows), *like.shape[1:]))
    step = max(1, CHUNK // max(1, tensor[:1].numel() * 4))
    for chunk, target in zip(rows.split(step), kept.split(step), strict=True):
        target.copy_(moved(chunk))
    return kept


class DeviceLoader(Loader):
    """All that the split uses is on the device; a batch is one gather."""

    split: Split

    def __init__(self, split: Split, entries: Entries, device: torch.device, store: DeviceStore, **order: Any) -> None:
        super().__init__(split, entries, **order)
        self.device = device
        self.resident = store.get(split, entries, device)

    def batches(self, parts: tuple[Tensor, ...], kind: str, draw: int) -> Iterator[Batch]:
        if not parts:
            return
        resident, sizes = self.resident, [len(part) for part in parts]
        positions = torch.cat(parts)
        order = resident.row[positions].to(self.device)
        index = self.split.index[positions].split(sizes) if self.lengths else ()
        # Labels and the like are gathered once and sliced. Inputs are not: each batch is memory of its own, aligned
        # alike in any run, since matrix products may round by alignment.
        wide = {name: tensor for name, tensor in resident.tensors.items() if tensor.dim() > 1}
        flat = [name for name, tensor in resident.tensors.items() if tensor.dim() == 1]
        sliced = zip(*(resident.tensors[name].index_select(0, order).split(sizes) for name in flat), strict=True)
        for number, (rows, values) in enumerate(zip(order.split(sizes), sliced, strict=True)):
            batch = {name: tensor.index_select(0, rows) for name, tensor in wide.items()}
            if resident.raw:
                batch = normalize(self.entries, batch, resident.raw)
            batch.update(zip(flat, values, strict=True))
            yield self._trimmed(batch, index[number]) if self.lengths else batch


class WindowsLoader(Loader):
    """Windows of a stream that is on the device."""

    split: Split

    def __init__(self, split: Split, entries: Entries, device: torch.device, store: DeviceStore, **order: Any) -> None:
        super().__init__(split, entries, **order)
        assert isinstance(split.source, Windows)
        self.device, self.windows = device, store.windows(split.source, device)
        self.weight = None if split.weight is None else split.weight.to(device)

    def batches(self, parts: tuple[Tensor, ...], kind: str, draw: int) -> Iterator[Batch]:
        if not parts:
            return
        index = self.split.index[torch.cat(parts)].to(self.device)
        for chosen in index.split([len(part) for part in parts]):
            batch = self.windows.take(chosen)
            weight = {} if self.weight is None else {"weight": self.weight[chosen]}
            yield {**normalize(self.entries, batch, tuple(batch)), "index": chosen, **weight}


class WorkerLoader(Loader):
    """Samples come through worker processes, pinned memory and prefetch; normalization happens on the device.

    `epoch` and `all` have workers of their own (started when first asked), so that a split can be walked through in the
    middle of an epoch. Without workers each batch is taken when it is asked for.
    """

    split: Split

    def __init__(
        self,
        split: Split,
        entries: Entries,
        device: torch.device,
        workers: int,
        *,
        timeout: float = 0.0,
        look: Callable[[], None] | None = None,
        **order: Any,
    ) -> None:
        super().__init__(split, entries, **order)
        self.device, self.source = device, only(split.source, tuple(entries))
        pinned = device.type == "cuda"
        self._passes = {
            kind: Workers(self.source, workers, seed=self.seed, pinned=pinned, timeout=timeout, look=look)
            for kind in ("epoch", "all")
        }

    def batches(self, parts: tuple[Tensor, ...], kind: str, draw: int) -> Iterator[Batch]:
        if not parts:
            return
        sizes = [len(part) for part in parts]
        index = self.split.index[torch.cat(parts)]
        chosen = index.split(sizes)
        known = {"index": index.to(self.device).split(sizes)}
        if self.split.weight is not None:
            known["weight"] = self.split.weight[index].to(self.device).split(sizes)
        for number, raw in enumerate(self._passes[kind].take(chosen, draw)):
            batch = {
                name: tensor.to(self.device, non_blocking=True) for name, tensor in raw.items() if name in self.entries
            }
            batch = normalize(self.entries, batch, tuple(batch))
            if self.lengths:
                batch = self._trimmed(batch, chosen[number])
            yield batch | {name: values[number] for name, values in known.items()}


class UnpairedLoader(Loader):
    """Two loaders side by side, each in its own order; the shorter begins anew until the longer ends."""

    split: UnpairedSplit

    def __init__(self, split: UnpairedSplit, a: Loader, b: Loader, entries: Entries, **order: Any) -> None:
        super().__init__(split, entries, **order)
        self.sides = (a, b)
        self.steps_per_epoch = max(a.steps_per_epoch, b.steps_per_epoch)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        first = epoch * self.steps_per_epoch + start
        sides = [_endless(side, first) for side in self.sides]
        for _ in range(start, self.steps_per_epoch):
            a, b = (next(side) for side in sides)
            yield {**b, **a}

    def batches(self, parts: tuple[Tensor, ...], kind: str, draw: int) -> Iterator[Batch]:
        a, b = (side.batches(tuple(part % len(side.split) for part in parts), kind, draw) for side in self.sides)
        return ({**of_b, **of_a} for of_a, of_b in zip(a, b, strict=True))


def _endless(loader: Loader, start: int) -> Iterator[Batch]:
    """Epoch after epoch, from batch number `start` on."""
    epoch, position = divmod(start, loader.steps_per_epoch)
    while True:
        yield from loader.epoch(epoch, position)
        epoch, position = epoch + 1, 0


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


def _fits(split: Split, entries: Entries, device: torch.device) -> bool:
    source = split.source
    if type(source) is not TensorSource:  # one that takes otherwise is asked
        return False
    read = [tensor for name, tensor in source.tensors.items() if name in entries]
    row_bytes = sum(tensor[:1].numel() * tensor.element_size() for tensor in read)
    return row_bytes * min(len(split), len(source)) <= _free_memory(device) * MEMORY_SHARE


def evaluation_batch(settings: SplitSettings, entries: Entries) -> int:
    """How many samples are evaluated at a time: `eval_batch_size`, or what memory suggests."""
    if settings.eval_batch_size is not None:
        return settings.eval_batch_size
    sample = sum(4 * math.prod(entry.shape) for entry in entries.values())
    return max(settings.batch_size, min(EVALUATED, EVALUATED_BYTES // max(1, sample)))


def check_shared(settings: SplitSettings, processes: int) -> None:
    """Raises UserError for training batches that the processes cannot share evenly."""
    if settings.batch_size % processes:
        raise UserError(f"dataset.batch_size: {settings.batch_size} cannot be shared evenly by {processes} processes")
    if processes > 1 and not settings.drop_last:
        raise UserError("dataset.drop_last: several processes need full batches; set it to true")


def make_loader(
    split: AnySplit,
    entries: Entries,
    settings: SplitSettings,
    *,
    device: torch.device,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    training: bool = True,
    store: DeviceStore | None = None,
    look: Callable[[], None] | None = None,
) -> Loader:
    """The loader that suits a split: on the device where it fits and no workers were asked for.

    training: batches have the size of the settings; else that of an evaluation. store: shared by the loaders of a
    run. look: called while workers keep it waiting; what it raises ends the wait. Raises as `check_shared`.
    """
    if training:
        check_shared(settings, world_size)
    store = store or DeviceStore()
    order: dict[str, Any] = {
        "batch_size": settings.batch_size if training else evaluation_batch(settings, entries),
        "seed": seed,
        "rank": rank,
        "world_size": world_size,
        "drop_last": settings.drop_last or isinstance(split, UnpairedSplit),  # both sides of a batch are equally many
    }
    if isinstance(split, UnpairedSplit):
        settings = copy.copy(settings)
        settings.drop_last = True
        side = partial(
            make_loader, entries=entries, settings=settings, device=device, rank=rank, world_size=world_size,
            training=training, store=store, look=look,
        )  # fmt: skip
        a, b = side(split.a, seed=seed), side(split.b, seed=derive(seed, "side b"))
        return UnpairedLoader(split, a, b, entries, **order)
    if isinstance(split.source, Proposed):
        split = replace(split, source=split.source.only(tuple(entries), split.index))
    if settings.workers == 0 and isinstance(split.source, Windows):
        return WindowsLoader(split, entries, device, store, **order)
    if settings.workers == 0 and _fits(split, entries, device):
        return DeviceLoader(split, entries, device, store, **order)
    return WorkerLoader(split, entries, device, settings.workers, timeout=settings.timeout, look=look, **order)


def not_finite(loader: Loader, step: int) -> str | None:
    """Which of the samples of a training step (from 0) hold numbers that are not finite; None where all are."""
    batch = next(loader.epoch(*divmod(step, loader.steps_per_epoch)))
    for name, tensor in batch.items():
        if name not in loader.entries or not tensor.is_floating_point():
            continue
        bad = ~tensor.isfinite().flatten(1).all(1) if tensor.dim() > 1 else ~tensor.isfinite()
        if bad.any():
            return f"{name} of samples {named(loader.split.source, batch['index'].cpu()[bad.cpu()])}"
    return None
