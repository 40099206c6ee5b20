"""A member of a plan in a process of its own: python -m dlx.sweeps.worker PLAN NAME PARENT [--trust PKG]...

The workers of a cluster call `run` themselves.
"""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlx.sweeps.plan import Plan
    from dlx.training.session import Result

PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """The kernel ends this process when its parent is gone, however that ends (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before
            os._exit(1)


def run(path: Path, name: str, trust: Sequence[str] = (), limit: float | None = None) -> dict[str, Any]:
    """Runs a member. Returns the fields of its Result but the run's path; plan/NAME.result.json has them too.

    limit: seconds, after which the member saves and ends; where it does not within a grace, the process is ended.
    """
    from dlx.config.errors import reason_of
    from dlx.runs.files import inside, write_json
    from dlx.sweeps import executors
    from dlx.sweeps.plan import Plan
    from dlx.training.signals import Signals, exit_code, signal_of

    def ending(status: str, reason: str | None, code: int = 1) -> dict[str, Any]:
        return {"status": status, "code": code, "metrics": {}, "reason": reason}

    if not (path / "plan.yaml").is_file():
        where = f"{socket.gethostname()} does not see {path}"
        return ending("failed", f"{where}: a sweep's folder must be on a file system that all nodes share")

    def write(fields: dict[str, Any]) -> dict[str, Any]:
        with contextlib.suppress(OSError):  # a full disk: the run folder says how it ended
            write_json(inside(path, "plan", f"{name}.result.json"), fields)
        return fields

    with Signals():
        with _limited(limit, lambda: write(ending("failed", f"killed (over its {limit:g} s)"))) as over:
            try:
                with Signals(raises=True):
                    result = _run(Plan.load(path, trust=trust, only=name), name, executors.run_member)
                fields = {key: value for key, value in vars(result).items() if key not in ("run", "commands", "early")}
            except KeyboardInterrupt as error:  # outside the training, which catches signals itself
                fields = ending("interrupted", f"signal {signal_of(error):d}", exit_code(signal_of(error)))
            except Exception as error:
                fields = ending("failed", reason_of(error))
        if over.is_set() and fields["status"] == "interrupted":
            fields |= ending("failed", f"stopped (over its {limit:g} s)")
        return write(fields)


def _run(plan: Plan, name: str, run_member: Callable[[Plan, str], Result]) -> Result:
    """The member's result. A run whose owner was on another host, and died, is in use until that host's silence is long
    enough: a cluster that starts the member again elsewhere waits for it."""
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
def _limited(limit: float | None, last_words: Callable[[], Any]) -> Iterator[threading.Event]:
    """After `limit` seconds inside, this process is interrupted as by Ctrl-C, and ended where it does not leave within
    the grace. Yields what is set when the limit is over."""
    from dlx.sweeps.pool import GRACE_SECONDS

    over, left = threading.Event(), threading.Event()

    def watch() -> None:
        if left.wait(limit):
            return
        over.set()
        _thread.interrupt_main()  # as SIGINT, which Ray blocks in its workers
        if not left.wait(GRACE_SECONDS):
            last_words()
            os._exit(1)

    if limit is not None:
        threading.Thread(target=watch, daemon=True, name="time-limit").start()
    try:
        yield over
    finally:
        left.set()


def main(path: str, name: str, parent: str, *rest: str) -> None:
    from dlx.training.signals import Signals, Stopped, exit_code

    die_with(int(parent))
    try:
        with Signals(raises=True):  # from the first line: to import torch takes seconds
            run(Path(path), name, [word for word in rest if word != "--trust"])
    except Stopped as stop:
        sys.exit(exit_code(stop.signum))


if __name__ == "__main__":
    main(*sys.argv[1:])
