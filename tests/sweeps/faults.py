"""A model with faults, and people who meddle with a sweep while it runs."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

FAULTY = """
import os, signal, time, sys
from pathlib import Path
from dlx.tasks.supervised import Supervised
from dlx.tasks.spec import LabeledImages
from torch import nn


class Faulty(Supervised):
    def __init__(self, *, spec: LabeledImages, fault: str = "none", loss: str | None = None) -> None:
        super().__init__(spec=spec, loss=loss)
        self.fault = fault
        self.linear = nn.Linear(self.num_features, self.num_outputs)

    def forward(self, x):
        return self.linear(x.flatten(1))

    def showcase(self, batch):  # drawing takes longer than these trainings
        return {}

    def after_step(self, step):
        if self.fault == "wait" and step == 4:
            Path(f"waits-{os.getpid()}").touch()
            signals = signal.getsignal(signal.SIGTERM).__self__  # of the training
            while not Path("go").exists() and not signals.received:
                time.sleep(0.02)
        if step != 2 or self.fault == "none":
            return
        if self.fault == "crash":
            raise RuntimeError("out of ideas")
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "hang":
            sys.modules["__main__"].GRACE_SECONDS = 1.0  # of the worker, where this is one
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
"""


def wait_until(holds, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"it does not hold after {seconds:g} s")
        time.sleep(0.1)


class Meanwhile:
    """`act(sweep's folder)` in a thread, once `count` members wait in their fifth step; then all may go on."""

    def __init__(self, here: Path, count: int, act) -> None:
        self.here, self.count, self.act = here, count, act
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            wait_until(lambda: len(list(self.here.glob("waits-*"))) == self.count)
            (folder,) = self.here.glob("outputs/sweep/*")
            self.act(folder)
        except BaseException as error:
            self.error = error
        finally:
            (self.here / "go").touch()

    def __enter__(self) -> Meanwhile:
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.thread.join()
        (self.here / "go").unlink()
        if self.error:
            raise self.error


def pid_of(folder: Path, member: str) -> int:
    """The process that trains a member."""
    (path,) = folder.glob(f"runs/{member}*/run.lock")
    return json.loads(path.read_text())["pid"]


def statuses(folder: Path) -> list[str]:
    """Of the members that began."""
    return [json.loads(path.read_text())["status"] for path in sorted(folder.glob("runs/*/status.json"))]


def resumed_at(folder: Path, member: str) -> list[int]:
    """The steps from which a member went on."""
    (path,) = folder.glob(f"runs/{member}*/metrics.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row["step"] for row in rows if row.get("_event") == "resume"]
