"""What executors with workers of their own have in common: places kept filled, deaths made good, signals heeded."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import dlx
from dlx.config.screen import note
from dlx.runs.files import decode_nonfinite, read_json
from dlx.runs.folder import ENDED
from dlx.sweeps.plan import Interrupted
from dlx.training.session import Result, judged
from dlx.training.signals import Signals, exit_code

if TYPE_CHECKING:
    from dlx.sweeps.executors import Tell
    from dlx.sweeps.plan import Plan

GRACE_SECONDS = 30.0  # to save after a signal, before a member is killed
RETRIES = 3  # of a member whose worker died, on a cluster


class Pool(Protocol):
    """Members under way, each with a worker: a process, a task, a job."""

    def start(self, names: list[str]) -> None:
        """Gives each a worker, or a place in the cluster's queue."""

    def ended(self) -> Mapping[str, Result]:
        """How those ended that did since the last call; waits a moment for them.

        `lost` is a member whose worker died, `interrupted` one that saved and left at a signal: both can go on.
        """

    def stop(self) -> None:
        """Tells all of them, once, to save and end."""

    def kill(self) -> None:
        """Ends at once what still runs; nothing stays in a queue."""


def keep_filled(pool: Pool, names: Iterable[str], tell: Tell, *, jobs: int | None, retries: int = 0) -> None:
    """Runs the named members, `jobs` at a time (None: all that there are).

    A member whose worker died goes on from its checkpoint with another, `retries` times; then it is told as failed.
    A first SIGINT or SIGTERM lets all members save, for GRACE_SECONDS; a second leaves at once. Raises Interrupted.
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
                    places = None if jobs is None else jobs - len(running)
                    fresh = list(islice(waiting, places))
                    if places is None or len(fresh) < places:
                        waiting = None
                    if fresh:
                        pool.start(fresh)
                        running.update(fresh)
                for name, result in pool.ended().items():
                    running.discard(name)
                    if result.status not in ("lost", "interrupted"):
                        with suppress(Interrupted):  # of what is made of the results; the members save first
                            tell(name, result)
                    elif stopped is None and not signals.received:
                        deaths[name] += 1
                        if deaths[name] <= retries:
                            note(f"{name}: {result.reason}; it goes on with another worker ({deaths[name]}/{retries})")
                            pool.start([name])
                            running.add(name)
                        else:
                            times = f", {deaths[name]} times" if retries else ""
                            tell(name, replace(result, status="failed", code=1, reason=f"{result.reason}{times}"))
        finally:
            pool.kill()
    if signals.received:
        raise Interrupted(exit_code(signals.received))


def result_of(plan: Plan, name: str, fields: Mapping[str, Any]) -> Result:
    """A member's Result from what its worker said."""
    return Result(plan.run(name).path, **{**fields, "metrics": decode_nonfinite(fields["metrics"])})


def written_result(plan: Plan, name: str) -> Result | None:
    """What a member's worker wrote when it ended; where it could not, what the run folder says of a run that ended."""
    try:
        return result_of(plan, name, read_json(_result_path(plan, name)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    run = plan.run(name)
    if not run.config_path.is_file():
        return None
    status = run.status()
    if status["status"] not in ENDED:
        return None
    code = 3 if status["status"] == "diverged" else 0
    return Result(run.path, status["status"], code, judged(run.summary()), status["reason"])


def forget_result(plan: Plan, name: str) -> None:
    """Before a member is started: what is there afterwards is new."""
    _result_path(plan, name).unlink(missing_ok=True)


def _result_path(plan: Plan, name: str) -> Path:
    return plan.path / "plan" / f"{name}.result.json"


def import_path() -> str:
    """PYTHONPATH for a worker, so that it imports this dlx, and what the submitter can import by that variable."""
    own = str(Path(dlx.__file__).parent.parent)
    given = [str(Path(part).absolute()) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    return os.pathsep.join(dict.fromkeys([own, *given]))
