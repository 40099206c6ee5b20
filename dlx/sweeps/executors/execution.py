"""Which executor runs a plan's members, and how: what a person chose on the command line."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from dlx.config.errors import UserError
from dlx.sweeps.plan import Plan
from dlx.training.interval import Interval
from dlx.training.session import Result

OnResult = Callable[[str, Result], None]
Executor = Callable[[Plan, Iterable[str], OnResult], None]
"""Runs the named members of a plan. All executors leave the same folders; a failed member is recorded, the rest go on.

A name is taken only when a member can start, so an iterator of names may depend on earlier results (a search, a chain).
Raises Interrupted on a signal; on_result is not called for the interrupted member.
"""

EXECUTORS = {
    "inprocess": "dlx.sweeps.executors.inprocess:InProcess",
    "processes": "dlx.sweeps.executors.processes:Processes",
    "batched": "dlx.sweeps.executors.batched:Batched",
    "auto": "dlx.sweeps.executors.batched:Batched",
    "ray": "dlx.sweeps.executors.ray:Ray",
    "slurm": "dlx.sweeps.executors.slurm:Slurm",
}
"""The class of each executor, imported when it is chosen. A class is built with an Execution."""


@dataclass(frozen=True)
class Execution:
    """The options of the command line.

    jobs: members that run at a time; None is the executor's own default. time_limit: seconds per member; None is no
    limit. slurm: sbatch options of each member's job, such as partition=gpu. quiet: no progress display.
    """

    executor: str = "inprocess"
    jobs: int | None = None
    time_limit: float | None = None
    trust: tuple[str, ...] = ()
    slurm: tuple[str, ...] = ()
    quiet: bool = False


def parse_seconds(text: str) -> float | None:
    """The seconds of a time such as 90s, 10min or 2h; None for other texts."""
    with suppress(ValueError):
        return Interval.parse(text, steps_per_epoch=1).seconds
    return None


def make_executor(execution: Execution) -> Executor:
    """Raises UserError for an unknown executor, and for options that it does not take."""
    if execution.executor not in EXECUTORS:
        raise UserError(f"--executor {execution.executor}: unknown; choose from {', '.join(EXECUTORS)}")
    if execution.jobs is not None and execution.jobs < 1:
        raise UserError(f"--jobs: must be at least 1, got {execution.jobs}")
    if execution.slurm and execution.executor != "slurm":
        raise UserError("--slurm needs --executor slurm")
    if execution.time_limit is not None and execution.executor in ("inprocess", "batched", "auto"):
        raise UserError("--time-limit needs --executor processes, ray or slurm")
    return pkgutil.resolve_name(EXECUTORS[execution.executor])(execution)
