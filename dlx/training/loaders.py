"""The loaders of one training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dlx.data.loader import DeviceStore, make_loader
from dlx.data.splits import train_probe
from dlx.training.evaluate import BANK
from dlx.training.signals import Signals

if TYPE_CHECKING:
    from dlx.data.dataset import Dataset
    from dlx.data.loader import Loader
    from dlx.tasks.system import System
    from dlx.training.distributed import Dist
    from dlx.training.prepare import Prepared


@dataclass
class Loaders:
    """A dataset and the loaders of its splits.

    probe: a fixed part of train, as large as val, for the gap. bank: a fixed part of train for evaluations that look at
    it. whole: all of train in one process, for a closed-form fit.
    """

    dataset: Dataset
    train: Loader
    val: Loader
    test: Loader
    probe: Loader | None = None
    bank: Loader | None = None
    whole: Loader | None = None


def make_loaders(prepared: Prepared, system: System, dist: Dist, store: DeviceStore | None = None) -> Loaders:
    """store: of data that several runs share on a device."""
    settings, splits = prepared.settings, prepared.splits
    loader = partial(
        make_loader, entries=system.spec.entries, settings=settings, device=dist.device, seed=prepared.config["seed"],
        rank=dist.rank, world_size=dist.size, store=store or DeviceStore(), look=Signals.overdue,
    )  # fmt: skip
    alone: dict[str, Any] = {"rank": 0, "world_size": 1, "training": False}
    train, size = splits["train"], len(splits["val"])
    return Loaders(
        dataset=prepared.dataset,
        train=loader(train),
        val=loader(splits["val"], training=False),
        test=loader(splits["test"], training=False),
        probe=loader(train_probe(train, size, settings.split_seed), training=False) if system.gaps else None,
        bank=loader(train_probe(train, BANK, settings.split_seed), **alone)
        if system.defines("before_evaluation")
        else None,
        whole=loader(train, **alone) if system.defines("fit") and dist.size > 1 else None,
    )
