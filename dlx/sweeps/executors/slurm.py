"""The executor `slurm`: jobs of a Slurm cluster, submitted by submitit as arrays.

    plan/slurm/    submitit's files: scripts, logs and results of the jobs

Slurm may warn a job (its time is nearly over, or another job preempts it), or requeue it: the member saves, the job is
queued again, and the member resumes from its checkpoint. A job that dies is submitted anew.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from dlx.config.errors import UserError
from dlx.config.extras import require
from dlx.config.groups import nearest
from dlx.config.screen import note
from dlx.sweeps.executors import pool
from dlx.sweeps.executors.execution import Execution, OnResult, parse_seconds
from dlx.sweeps.executors.worker import run_slurm_job
from dlx.sweeps.plan import Plan, environment
from dlx.training.session import Result

POLL_SECONDS = 0.5
STATE_SECONDS = 3.0  # between two calls of squeue, whose server other users share
RESULT_SECONDS = 5.0  # until a result is visible through a shared file system; of a completed job:
COMPLETED_SECONDS = 60.0
WAITING_SECONDS = 60.0  # in the queue, after which Slurm's reason is printed
WARNING_SECONDS = 90  # before a job's time is over; signal_delay_s sets it
MAX_ARRAY = 1000  # Slurm's default limit
PARAMETERS = (
    "account", "comment", "constraint", "cpus_per_gpu", "cpus_per_task", "exclude", "exclusive", "gpus_per_node",
    "gres", "job_name", "mail_type", "mail_user", "mem", "mem_per_cpu", "mem_per_gpu", "nodelist", "partition", "qos",
    "signal_delay_s", "time", "wckey",
)  # fmt: skip
"""sbatch options that --slurm takes; signal_delay_s is submitit's."""

ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
}  # fmt: skip
GONE = "no longer known to Slurm"


def read_parameters(execution: Execution) -> dict[str, Any]:
    """The sbatch options of a member's job. Raises UserError for an option or value that is not one.

    Without a time the partition's default holds; with a time limit, the time is the limit and the warning before it.
    """
    found: dict[str, Any] = {"job_name": "dlx"}
    for word in execution.slurm:
        given, equals, value = word.partition("=")
        key = given.strip().replace("-", "_")
        if not equals or not value:
            raise UserError(f"--slurm {word}: must be KEY=VALUE, such as partition=gpu")
        if key not in PARAMETERS:
            hint = nearest(key, PARAMETERS)
            raise UserError(f"--slurm {given}: unknown option{hint} ({', '.join(PARAMETERS)})")
        found[key] = int(value) if value.isdecimal() else value
        if key == "time" and not value.isdecimal():
            if (seconds := parse_seconds(value)) is None:
                raise UserError(f"--slurm time={value}: must be minutes, or a time such as 90min, 12h")
            found[key] = math.ceil(seconds / 60)
    if found.get("exclusive") == "true":
        found["exclusive"] = True
    warning = found.setdefault("signal_delay_s", WARNING_SECONDS)
    if not isinstance(warning, int):
        raise UserError(f"--slurm signal_delay_s={warning}: must be a number of seconds")
    if execution.time_limit is not None and "time" not in found:
        found["time"] = math.ceil((execution.time_limit + warning) / 60) + 1  # Slurm may end a job a minute early
    return found


@dataclass
class Job:
    """One of submitit's jobs. state: Slurm's, once the job ended; since: when that was seen (monotonic seconds)."""

    job: Any
    state: str | None = None
    since: float = 0.0

    @property
    def id(self) -> str:
        return str(self.job.job_id)


