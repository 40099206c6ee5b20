"""A member of a plan in a process of its own: python -m dlx.sweeps.worker PLAN NAME PARENT [--trust PKG]..."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """The kernel ends this process when its parent is gone, however that ends (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before
            os._exit(1)


def main(plan_path: str, name: str, parent: str, *rest: str) -> None:
    die_with(int(parent))

    from dlx.runs.files import write_json
    from dlx.sweeps.executors import run_member
    from dlx.sweeps.plan import Plan

    trust = [word for word in rest if word != "--trust"]
    result = run_member(Plan.load(Path(plan_path), trust=trust, only=name), name)
    fields = {key: value for key, value in vars(result).items() if key != "run"}
    write_json(Path(plan_path) / "plan" / f"{name}.result.json", fields)


if __name__ == "__main__":
    main(*sys.argv[1:])
