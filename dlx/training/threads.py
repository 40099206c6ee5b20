"""How many CPU threads a training uses."""

from __future__ import annotations

import torch

from dlx.tasks.summary import summarize
from dlx.tasks.system import System

SMALL_STEP = 1e9  # FLOPs
ALL_THREADS = torch.get_num_threads()  # torch's choice, before a training of this process sets another


def choose_threads(system: System, batch_size: int) -> int:
    """One thread for small steps, where threads spend their time waiting for each other, else torch's choice.

    A rule and not a measurement: the number of threads changes the order of sums, and with it the last bits, so it
    must be the same when a run is resumed. system: on the meta device. A ResNet-20 on 8x8 images takes 18 ms a step
    with one thread and 44 to 2,700 ms with two (measured on two shared cores).
    """
    summary = summarize(system)
    sample = 2 * summary.parameters if summary.flops is None else summary.flops
    step = 3 * batch_size * sample  # the backward costs about two forwards
    return 1 if step < SMALL_STEP else ALL_THREADS