class Slurm:
    """A job for each member, all at once or `jobs` at a time.

    DLX_SLURM_CLUSTER=local runs submitit's local processes instead of a cluster's jobs, to try a sweep out.
    """

    def __init__(self, execution: Execution) -> None:
        require("--executor slurm", "slurm", "submitit")
        self.local = os.environ.get("DLX_SLURM_CLUSTER") == "local"
        if not self.local and shutil.which("sbatch") is None:
            raise UserError("--executor slurm: there is no sbatch; start the sweep on a machine that submits jobs")
        self.execution = execution
        self.parameters = read_parameters(execution)
        self.running: dict[str, Job] = {}  # by member
        self.polled = -math.inf  # when squeue was called last (monotonic seconds)
        self.stopping = False
        self.waiting: dict[str, float] = {}  # jobs in the queue, and since when (monotonic seconds)
        self.reported: set[str] = set()  # Slurm's reasons that were printed

    def __call__(self, plan: Plan, names: Iterable[str], on_result: OnResult) -> None:
        import submitit

        self.plan, jobs = plan, self.execution.jobs
        folder = plan.path.absolute() / "plan" / "slurm"
        if self.local:
            self.submitter: Any = submitit.LocalExecutor(folder)
            self.submitter.update_parameters(timeout_min=7 * 24 * 60)
        else:
            self.submitter = submitit.SlurmExecutor(folder)
            more: dict[str, Any] = {"time": None, "additional_parameters": {"requeue": True}}
            if "cpus_per_task" in self.parameters:  # since Slurm 22.05 srun does not inherit it from sbatch
                more["srun_args"] = [f"--cpus-per-task={self.parameters['cpus_per_task']}"]
            if jobs:
                more["array_parallelism"] = jobs
            self.submitter.update_parameters(**{**more, **self.parameters})
        pool.run_pool(self, names, on_result, jobs=jobs, retries=pool.RETRIES)

    def start(self, names: list[str]) -> None:
        from submitit.core.utils import FailedJobError

        execution = self.execution
        for begin in range(0, len(names), MAX_ARRAY):
            array = names[begin : begin + MAX_ARRAY]
            for name in array:
                pool.delete_result(self.plan, name)
            path = self.plan.path.absolute()
            functions = [partial(run_slurm_job, path, name, execution.trust, execution.time_limit) for name in array]
            try:
                with environment("PYTHONPATH", pool.worker_pythonpath()):
                    jobs = self.submitter.submit_array(functions)
            except FailedJobError as error:
                parts = (line.partition("sbatch: error: ")[2] for line in str(error).splitlines())
                reason = next(filter(None, parts), error)
                again = f"dlx resume {self.plan.path} goes on, with other options"
                raise UserError(f"Slurm: {reason}; {again}") from None
            self.running |= {name: Job(job) for name, job in zip(array, jobs, strict=True)}

    def ended(self) -> dict[str, Result]:
        time.sleep(POLL_SECONDS)
        if self.stopping or time.monotonic() - self.polled > STATE_SECONDS:
            self._update_states()
        results = {name: self._result(name, job) for name, job in self.running.items()}
        found = {name: result for name, result in results.items() if result is not None}
        for name in found:
            del self.running[name]
        return found

    def _update_states(self) -> None:
        self.polled = time.monotonic()
        jobs = list(self.running.values())
        if self.local:
            states = {job.id: "COMPLETED" for job in jobs if job.job.done()}
        else:
            known = _squeue([job.id for job in jobs])
            if known is None:
                return
            states = {job.id: known[job.id][0] if job.id in known else GONE for job in jobs}
            self._report_waiting({job.id: known[job.id][1] for job in jobs if states[job.id] == "PENDING"})
        for job in jobs:
            state = states.get(job.id)
            if state not in ENDED and state != GONE:
                job.state = None  # queued again, also by someone's scontrol
            elif job.state is None:
                job.state, job.since = state, time.monotonic()

    def _report_waiting(self, reasons: dict[str, str]) -> None:
        """Prints each of Slurm's reasons once. reasons: by pending job."""
        now = time.monotonic()
        self.waiting = {number: self.waiting.get(number, now) for number in reasons}
        for reason in set(reasons.values()) - self.reported:
            late = [n for n, since in self.waiting.items() if reasons[n] == reason and now - since > WAITING_SECONDS]
            if late:
                self.reported.add(reason)
                more = f" and {len(late) - 1} more wait" if len(late) > 1 else " waits"
                note(f"slurm: job {late[0]}{more} in the queue for {WAITING_SECONDS:g} s ({reason})")

    def _result(self, name: str, job: Job) -> Result | None:
        """None while the job is queued or running, and while its result may not be visible yet."""
        path = self.plan.run(name).path
        if job.job.paths.result_pickle.exists():
            if job.job.exception() is not None:
                reason = f"its job {job.id} failed before the member ran; see {job.job.paths.stderr}"
                return Result(path, "failed", 1, {}, reason)
            return pool.result_of(self.plan, name, job.job.result())
        if job.state is None:
            return None
        patience = COMPLETED_SECONDS if job.state == "COMPLETED" and not self.local else RESULT_SECONDS
        if not self.stopping and time.monotonic() - job.since < patience:
            return None
        written = pool.written_result(self.plan, name)
        if written is not None and written.status != "interrupted":
            return written
        if job.state == "CANCELLED" and not self.stopping:
            return Result(path, "failed", 1, {}, "cancelled")
        return Result(path, "lost", 1, {}, f"its job {job.id} ended without a result ({job.state})")

    def stop(self) -> None:
        self.stopping = True
        ids = [job.id for job in self.running.values()]
        if self.local:
            for pid in ids:  # of a process that passes the signal on
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGTERM)
        elif ids:
            _scancel("--state=PENDING", *ids)
            _scancel("--signal=TERM", *ids)

    def kill(self) -> None:
        if self.local:
            for job in self.running.values():
                job.job.cancel()
        elif self.running:
            _scancel(*(job.id for job in self.running.values()))


def _scancel(*words: str) -> None:
    subprocess.run(["scancel", *words], check=False, capture_output=True, timeout=60)


def _squeue(ids: Sequence[str]) -> dict[str, tuple[str, str]] | None:
    """The state and Slurm's reason of each job that Slurm knows; None if Slurm does not answer.

    By squeue, not by sacct as submitit does it: sacct needs a database, which not every cluster runs.
    """
    numbers = {number.partition("_")[0] for number in ids}
    command = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={','.join(numbers)}", "--format=%i %T %r"]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode != 0 and "Invalid job id" not in done.stderr:
        return None
    rows = (line.split(maxsplit=2) for line in done.stdout.splitlines())
    return {number: (state, " ".join(reason)) for number, state, *reason in rows}
