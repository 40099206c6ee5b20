"""Workers: processes that take batches from a source. What goes wrong in them is one line that names the samples.

torch's DataLoader moves the batches. It waits for ever on a worker that hangs or whose error cannot be pickled, and
says of a dead one that a connection was reset; so an error is sent as text, and the wait is cut into seconds.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from dlx.config.errors import UserError
from dlx.random import generator

if TYPE_CHECKING:
    from dlx.data.dataset import Source
    from dlx.tasks.system import Batch

POLL = 1.0  # seconds between two looks at the clock and at signals
LISTED = 5  # samples that a message names


class DataError(UserError):
    """A sample that cannot be had, in a run that has begun."""

    exit_code = 1


def named(source: Source, index: Tensor) -> str:
    """The samples at `index` by their names, or numbers; the first few of them."""
    keys = getattr(source, "keys", None)
    first = [str(n if keys is None else keys[n]) for n in index[:LISTED].tolist()]
    return ", ".join(first) + (", ..." if len(index) > LISTED else "")


@dataclass(frozen=True)
class _Failure:
    """A worker's message instead of a batch; plain text can always be sent."""

    message: str
    from_source: bool  # the message is the source's own
    trace: str


class _WholeBatches(Dataset):
    """A worker's task: takes the samples of one batch from the source. Positions come as numpy: small to send."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, item: tuple[np.ndarray, int]) -> Batch | _Failure:
        index, draw = torch.from_numpy(item[0]), item[1]
        try:
            return self.source.take(index, draw)
        except Exception as error:
            text = str(error) if isinstance(error, UserError) else self._explain(error, index, draw)
            return _Failure(text, isinstance(error, UserError), traceback.format_exc())

    def _explain(self, error: Exception, index: Tensor, draw: int) -> str:
        """One line that names the first sample that fails alone, or all samples if none does."""
        found = index
        for number in index.split(1):
            try:
                self.source.take(number, draw)
            except Exception as own:
                found, error = number, own
                break
        info = get_worker_info()
        who = f"worker {info.id}: " if info else ""
        what = "sample" if len(found) == 1 else "samples"
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return f"{who}{what} {named(self.source, found)}: {reason}"


class _Positions(Sampler):
    """The batches to load; set anew for each pass, while the workers live on."""

    batches: tuple[Tensor, ...] = ()
    draw = 0

    def __iter__(self) -> Iterator[Any]:
        return ((index.numpy(), self.draw) for index in self.batches)


class Workers:
    """One pass after another over a source. They are started when first asked and live on.

    workers: 0 takes each batch here, when it is asked for. timeout: seconds that a batch may take; 0 is for ever.
    look: called while nothing comes; what it raises ends the wait.
    """

    def __init__(
        self,
        source: Source,
        workers: int,
        *,
        seed: int,
        pinned: bool = False,
        timeout: float = 0.0,
        look: Callable[[], None] | None = None,
    ) -> None:
        self.source, self.timeout, self.look = source, timeout, look
        self.are_here, self.pinned = workers == 0, pinned
        self.positions = _Positions()
        self.loader: DataLoader[Any] = DataLoader(
            _WholeBatches(source),
            batch_size=None,
            sampler=self.positions,
            num_workers=workers,
            pin_memory=pinned,
            prefetch_factor=4 if workers else None,
            persistent_workers=workers > 0,
            timeout=POLL if workers else 0,
            generator=generator(seed, "workers"),  # else it draws from the default one
        )

    def take(self, batches: tuple[Tensor, ...], draw: int) -> Iterator[Batch]:
        """The samples of each batch (int64 [B] positions in the source). Raises DataError."""
        self.positions.batches, self.positions.draw = batches, draw
        coming = self._here(batches, draw) if self.are_here else iter(self.loader)
        for index in batches:
            raw = self._next(coming, index)
            if isinstance(raw, _Failure):
                error = DataError(raw.message if raw.from_source else f"dataset: {raw.message}")
                error.add_note(raw.trace)
                raise error
            yield raw

    def _here(self, batches: tuple[Tensor, ...], draw: int) -> Iterator[Any]:
        """The batches without a worker. What a source has on the device already (a replay memory) cannot be pinned."""
        whole = _WholeBatches(self.source)
        for index in batches:
            raw = whole[index.numpy(), draw]
            if self.pinned and isinstance(raw, dict):
                raw = {name: t.pin_memory() if t.device.type == "cpu" else t for name, t in raw.items()}
            yield raw

    def _next(self, coming: Iterator[Any], index: Tensor) -> Batch | _Failure:
        asked = time.monotonic()
        while True:
            try:
                return next(coming)
            except (RuntimeError, OSError, EOFError) as error:
                if "timed out" not in str(error):
                    reason = " ".join(f"{type(error).__name__}: {error}".split())
                    raise DataError(
                        f"dataset: a loader's worker died; samples {named(self.source, index)} did not come ({reason})"
                    ) from error
            if self.look is not None:
                self.look()
            if self.timeout and time.monotonic() - asked > self.timeout:
                raise DataError(
                    f"dataset.timeout: no batch came for {self.timeout:g} s; "
                    f"samples {named(self.source, index)} hang, or take longer"
                )
