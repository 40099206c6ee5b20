"""Stacked batches of several loaders: tensors [M, B, ...], each member in its own order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dlx.data.dataset import Source
from dlx.data.loader import DeviceLoader, DeviceStore, DeviceTensors, Entries
from dlx.data.splits import Split
from dlx.tasks.spec import normalize
from dlx.tasks.system import Batch

AT_ONCE = 1 << 22  # bytes of batches that are taken from the data together


class SourceStore(DeviceStore):
    """Whole sources on a device, one copy each, however many splits of however many members are made of them."""

    def __init__(self) -> None:
        super().__init__()
        self._whole: dict[Source, Split] = {}

    def get(self, split: Split, entries: Entries, device: torch.device) -> DeviceTensors:
        whole = self._whole.setdefault(split.source, Split(split.source, torch.arange(len(split.source))))
        resident = super().get(whole, entries, device)
        own = {} if split.weight is None else {"weight": split.weight.to(device)}
        return DeviceTensors({**resident.tensors, **own}, split.index, resident.raw)


class StackedLoader:
    """The loaders must have batches of one size, and as many in an epoch."""

    def __init__(self, loaders: Sequence[DeviceLoader]) -> None:
        self.loaders = loaders
        self.device, self.entries = loaders[0].device, loaders[0].entries

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The training batches of an epoch, from batch number `start`."""
        return self._batches([loader.order(epoch) for loader in self.loaders], start)

    def eval_batches(self) -> Iterator[Batch]:
        """Every sample once; the splits must be equally long."""
        return self._batches([torch.arange(len(loader.split)) for loader in self.loaders], 0)

    def _batches(self, positions: Sequence[Tensor], start: int) -> Iterator[Batch]:
        size = self.loaders[0].batch_size
        residents = [loader.resident for loader in self.loaders]
        pairs = zip(residents, positions, strict=True)
        rows_MN = torch.stack([resident.row[position] for resident, position in pairs]).to(self.device)
        whole = (rows_MN.shape[1] - start * size) // size
        full_MKB = rows_MN[:, start * size : (start + whole) * size].unflatten(1, (whole, size))
        # Several batches are taken from the data together: for small samples a call costs more than its work.
        sample = sum(tensor[:1].numel() * tensor.element_size() for tensor in residents[0].tensors.values())
        at_once = max(1, AT_ONCE // (sample * size * len(residents)))
        for rows_MKB in full_MKB.split(at_once, 1) if whole else ():
            yield from self._take_all(residents, rows_MKB.transpose(0, 1))
        if (start + whole) * size < rows_MN.shape[1]:
            yield from self._take_all(residents, rows_MN[None, :, (start + whole) * size :])

    def _take_all(self, residents: Sequence[DeviceTensors], rows_KMB: Tensor) -> Iterator[Batch]:
        """K batches."""
        several = {name: self._take(residents, name, rows_KMB) for name in residents[0].tensors}
        if residents[0].raw:
            shape = several["index"].shape
            flat = {name: tensor.flatten(0, 2) for name, tensor in several.items()}
            flat = normalize(self.entries, flat, residents[0].raw)
            several = {name: tensor.unflatten(0, shape) for name, tensor in flat.items()}
        for each in zip(*(tensor.unbind() for tensor in several.values()), strict=True):
            yield dict(zip(several, each, strict=True))

    def _take(self, residents: Sequence[DeviceTensors], name: str, rows_KMB: Tensor) -> Tensor:
        def take(tensor: Tensor, rows: Tensor) -> Tensor:
            return tensor.index_select(0, rows.flatten()).unflatten(0, rows.shape)

        tensors = [resident.tensors[name] for resident in residents]
        if all(tensor is tensors[0] for tensor in tensors):
            return take(tensors[0], rows_KMB)
        return torch.stack([take(*pair) for pair in zip(tensors, rows_KMB.unbind(1), strict=True)], 1)
