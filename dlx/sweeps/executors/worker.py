"""One member of a plan in its own process: python -m dlx.sweeps.executors.worker PLAN NAME PARENT LIMIT [PKG]...

Ray's tasks and Slurm's jobs call `run`. Imports here are light: signals must be handled before torch is imported, which
takes seconds.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import faulthandler
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx.training.signals import Signals, exit_code, signal_of

if TYPE_CHECKING:
    from dlx.sweeps.plan import Plan
    from dlx.training.session import Result

PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 30.0  # to save after a signal or the time limit, before a member is killed


def die_with(parent: int) -> None:
    """Has the kernel kill this process when its parent ends, however that happens (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before the call
            os._exit(1)


def result_path(plan: Path, name: str) -> Path:
    from dlx.runs.files import inside

    return inside(plan, "plan", f"{name}.result.json")


def run(path: Path, name: str, trust: Sequence[str] = (), limit: float | None = None) -> dict[str, Any]:
    """Runs a member. Returns the fields of its Result without the run's path, and writes them to plan/NAME.result.json.

    limit: seconds after which the member saves and ends; it is killed if it does not end within GRACE_SECONDS.
    """

    def write(fields: dict[str, Any]) -> dict[str, Any]:
        from dlx.runs.files import write_json

        with contextlib.suppress(OSError):  # a full disk: the run folder has the status too
            write_json(result_path(path, name), fields)
        return fields

    if not (path / "plan.yaml").is_file():
        where = f"{socket.gethostname()} does not see {path}"
        return _failed(f"{where}: a sweep's folder must be on a file system that all nodes share")
    with Signals():
        with _time_limit(limit, lambda: write(_failed(f"killed (over its {limit:g} s)"))) as over:
            fields = _run(path, name, trust)
        if over.is_set() and fields["status"] == "interrupted":
            fields |= _failed(f"stopped (over its {limit:g} s)")
        return write(fields)


def _failed(reason: str) -> dict[str, Any]:
    return {"status": "failed", "code": 1, "metrics": {}, "reason": reason}


def _run(path: Path, name: str, trust: Sequence[str]) -> dict[str, Any]:
    from dlx.config.errors import reason_of
    from dlx.sweeps.executors import inprocess
    from dlx.sweeps.plan import Plan

    try:
        with Signals(raises=True):
            result = _run_when_free(Plan.load(path, trust=trust, only=name), name, inprocess.run_member)
        return {key: value for key, value in vars(result).items() if key not in ("run", "commands", "early")}
    except KeyboardInterrupt as error:  # outside the training, which handles signals itself
        signum = signal_of(error)
        return {"status": "interrupted", "code": exit_code(signum), "metrics": {}, "reason": f"signal {signum:d}"}
    except Exception as error:
        return _failed(reason_of(error))


def _run_when_free(plan: Plan, name: str, run_member: Callable[[Plan, str], Result]) -> Result:
    """Waits while the run is locked by another host that may have died: a cluster restarts a member elsewhere."""
    from dlx.runs.lock import HEARTBEAT_SECONDS, SILENT_SECONDS, RunInUse, read_owner

    until = time.monotonic() + SILENT_SECONDS + 2 * HEARTBEAT_SECONDS
    while True:
        result = run_member(plan, name)
        owner = read_owner(plan.run(name).path / "run.lock")
        is_elsewhere = owner is not None and owner["host"] != socket.gethostname()
        if result.code != RunInUse.exit_code or not is_elsewhere or time.monotonic() > until:
            return result
        time.sleep(HEARTBEAT_SECONDS)


@contextlib.contextmanager
def _time_limit(limit: float | None, before_kill: Callable[[], Any]) -> Iterator[threading.Event]:
    """Interrupts this process after `limit` seconds, as Ctrl-C would, and kills it GRACE_SECONDS later.

    Yields an event that is set when the limit is over.
    """
    over, left = threading.Event(), threading.Event()
    if limit is None:
        yield over
        return

    def watch() -> None:
        if left.wait(limit):
            return
        over.set()
        if not Signals.pending():  # a second signal would not let the member save
            _thread.interrupt_main()  # not a real SIGINT, which Ray blocks in its workers
        if not left.wait(GRACE_SECONDS):
            before_kill()
            os._exit(1)

    threading.Thread(target=watch, daemon=True, name="time-limit").start()
    # Code that never releases the GIL stops the thread above too; this timer does not need the GIL.
    faulthandler.dump_traceback_later(limit + GRACE_SECONDS + 30, exit=True, file=2)
    try:
        yield over
    finally:
        left.set()
        faulthandler.cancel_dump_traceback_later()


def run_slurm_job(path: Path, name: str, trust: Sequence[str], limit: float | None) -> dict[str, Any]:
    """`run` as the function of a Slurm job.

    On Slurm's warnings (SIGUSR1, SIGUSR2) the run saves and the job is queued again. On SIGTERM the job ends: its
    sender decides what becomes of it.
    """
    if "SLURM_CPUS_ON_NODE" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", os.environ["SLURM_CPUS_ON_NODE"])
    with Signals():  # also while the job is queued again
        fields = run(path, name, trust, limit)
        if fields["status"] == "interrupted":
            if fields["code"] == exit_code(signal.SIGTERM):
                sys.exit(fields["code"])
            requeue()
        return fields


def requeue() -> None:
    """Ends this process and queues its job again, under the same job id."""
    from submitit.local.local import LOCAL_REQUEUE_RETURN_CODE

    if "SLURM_JOB_ID" in os.environ:  # if Slurm refuses, the job has failed and is submitted anew
        # SLURM_JOB_ID of a task can be the id of its whole array, which must not be queued again.
        array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
        job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
        subprocess.run(["scontrol", "requeue", job], check=False, timeout=60)
    sys.exit(LOCAL_REQUEUE_RETURN_CODE)


def main(path: str, name: str, parent: str, limit: str, *trust: str) -> None:
    die_with(int(parent))
    run(Path(path), name, trust, float(limit) if limit else None)


if __name__ == "__main__":
    main(*sys.argv[1:])
