"""The executor `slurm`: jobs of a Slurm cluster, submitted by submitit as arrays.

    plan/slurm/    what submitit leaves: the jobs' scripts, logs and results

Slurm may warn a job (its time is nearly over, another needs its place), or take it away and queue it again: the member
saves, the job is queued again by itself, and the member goes on from its checkpoint. A job that dies is submitted anew.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx.config.errors import UserError
from dlx.config.groups import nearest
from dlx.config.screen import note
from dlx.sweeps import worker
from dlx.training.signals import Signals

if TYPE_CHECKING:
    from dlx.sweeps.executors import Execution, Tell
    from dlx.sweeps.plan import Plan
    from dlx.training.session import Result

POLL_SECONDS = 0.5
STATE_SECONDS = 3.0  # between two questions to Slurm, which serves others too
RESULT_SECONDS = 5.0  # that a result may take to be seen through a shared file system; of a job that completed:
COMPLETED_SECONDS = 60.0
WAITING_SECONDS = 60.0  # in the queue, after which it is said why
WARNING_SECONDS = 90  # before a job's time is over, unless signal_delay_s says otherwise
MAX_ARRAY = 1000  # Slurm's default limit
PARAMETERS = (
    "account", "comment", "constraint", "cpus_per_gpu", "cpus_per_task", "exclude", "exclusive", "gpus_per_node",
    "gres", "job_name", "mail_type", "mail_user", "mem", "mem_per_cpu", "mem_per_gpu", "nodelist", "partition", "qos",
    "signal_delay_s", "time", "wckey",
)  # fmt: skip
"""sbatch's options that suit a member; signal_delay_s is submitit's."""

ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
}  # fmt: skip
GONE = "no longer known to Slurm"


class Slurm:
    """A job for each member, all at once or `jobs` at a time.

    DLX_SLURM_CLUSTER=local takes submitit's processes on this machine instead of a cluster, to try things out.
    """

    def __init__(self, execution: Execution) -> None:
        if importlib.util.find_spec("submitit") is None:
            raise UserError("--executor slurm: submitit is not installed; pip install 'dlx[slurm]'")
        self.local = os.environ.get("DLX_SLURM_CLUSTER") == "local"
        if not self.local and shutil.which("sbatch") is None:
            raise UserError("--executor slurm: there is no sbatch; start the sweep where jobs are submitted")
        self.execution = execution
        self.parameters = read_parameters(execution)

    def __call__(self, plan: Plan, names: Iterable[str], tell: Tell) -> None:
        from dlx.sweeps import pool

        jobs = _Jobs(plan, self.execution, self.parameters, self.local)
        pool.keep_filled(jobs, names, tell, jobs=self.execution.jobs, retries=pool.RETRIES)


def read_parameters(execution: Execution) -> dict[str, Any]:
    """sbatch's options for a member's job. Raises UserError for what is none.

    Without a time, the partition's default holds; a time limit asks for as much as it needs, with the warning.
    """
    found: dict[str, Any] = {"job_name": "dlx"}
    for word in execution.slurm:
        given, equals, value = word.partition("=")
        key = given.strip().replace("-", "_")
        if not equals or not value:
            raise UserError(f"--slurm {word}: must be KEY=VALUE, such as partition=gpu")
        if key not in PARAMETERS:
            hint = nearest(key, PARAMETERS)
            raise UserError(f"--slurm {given}: dlx passes on no such option{hint} ({', '.join(PARAMETERS)})")
        found[key] = _minutes(value) if key == "time" else int(value) if value.isdecimal() else value
    if found.get("exclusive") == "true":
        found["exclusive"] = True
    warning = found.setdefault("signal_delay_s", WARNING_SECONDS)
    if not isinstance(warning, int):
        raise UserError(f"--slurm signal_delay_s={warning}: must be a number of seconds")
    if execution.time_limit is not None and "time" not in found:
        found["time"] = math.ceil((execution.time_limit + warning) / 60) + 1  # Slurm's clock is coarse: up to a minute
    return found


def _minutes(text: str) -> int:
    """Slurm's unit. Raises UserError for what is no time."""
    from dlx.training.interval import Interval

    with contextlib.suppress(ValueError):
        seconds = Interval.parse(f"{text}min" if text.isdecimal() else text, steps_per_epoch=1).seconds
        if seconds is not None:
            return math.ceil(seconds / 60)
    raise UserError(f"--slurm time={text}: must be minutes, or a time such as 90min, 12h")


