"""The executor `ray`: a task of a Ray cluster for each member."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx.config.errors import UserError, reason_of
from dlx.config.screen import note
from dlx.runs.files import open_plain
from dlx.sweeps import pool, worker
from dlx.training.session import Result

if TYPE_CHECKING:
    from dlx.sweeps.executors import Execution, Tell
    from dlx.sweeps.plan import Plan

POLL_SECONDS = 0.5


class Ray:
    """`jobs` tasks at a time, each with its share of the CPUs, and a GPU where the cluster has any.

    The cluster is the one of RAY_ADDRESS, else one that runs on this machine, else one started for this sweep alone.
    """

    def __init__(self, execution: Execution) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UserError("--executor ray: Ray is not installed; pip install 'dlx[ray]'")
        self.execution = execution

    def __call__(self, plan: Plan, names: Iterable[str], tell: Tell) -> None:
        with _connected(plan.path / "plan" / "ray.log") as ray:
            tasks = _Tasks(ray, plan, self.execution)
            pool.keep_filled(tasks, names, tell, jobs=tasks.jobs, retries=pool.RETRIES)


def run_in(folder: str, path: Path, name: str, trust: Sequence[str], limit: float | None) -> dict[str, Any]:
    """What a task does: a member, from the submitter's current folder, to which its configuration may refer."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{socket.gethostname()} does not see {folder}, where the sweep was started")
    os.chdir(folder)
    return worker.run(path, name, trust, limit)


class _Tasks:
    """The tasks under way. Ray itself retries nothing: what a retry begins with is in the run folder."""

    def __init__(self, ray: Any, plan: Plan, execution: Execution) -> None:
        self.ray, self.plan, self.execution = ray, plan, execution
        self.running: dict[Any, str] = {}
        found = ray.cluster_resources()
        gpus, cpus = int(found.get("GPU", 0)), int(found.get("CPU", 0))
        self.jobs = execution.jobs or gpus or max(1, cpus)
        largest = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])
        share = max(1, min(cpus // self.jobs, largest))  # more than the largest node has would wait for ever
        variables = {"PYTHONPATH": pool.import_path(), "OMP_NUM_THREADS": str(share)}
        self.task = ray.remote(run_in).options(
            num_cpus=share, num_gpus=1 if gpus else 0, max_retries=0, runtime_env={"env_vars": variables}
        )

    def start(self, names: list[str]) -> None:
        for name in names:
            pool.forget_result(self.plan, name)
            how = self.execution
            task = self.task.remote(str(Path.cwd()), self.plan.path.absolute(), name, how.trust, how.time_limit)
            self.running[task] = name

    def ended(self) -> dict[str, Result]:
        if not self.running:
            return {}
        ready, _ = self.ray.wait(list(self.running), timeout=POLL_SECONDS)
        return {self.running[task]: self._result(task, self.running.pop(task)) for task in ready}

    def _result(self, task: Any, name: str) -> Result:
        """What the member's worker gave back or wrote; where it could not, what became of it."""
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
        except errors.RayError as error:  # a worker or its node died; over its time limit it wrote so before
            lost = Result(path, "lost", 1, {}, f"its Ray worker died ({type(error).__name__})")
            return pool.written_result(self.plan, name) or lost

    def stop(self) -> None:
        for task in self.running:
            self.ray.cancel(task)  # as Ctrl-C in its process, where it is running

    def kill(self) -> None:
        for task in self.running:
            self.ray.cancel(task, force=True)


@contextlib.contextmanager
def _connected(log: Path) -> Iterator[Any]:
    """Ray's module, connected to a cluster inside. What Ray prints goes to `log`; it reports nothing to its makers."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    token = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ) or (Path.home() / ".ray/auth_token").exists()
    if token:  # `ray start` asks for it then, but `ray.init` does not send it unless told
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    address = os.environ.get("RAY_ADDRESS", "")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    before = signal.getsignal(signal.SIGTERM)  # which Ray replaces
    _check_answers(address)
    with (
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
            signal.signal(signal.SIGTERM, before)


def _check_answers(address: str) -> None:
    """Raises UserError where nobody does: Ray itself would try for minutes, and end the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(f"RAY_ADDRESS={address}: no Ray cluster answers ({error.strerror or error})") from None
