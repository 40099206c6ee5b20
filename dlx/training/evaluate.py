"""Evaluation of a system on one split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dlx.random import reseed

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlx.data.loader import Loader
    from dlx.tasks.system import Batch, Statistics, System
    from dlx.training.world import World


def _join(total: Statistics, part: Statistics) -> None:
    for name, value in part.items():
        if name not in total:
            total[name] = value
        else:
            total[name] = total[name] + value


@torch.no_grad()
def collect(
    system: System, loader: Loader, world: World, seed: int = 0, look: Callable[[Batch], None] | None = None
) -> Statistics:
    """The joined sums of all of a split, over all processes; the system's training mode is kept.

    look: called with each batch of this process, after the system's evaluation of it.
    """
    was_training = system.training
    system.eval()
    world.same_buffers(system)
    total: dict[str, Any] = {}
    try:
        for number, batch in enumerate(loader.all()):
            reseed(seed, "eval", number, world.rank, device=world.device)
            _join(total, system.evaluate(batch))
            if look is not None:
                look(batch)
    finally:
        system.train(was_training)
    for name, value in total.items():
        total[name] = world.gather(value) if isinstance(value, list) else world.sum_(value)
    return total


@torch.no_grad()
def evaluate(system: System, loader: Loader, world: World, seed: int = 0) -> dict[str, float]:
    """The system's figures on all of a split, over all processes; its training mode is kept."""
    return system.metrics(collect(system, loader, world, seed))