@dataclass
class Member:
    """What a job does, pickled by submitit."""

    path: Path
    name: str
    trust: tuple[str, ...]
    limit: float | None

    def __call__(self) -> dict[str, Any]:
        """Slurm's warnings (SIGUSR1, SIGUSR2) put the job back into the queue once the run saved. At SIGTERM it only
        ends: whoever sends it decides what becomes of the job."""
        with Signals() as signals:
            if "SLURM_CPUS_ON_NODE" in os.environ:
                os.environ.setdefault("OMP_NUM_THREADS", os.environ["SLURM_CPUS_ON_NODE"])
            fields = worker.run(self.path, self.name, self.trust, self.limit)
            if fields["status"] == "interrupted":
                if signal.SIGTERM in (signals.received, fields["code"] - 128):
                    sys.exit(143)
                queue_again()
            return fields


def queue_again() -> None:
    """Ends this process and queues its job again: the same job, with the same number."""
    from submitit.local.local import LOCAL_REQUEUE_RETURN_CODE

    if "SLURM_JOB_ID" in os.environ:  # where Slurm refuses, the job has failed, and is submitted anew
        # One task of an array has the array's own number, by which all of it would be queued again.
        array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
        job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
        subprocess.run(["scontrol", "requeue", job], check=False, timeout=60)
    sys.exit(LOCAL_REQUEUE_RETURN_CODE)


@dataclass
class _Job:
    """A job of submitit's; `state` is how Slurm says that it ended, `since` when that was seen (monotonic seconds)."""

    job: Any
    state: str | None = None
    since: float = 0.0


