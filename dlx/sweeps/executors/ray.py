"""The executor `ray`: a task of a Ray cluster for each member."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dlx.config.errors import UserError, reason_of
from dlx.config.extras import require
from dlx.config.screen import note
from dlx.runs.files import open_plain
from dlx.sweeps.executors import pool, worker
from dlx.sweeps.executors.execution import Execution, OnResult
from dlx.sweeps.plan import Plan
from dlx.training.session import Result
from dlx.training.signals import Signals

POLL_SECONDS = 0.5


class Ray:
    """Runs `jobs` tasks at a time, each with its share of the CPUs, and a GPU if the cluster has any.

    The cluster is the one of RAY_ADDRESS, else one that runs on this machine, else one started for this sweep alone.
    Ray itself retries nothing: a restarted member resumes from its run folder.
    """

    def __init__(self, execution: Execution) -> None:
        require("--executor ray", "ray", "ray")
        self.execution = execution
        self.running: dict[Any, str] = {}  # members by task

    def __call__(self, plan: Plan, names: Iterable[str], on_result: OnResult) -> None:
        with _connected(plan.path / "plan" / "ray.log") as ray:
            self.plan, self.ray = plan, ray
            found = ray.cluster_resources()
            gpus, cpus = int(found.get("GPU", 0)), int(found.get("CPU", 0))
            jobs = self.execution.jobs or gpus or max(1, cpus)
            largest = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])
            share = max(1, min(cpus // jobs, largest))  # a task that needs more than the largest node never starts
            variables = {"PYTHONPATH": pool.worker_pythonpath(), "OMP_NUM_THREADS": str(share)}
            self.task = ray.remote(run_in).options(
                num_cpus=share, num_gpus=1 if gpus else 0, max_retries=0, runtime_env={"env_vars": variables}
            )
            pool.run_pool(self, names, on_result, jobs=jobs, retries=pool.RETRIES)

    def start(self, names: list[str]) -> None:
        execution = self.execution
        for name in names:
            pool.delete_result(self.plan, name)
            path = self.plan.path.absolute()
            task = self.task.remote(str(Path.cwd()), path, name, execution.trust, execution.time_limit)
            self.running[task] = name

    def ended(self) -> dict[str, Result]:
        if not self.running:
            return {}
        ready, _ = self.ray.wait(list(self.running), timeout=POLL_SECONDS)
        return {self.running[task]: self._result(task, self.running.pop(task)) for task in ready}

    def _result(self, task: Any, name: str) -> Result:
        errors = self.ray.exceptions
        path = self.plan.run(name).path
        try:
            return pool.result_of(self.plan, name, self.ray.get(task))
        except errors.TaskCancelledError:
            return Result(path, "interrupted", 130, {}, "cancelled")
        except errors.RayTaskError as error:
            return Result(path, "failed", 1, {}, reason_of(error.cause))
        except (errors.RuntimeEnvSetupError, errors.RaySystemError, errors.TaskUnschedulableError) as error:
            return Result(path, "failed", 1, {}, f"Ray: {str(error).splitlines()[0]}")
        except errors.RayError as error:
            # The worker or its node died; a worker that was killed over its limit wrote so.
            lost = Result(path, "lost", 1, {}, f"its Ray worker died ({type(error).__name__})")
            return pool.written_result(self.plan, name) or lost

    def stop(self) -> None:
        for task in self.running:
            self.ray.cancel(task)  # as Ctrl-C in a running task's process

    def kill(self) -> None:
        for task in self.running:
            self.ray.cancel(task, force=True)


def run_in(folder: str, path: Path, name: str, trust: Sequence[str], limit: float | None) -> dict[str, Any]:
    """Runs a member in a task, from the submitter's current folder: its configuration may have relative paths."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{socket.gethostname()} does not see {folder}, where the sweep was started")
    os.chdir(folder)
    return worker.run(path, name, trust, limit)


@contextlib.contextmanager
def _connected(log: Path) -> Iterator[Any]:
    """The module ray, connected to a cluster. Ray prints to `log` and sends no usage statistics."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    token = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ) or (Path.home() / ".ray/auth_token").exists()
    if token:  # `ray start` then requires it, but `ray.init` sends it only in this mode
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    address = os.environ.get("RAY_ADDRESS", "")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    _check_answers(address)
    with (
        Signals(),  # restores the handler of SIGTERM, which Ray replaces
        os.fdopen(open_plain(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a") as file,
        contextlib.redirect_stdout(file),
    ):
        try:
            ray.init(address="auto", **quiet)
        except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
            if address:
                raise UserError(f"RAY_ADDRESS={address}: {str(error).splitlines()[0]}") from None
            note("no Ray cluster runs here: one is started for this sweep")
            ray.init(address="local", include_dashboard=False, **quiet)
        try:
            yield ray
        finally:
            ray.shutdown()


def _check_answers(address: str) -> None:
    """Raises UserError if nothing listens there: Ray itself would try for minutes, then end the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(f"RAY_ADDRESS={address}: no Ray cluster answers ({error.strerror or error})") from None
