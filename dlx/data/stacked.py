"""Batches of several loaders at once: tensors [M, B, ...], each member's in its own order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlx.data.loader import DeviceStore, Resident
from dlx.data.view import Split

if TYPE_CHECKING:
    from dlx.data.dataset import Source
    from dlx.data.loader import DeviceLoader
    from dlx.tasks.spec import Spec
    from dlx.tasks.system import Batch


class SourceStore(DeviceStore):
    """Whole sources on a device, one copy each, however many splits of however many members are made of them."""

    def __init__(self) -> None:
        super().__init__()
        self._whole: dict[Source, Split] = {}

    def get(self, split: Split, spec: Spec, device: torch.device) -> Resident:
        whole = self._whole.setdefault(split.source, Split(split.source, torch.arange(len(split.source))))
        resident = super().get(whole, spec, device)
        own = {} if split.weight is None else {"weight": split.weight.to(device)}
        return Resident({**resident.tensors, **own}, split.index, resident.normalized)


class StackedLoader:
    """The loaders must have batches of one size, and as many in an epoch."""

    def __init__(self, loaders: Sequence[DeviceLoader]) -> None:
        self.loaders = loaders
        self.device, self.spec = loaders[0].device, loaders[0].spec

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The training batches of an epoch, from batch number `start`."""
        return self._batches([loader.order(epoch) for loader in self.loaders], start)

    def all(self) -> Iterator[Batch]:
        """Every sample once; the splits must be equally long."""
        return self._batches([torch.arange(len(loader.split)) for loader in self.loaders], 0)

    def _batches(self, positions: Sequence[Tensor], start: int) -> Iterator[Batch]:
        size = self.loaders[0].batch_size
        residents = [loader.resident for loader in self.loaders]
        pairs = zip(residents, positions, strict=True)
        rows_MN = torch.stack([resident.row[position] for resident, position in pairs]).to(self.device)
        first = residents[0]
        wide = [name for name, tensor in first.tensors.items() if tensor.dim() > 1]
        flat = {name: self._take(residents, name, rows_MN) for name in first.tensors if name not in wide}
        for at in range(start * size, rows_MN.shape[1], size):
            rows_MB = rows_MN[:, at : at + size]
            batch = {name: self._take(residents, name, rows_MB) for name in wide}
            if not first.normalized:
                x = batch[self.spec.input_key]
                batch[self.spec.input_key] = self.spec.normalize(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            yield {**batch, **{name: tensor[:, at : at + size].contiguous() for name, tensor in flat.items()}}

    def _take(self, residents: Sequence[Resident], name: str, rows_MB: Tensor) -> Tensor:
        tensors = [resident.tensors[name] for resident in residents]
        if all(tensor is tensors[0] for tensor in tensors):
            return tensors[0].index_select(0, rows_MB.flatten()).unflatten(0, rows_MB.shape)
        pairs = zip(tensors, rows_MB, strict=True)
        return torch.stack([tensor.index_select(0, rows) for tensor, rows in pairs])
