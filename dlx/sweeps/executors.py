"""Executors: how a plan's members are run. All leave the same folders; one that fails is recorded, the rest go on.

An executor is called with the plan, the names of members to run, and whom to tell how each ended. It takes a name only
when there is a place for it, so that names may come from whoever decides by what was told before: a search, a chain.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dlx.config.errors import UserError
from dlx.runs.files import loosened
from dlx.sweeps.plan import Interrupted
from dlx.sweeps.search import watch_of
from dlx.training import run as training
from dlx.training.session import Result, judged

if TYPE_CHECKING:
    from dlx.sweeps.plan import Plan

Tell = Callable[[str, Result], None]
Executor = Callable[["Plan", Iterable[str], Tell], None]
"""Raises Interrupted at a signal; of a member that was cut off by it nothing is told."""

EXECUTORS = ("inprocess", "processes", "batched", "auto")
POLL_SECONDS = 0.05
GRACE_SECONDS = 30.0  # to save after a signal, before a member is killed


@dataclass(frozen=True)
class Execution:
    """What a person chose.

    jobs: members at a time; None is what suits the executor. time_limit: seconds for each member; None: no limit.
    """

    executor: str = "inprocess"
    jobs: int | None = None
    time_limit: float | None = None
    trust: tuple[str, ...] = ()


def make_executor(execution: Execution) -> Executor:
    """Raises UserError for an executor that is not there, or values that it cannot take."""
    if execution.executor not in EXECUTORS:
        raise UserError(f"--executor {execution.executor}: there is none; {', '.join(EXECUTORS)} are there")
    if execution.jobs is not None and execution.jobs < 1:
        raise UserError(f"--jobs: must be at least 1, got {execution.jobs}")
    if execution.executor == "inprocess":
        if (execution.jobs or 1) > 1 or execution.time_limit is not None:
            raise UserError("--jobs and --time-limit need --executor processes")
        return in_this_process
    if execution.executor in ("batched", "auto"):
        if execution.time_limit is not None:
            raise UserError("--time-limit needs --executor processes")
        from dlx.sweeps.batched import Batched

        return Batched(execution, chooses=execution.executor == "auto")
    return Processes(execution)


def run_member(plan: Plan, name: str) -> Result:
    """Runs, resumes or leaves alone one member; whatever ends it is in the result."""
    folder, config = plan.run(name), plan.members[name]
    try:
        if not folder.config_path.exists():
            return training.train(config, quiet=True, at=folder.path, watch=watch_of(plan.path, name))
        status = folder.status()
        if status["status"] in ("finished", "diverged", "pruned"):
            code = 3 if status["status"] == "diverged" else 0
            figures = judged(folder.summary())
            return Result(folder.path, status["status"], code, figures, status.get("reason"))
        return training.resume(folder, config, quiet=True, watch=watch_of(plan.path, name))
    except Exception as error:  # whatever ends a member, the others go on, and it is said
        code = error.exit_code if isinstance(error, UserError) else 1
        return Result(folder.path, "failed", code, {}, f"{type(error).__name__}: {error}")


def in_this_process(plan: Plan, names: Iterable[str], tell: Tell) -> None:
    """One member after another."""
    for name in names:
        result = run_member(plan, name)
        if result.status == "interrupted":
            raise Interrupted(result.code)
        tell(name, result)


class Processes:
    """A process for each member, `jobs` at a time; each has its own device slot and its share of the CPU threads.

    A member that exceeds the time limit gets SIGTERM, and SIGKILL after a grace in which it saves. The members die with
    this process, also when it is killed (Linux).
    """

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.jobs = execution.jobs or len(_devices()) or os.cpu_count() or 1

    def __call__(self, plan: Plan, names: Iterable[str], tell: Tell) -> None:
        waiting: Iterator[str] | None = iter(names)
        running: dict[str, tuple[subprocess.Popen[bytes], int, float]] = {}  # with its slot and start
        stopped: set[str] = set()  # members that were told to stop: a second signal would not let them save
        with _stop_on_signals() as received:
            try:
                while waiting or running:
                    if received:
                        waiting = None
                        for name, (process, *_) in running.items():
                            _stop(name, process, stopped)
                    if len(received) > 1:
                        break  # a second signal leaves at once
                    while waiting and len(running) < self.jobs:
                        asked = next(waiting, None)
                        if asked is None:
                            waiting = None
                            break
                        name = asked
                        slot = _free_slot([slot for _, slot, _ in running.values()])
                        running[name] = (self._start(plan, name, slot), slot, time.monotonic())
                    for name in [name for name, (process, *_) in running.items() if process.poll() is not None]:
                        process, _, started = running.pop(name)
                        result = self._result(plan, name, process, time.monotonic() - started)
                        if result.status != "interrupted":
                            tell(name, result)
                    self._enforce_limit(running, stopped)
                    time.sleep(POLL_SECONDS)
            finally:
                for process, *_ in running.values():
                    process.kill()
                    process.wait()
        if received:
            raise Interrupted(143 if received[0] == signal.SIGTERM else 130)

    def _start(self, plan: Plan, name: str, slot: int) -> subprocess.Popen[bytes]:
        threads = max(1, (os.cpu_count() or 1) // self.jobs)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **_device(slot)}
        trust = [word for package in self.execution.trust for word in ("--trust", package)]
        log = (plan.path / "plan" / f"{name}.log").open("ab")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", "dlx.sweeps.worker", str(plan.path), name, str(os.getpid()), *trust],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _enforce_limit(self, running: dict[str, tuple[subprocess.Popen[bytes], int, float]], stopped: set[str]) -> None:
        limit = self.execution.time_limit
        for name, (process, _, started) in running.items():
            over = time.monotonic() - started - limit if limit is not None else 0
            if over > GRACE_SECONDS:
                process.kill()
            elif over > 0:
                _stop(name, process, stopped)

    def _result(self, plan: Plan, name: str, process: subprocess.Popen[bytes], seconds: float) -> Result:
        """What the member wrote of itself; where it could not, how its process ended."""
        folder, limit = plan.run(name), self.execution.time_limit
        over = f" (over its {limit:g} s)" if limit is not None and seconds > limit else ""
        written = plan.path / "plan" / f"{name}.result.json"
        if written.exists() and process.returncode == 0:
            fields = json.loads(written.read_text())
            result = Result(folder.path, **{**fields, "metrics": loosened(fields["metrics"])})
            cut = over and result.status == "interrupted"
            return replace(result, status="failed", reason=f"stopped{over}") if cut else result
        code = process.returncode
        how = f"killed by signal {-code}" if code < 0 else f"its process ended with code {code}"
        return Result(folder.path, "failed", 1, {}, how + over)


def _stop(name: str, process: subprocess.Popen[bytes], stopped: set[str]) -> None:
    if name not in stopped:
        stopped.add(name)
        process.terminate()


def _free_slot(taken: list[int]) -> int:
    return next(slot for slot in range(len(taken) + 1) if slot not in taken)


def _devices() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _device(slot: int) -> dict[str, str]:
    """One GPU for a slot, in turn, said to the process before it imports torch; nothing where there are none."""
    devices = _devices()
    return {"CUDA_VISIBLE_DEVICES": devices[slot % len(devices)]} if devices else {}


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[list[int]]:
    """The signals received, in a list that the handler adds to."""
    received: list[int] = []
    caught = (signal.SIGINT, signal.SIGTERM)
    before = {signum: signal.signal(signum, lambda number, frame: received.append(number)) for signum in caught}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
