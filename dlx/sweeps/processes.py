"""The executor `processes`: a process for each member, on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dlx.runs.files import inside, open_plain
from dlx.sweeps import pool
from dlx.training.session import Result

if TYPE_CHECKING:
    from dlx.sweeps.executors import Execution, Tell
    from dlx.sweeps.plan import Plan

POLL_SECONDS = 0.05


class Processes:
    """`jobs` processes at a time; each has its own device slot and its share of the CPU threads.

    A member that exceeds the time limit gets SIGTERM, and SIGKILL after a grace in which it saves. The members die with
    this process, also when it is killed (Linux).
    """

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.jobs = execution.jobs or len(_devices()) or os.cpu_count() or 1

    def __call__(self, plan: Plan, names: Iterable[str], tell: Tell) -> None:
        pool.keep_filled(Workers(plan, self.execution, self.jobs), names, tell, jobs=self.jobs)


@dataclass
class Worker:
    """A process, its device slot, and when it started (monotonic seconds)."""

    process: subprocess.Popen[bytes]
    slot: int
    started: float
    told: bool = False  # to stop: a second signal would not let it save

    def stop(self) -> None:
        if not self.told:
            self.told = True
            self.process.terminate()


class Workers:
    """The processes under way, by member."""

    def __init__(self, plan: Plan, execution: Execution, jobs: int) -> None:
        self.plan, self.execution, self.jobs = plan, execution, jobs
        self.running: dict[str, Worker] = {}

    def start(self, names: list[str]) -> None:
        for name in names:
            slot = _free_slot([worker.slot for worker in self.running.values()])
            self.running[name] = Worker(self._start(name, slot), slot, time.monotonic())

    def _start(self, name: str, slot: int) -> subprocess.Popen[bytes]:
        pool.forget_result(self.plan, name)
        threads = max(1, (os.cpu_count() or 1) // self.jobs)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **_device(slot)}
        trust = [word for package in self.execution.trust for word in ("--trust", package)]
        log = open_plain(inside(self.plan.path, "plan", f"{name}.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        with os.fdopen(log, "ab"):
            return subprocess.Popen(
                [sys.executable, "-m", "dlx.sweeps.worker", str(self.plan.path), name, str(os.getpid()), *trust],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def ended(self) -> dict[str, Result]:
        time.sleep(POLL_SECONDS)
        self.enforce_limit()
        gone = [name for name, worker in self.running.items() if worker.process.poll() is not None]
        return {name: self._result(name, self.running.pop(name)) for name in gone}

    def enforce_limit(self) -> None:
        limit = self.execution.time_limit
        for worker in self.running.values():
            over = time.monotonic() - worker.started - limit if limit is not None else 0
            if over > pool.GRACE_SECONDS:
                worker.process.kill()
            elif over > 0:
                worker.stop()

    def _result(self, name: str, worker: Worker) -> Result:
        """What the member wrote of itself; where it could not, how its process ended."""
        limit = self.execution.time_limit
        over = f" (over its {limit:g} s)" if limit is not None and time.monotonic() - worker.started > limit else ""
        result = pool.written_result(self.plan, name)
        if result is not None:
            cut = over and result.status == "interrupted"
            return replace(result, status="failed", reason=f"stopped{over}") if cut else result
        code = worker.process.returncode
        how = f"killed by signal {-code}" if code < 0 else f"its process ended with code {code}"
        return Result(self.plan.run(name).path, "failed" if over else "lost", 1, {}, how + over)

    def stop(self) -> None:
        for worker in self.running.values():
            worker.stop()

    def kill(self) -> None:
        for worker in self.running.values():
            worker.process.kill()
            worker.process.wait()


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
