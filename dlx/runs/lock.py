"""run.lock: one process owns a run folder; readers see when its owner is gone."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from dlx.config.errors import UserError

HEARTBEAT_SECONDS = 15
SILENT_SECONDS = 10 * 60  # an owner on another host that is silent for so long is taken for gone


class RunInUse(UserError):
    exit_code = 4


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


class RunLock:
    """Held from `acquire` to `release`. The kernel's lock falls with its process, so a dead owner holds nothing."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "run.lock"
        self._file: Any = None
        self._stop = threading.Event()

    def acquire(self) -> None:
        """Raises RunInUse (exit code 4) when a living process owns the folder."""
        self._file = self.path.open("a+")
        if not self._try():
            self._file.seek(0)
            owner = read_owner(self.path) or {}
            self._file.close()
            raise RunInUse(
                f"{self.path.parent}: in use by process {owner.get('pid', '?')} on {owner.get('host', '?')}"
            ) from None
        self._file.truncate(0)
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "boot": _boot_id(), "start": time.time()}
        self._file.write(json.dumps(owner) + "\n")
        self._file.flush()
        threading.Thread(target=self._beat, daemon=True, name="run-lock").start()

    def _try(self) -> bool:
        """A reader that asks whether somebody holds it (`_is_held`) does so itself for a moment."""
        for wait in (0.01, 0.02, 0.04, 0.08, 0.0):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(wait)
            else:
                return True
        return False

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                os.utime(self.path)
            except FileNotFoundError:  # the folder was deleted under the run
                return

    def release(self) -> None:
        self._stop.set()
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            self._file.close()
            self._file = None


def read_owner(path: Path) -> dict[str, Any] | None:
    try:
        owner = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) and {"pid", "host", "boot"} <= set(owner) else None


def owner_is_alive(folder: Path) -> bool:
    """Whether a process still works on a run folder: on this host the kernel knows, of others the heartbeat tells."""
    path = folder / "run.lock"
    owner = read_owner(path)
    if owner is None:
        return False
    try:
        if owner["host"] != socket.gethostname():
            return time.time() - path.stat().st_mtime < SILENT_SECONDS
        return owner["boot"] == _boot_id() and _is_held(path)
    except FileNotFoundError:  # it was released meanwhile
        return False


def _is_held(path: Path) -> bool:
    """Not by its pid, which another process can have by now."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
