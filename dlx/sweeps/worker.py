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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

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
    from dlx.runs.files import write_json
    from dlx.sweeps.executors import run_member
    from dlx.sweeps.plan import Plan

    def ending(status: str, reason: str | None, code: int = 1) -> dict[str, Any]:
        return {"status": status, "code": code, "metrics": {}, "reason": reason}

    if not (path / "plan.yaml").is_file():
        where = f"{socket.gethostname()} does not see {path}"
        return ending("failed", f"{where}: a sweep's folder must be on a file system that all nodes share")

    def write(fields: dict[str, Any]) -> dict[str, Any]:
        write_json(path / "plan" / f"{name}.result.json", fields)
        return fields

    with _limited(limit, lambda: write(ending("failed", f"killed (over its {limit:g} s)"))) as over:
        try:
            result = run_member(Plan.load(path, trust=trust, only=name), name)
            fields = {key: value for key, value in vars(result).items() if key not in ("run", "commands")}
        except KeyboardInterrupt:  # outside the training, which catches signals itself
            fields = ending("interrupted", "signal 2", 130)
        except Exception as error:
            fields = ending("failed", f"{type(error).__name__}: {error}")
    if over.is_set() and fields["status"] == "interrupted":
        fields |= ending("failed", f"stopped (over its {limit:g} s)")
    return write(fields)


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
    die_with(int(parent))
    run(Path(path), name, [word for word in rest if word != "--trust"])


if __name__ == "__main__":
    main(*sys.argv[1:])
