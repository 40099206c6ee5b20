"""The executor `processes`: a process for each member, on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable

from dlx.runs.files import inside, open_plain
from dlx.sweeps.executors import pool
from dlx.sweeps.executors.execution import Execution, OnResult
from dlx.sweeps.plan import Plan
from dlx.training.session import Result

POLL_SECONDS = 0.05


class Processes:
    """Runs `jobs` processes at a time, each with one GPU (where there are any) and its share of the CPU threads.

    The processes end with this one, also when it is killed (Linux).
    """

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.gpus = _gpus()
        self.jobs = execution.jobs or len(self.gpus) or os.cpu_count() or 1
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._slots: dict[str, int] = {}

    def __call__(self, plan: Plan, names: Iterable[str], on_result: OnResult) -> None:
        self.plan = plan
        pool.run_pool(self, names, on_result, jobs=self.jobs)

    def start(self, names: list[str]) -> None:
        execution, threads = self.execution, max(1, (os.cpu_count() or 1) // self.jobs)
        for name in names:
            pool.delete_result(self.plan, name)
            taken = {self._slots[running] for running in self.running}
            slot = self._slots[name] = min(set(range(len(taken) + 1)) - taken)
            # Must be set before the child imports torch; GPUs go round robin.
            gpu = {"CUDA_VISIBLE_DEVICES": self.gpus[slot % len(self.gpus)]} if self.gpus else {}
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **gpu}
            words = [str(self.plan.path), name, str(os.getpid()), str(execution.time_limit or ""), *execution.trust]
            log = open_plain(inside(self.plan.path, "plan", f"{name}.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            with os.fdopen(log, "ab"):
                self.running[name] = subprocess.Popen(
                    [sys.executable, "-m", "dlx.sweeps.executors.worker", *words],
                    env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip

    def ended(self) -> dict[str, Result]:
        time.sleep(POLL_SECONDS)
        gone = [name for name, process in self.running.items() if process.poll() is not None]
        return {name: self._result(name, self.running.pop(name).returncode) for name in gone}

    def _result(self, name: str, code: int) -> Result:
        how = f"killed by signal {-code}" if code < 0 else f"its process ended with code {code}"
        return pool.written_result(self.plan, name) or Result(self.plan.run(name).path, "lost", 1, {}, how)

    def stop(self) -> None:
        for process in self.running.values():
            process.terminate()

    def kill(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
