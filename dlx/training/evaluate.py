"""Evaluation of a system on one split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dlx.random import reseed

if TYPE_CHECKING:
    from dlx.data.loader import Loader
    from dlx.tasks.system import Batch, Statistics, System
    from dlx.training.distributed import Dist

BANK = 10_000  # training samples at most that an evaluation may look at


def counters(device: torch.device) -> Batch:
    """The counters of an evaluation's batch: `progress` is 1."""
    step = torch.zeros((), dtype=torch.int64, device=device)
    return {"step": step, "stage": step, "progress": torch.ones((), device=device)}


@torch.no_grad()
def collect(
    system: System, loader: Loader, dist: Dist, seed: int = 0, bank: Loader | None = None, *, report: bool = False
) -> Statistics:
    """Sums of `System.evaluate` over a whole split and all processes; keeps the system's training mode.

    bank: training samples for a system that looks at them before it is evaluated. report: `System.report` follows.
    """
    was_training = system.training
    system.eval()
    dist.broadcast_buffers(system)
    total: dict[str, Any] = {}
    extra = {**counters(dist.device), **({"report": True} if report else {})}
    try:
        if bank is not None and system.defines("before_evaluation"):
            reseed(seed, "eval/bank", device=dist.device)
            system.before_evaluation(bank, dist)
        for number, batch in enumerate(loader.eval_batches()):
            reseed(seed, "eval", number, dist.rank, device=dist.device)
            for name, value in system.evaluate({**batch, **extra}).items():
                total[name] = total[name] + value if name in total else value
    finally:
        system.train(was_training)
    for name, value in total.items():
        total[name] = dist.all_gather(value) if isinstance(value, list) else dist.all_reduce(value)
    return total


@torch.no_grad()
def evaluate(system: System, loader: Loader, dist: Dist, seed: int = 0, bank: Loader | None = None) -> dict[str, float]:
    """The system's metrics on a whole split, over all processes; keeps its training mode."""
    return system.metrics(collect(system, loader, dist, seed, bank)) if system.defines("evaluate") else {}
