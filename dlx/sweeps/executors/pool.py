"""Keeps `jobs` members running, restarts those whose worker died, stops on Ctrl-C or SIGTERM."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import dlx
from dlx.config.screen import note
from dlx.runs.files import decode_nonfinite, read_json
from dlx.sweeps.executors.execution import OnResult
from dlx.sweeps.executors.inprocess import ended_result
from dlx.sweeps.executors.worker import GRACE_SECONDS, result_path
from dlx.sweeps.plan import Interrupted, Plan
from dlx.training.session import Result
from dlx.training.signals import Signals, exit_code

RETRIES = 3  # restarts of a member whose worker died, on a cluster


class Pool(Protocol):
    """Running members, each with a worker: a process, a Ray task, a Slurm job."""

    def start(self, names: list[str]) -> None:
        """Starts a worker for each member, or puts it into the cluster's queue."""

    def ended(self) -> Mapping[str, Result]:
        """The results of members that ended since the last call; waits a moment for them.

        `lost` is a member whose worker died, `interrupted` one that saved and left on a signal: both can go on.
        """

    def stop(self) -> None:
        """Signals all members to save and end. Called once: a second signal would not let them save."""

    def kill(self) -> None:
        """Ends all running members at once and empties the queue."""


def run_pool(
    pool: Pool, names: Iterable[str], on_result: OnResult, *, jobs: int | None = None, retries: int = 0
) -> None:
    """Runs the named members, `jobs` at a time (None: all).

    A member whose worker died resumes from its checkpoint in a new worker, `retries` times; after that it has failed.
    On the first SIGINT or SIGTERM all members have GRACE_SECONDS to save; a second kills them. Raises Interrupted.
    """
    waiting: Iterator[str] | None = iter(names)
    running: set[str] = set()
    deaths: Counter[str] = Counter()
    stopped: float | None = None
    with Signals(leaves=False) as signals:
        try:
            while waiting is not None or running:
                if signals.received and stopped is None:
                    waiting, stopped = None, time.monotonic()
                    pool.stop()
                if signals.count > 1 or (stopped is not None and time.monotonic() - stopped > GRACE_SECONDS):
                    break
                if waiting is not None:
                    free = None if jobs is None else jobs - len(running)
                    started = list(islice(waiting, free))
                    if free is None or len(started) < free:
                        waiting = None
                    if started:
                        pool.start(started)
                        running.update(started)
                for name, result in pool.ended().items():
                    running.discard(name)
                    if result.status not in ("lost", "interrupted"):
                        with suppress(Interrupted):  # a method's answer was interrupted; the other members save first
                            on_result(name, result)
                    elif stopped is None and not signals.received:
                        deaths[name] += 1
                        if deaths[name] <= retries:
                            note(f"{name}: {result.reason}; it goes on with another worker ({deaths[name]}/{retries})")
                            pool.start([name])
                            running.add(name)
                        else:
                            times = f", {deaths[name]} times" if retries else ""
                            on_result(name, replace(result, status="failed", code=1, reason=f"{result.reason}{times}"))
        finally:
            pool.kill()
    if signals.received:
        raise Interrupted(exit_code(signals.received))


def result_of(plan: Plan, name: str, fields: Mapping[str, Any]) -> Result:
    """A member's Result from the fields that `worker.run` returned."""
    return Result(plan.run(name).path, **{**fields, "metrics": decode_nonfinite(fields["metrics"])})


def written_result(plan: Plan, name: str) -> Result | None:
    """The result that a member's worker wrote, else the one in its run folder; None for a member that can go on."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        return result_of(plan, name, read_json(result_path(plan.path, name)))
    run = plan.run(name)
    return ended_result(run) if run.config_path.is_file() else None


def delete_result(plan: Plan, name: str) -> None:
    """Deletes the result of an earlier start of the member."""
    result_path(plan.path, name).unlink(missing_ok=True)


def worker_pythonpath() -> str:
    """PYTHONPATH for a worker: this dlx first, then this process's PYTHONPATH with absolute paths."""
    own = str(Path(dlx.__file__).parent.parent)
    given = [str(Path(part).absolute()) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    return os.pathsep.join(dict.fromkeys([own, *given]))