class _Jobs:
    """The jobs in the queue and running, by member."""

    def __init__(self, plan: Plan, execution: Execution, parameters: dict[str, Any], local: bool) -> None:
        import submitit

        self.plan, self.execution, self.local = plan, execution, local
        self.running: dict[str, _Job] = {}
        self.asked = -math.inf
        self.stopping = False
        self.waiting: dict[str, float] = {}  # in the queue, since when (monotonic seconds)
        self.said: set[str] = set()
        folder = plan.path.absolute() / "plan" / "slurm"
        if local:
            self.submitter: Any = submitit.LocalExecutor(folder)
            self.submitter.update_parameters(timeout_min=7 * 24 * 60)
        else:
            self.submitter = submitit.SlurmExecutor(folder)
            more: dict[str, Any] = {"time": None, "additional_parameters": {"requeue": True}}
            if "cpus_per_task" in parameters:  # srun takes it over from sbatch no more (Slurm 22.05)
                more["srun_args"] = [f"--cpus-per-task={parameters['cpus_per_task']}"]
            if execution.jobs:
                more["array_parallelism"] = execution.jobs
            self.submitter.update_parameters(**{**more, **parameters})

    def start(self, names: list[str]) -> None:
        from submitit.core.utils import FailedJobError

        from dlx.sweeps import pool

        how = self.execution
        for begin in range(0, len(names), MAX_ARRAY):
            array = names[begin : begin + MAX_ARRAY]
            for name in array:
                pool.forget_result(self.plan, name)
            members = [Member(self.plan.path.absolute(), name, how.trust, how.time_limit) for name in array]
            try:
                with _environment(PYTHONPATH=pool.import_path()):
                    jobs = self.submitter.submit_array(members)
            except FailedJobError as error:
                said = [
                    line.partition("sbatch: error: ")[2]
                    for line in str(error).splitlines()
                    if "sbatch: error: " in line
                ]
                raise UserError(
                    f"Slurm: {said[0] if said else error}; dlx resume {self.plan.path} goes on, with other options"
                ) from None
            self.running |= {name: _Job(job) for name, job in zip(array, jobs, strict=True)}

    def ended(self) -> dict[str, Result]:
        time.sleep(POLL_SECONDS)
        if self.stopping or time.monotonic() - self.asked > STATE_SECONDS:
            self._ask()
        results = {name: self._result(name, job) for name, job in self.running.items()}
        found = {name: result for name, result in results.items() if result is not None}
        for name in found:
            del self.running[name]
        return found

    def _ask(self) -> None:
        """Notes which jobs ended."""
        self.asked = time.monotonic()
        if self.local:
            states = {job.job.job_id: "COMPLETED" for job in self.running.values() if job.job.done()}
        else:
            known = _states([job.job.job_id for job in self.running.values()])
            if known is None:
                return
            asked = [job.job.job_id for job in self.running.values()]
            states = {number: known[number][0] if number in known else GONE for number in asked}
            self._say_what_waits({number: known[number][1] for number in asked if states[number] == "PENDING"})
        for job in self.running.values():
            state = states.get(job.job.job_id)
            if state not in ENDED and state != GONE:
                job.state = None  # queued again, also by someone's scontrol
            elif job.state is None:
                job.state, job.since = state, time.monotonic()

    def _say_what_waits(self, reasons: dict[str, str]) -> None:
        """Once for each reason that Slurm gives. reasons: by the jobs in its queue."""
        now = time.monotonic()
        self.waiting = {number: self.waiting.get(number, now) for number in reasons}
        for reason in set(reasons.values()) - self.said:
            late = [n for n, since in self.waiting.items() if reasons[n] == reason and now - since > WAITING_SECONDS]
            if late:
                self.said.add(reason)
                more = f" and {len(late) - 1} more wait" if len(late) > 1 else " waits"
                note(f"slurm: job {late[0]}{more} in the queue for {WAITING_SECONDS:g} s ({reason})")

    def _result(self, name: str, job: _Job) -> Result | None:
        """What a member gave back or wrote; None where it is under way; where its job ended without, how."""
        from dlx.sweeps import pool
        from dlx.training.session import Result

        path = self.plan.run(name).path
        if job.job.paths.result_pickle.exists():
            if job.job.exception() is not None:
                reason = f"its job {job.job.job_id} did not come to run it; see {job.job.paths.stderr}"
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
        return Result(path, "lost", 1, {}, f"its job {job.job.job_id} ended without a result ({job.state})")

    def stop(self) -> None:
        self.stopping = True
        ids = [job.job.job_id for job in self.running.values()]
        if self.local:
            for pid in ids:  # of a process that hands the signal on
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
            _scancel(*(job.job.job_id for job in self.running.values()))


def _scancel(*words: str) -> None:
    subprocess.run(["scancel", *words], check=False, capture_output=True, timeout=60)


def _states(ids: Sequence[str]) -> dict[str, tuple[str, str]] | None:
    """The jobs that Slurm knows, with their states and the reasons that it gives; None where it does not answer.

    By squeue, not sacct as submitit has it: that needs a database, which not every cluster runs.
    """
    numbers = {number.partition("_")[0] for number in ids}
    command = ["squeue", "--noheader", "--array", "--states=all", f"--jobs={','.join(numbers)}", "--format=%i %T %r"]
    try:
        said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return None
    if said.returncode != 0 and "Invalid job id" not in said.stderr:
        return None
    rows = (line.split(maxsplit=2) for line in said.stdout.splitlines())
    return {number: (state, " ".join(reason)) for number, state, *reason in rows}


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Variables that jobs inherit."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
