"""run.lock: one process owns a run folder; readers see whether the owner still lives."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
import weakref
from pathlib import Path
from typing import Any

from dlx.config.errors import UserError
from dlx.config.screen import note
from dlx.runs.files import NotPlain, open_plain, read_plain

HEARTBEAT_SECONDS = 15.0
SILENT_SECONDS = 10 * 60.0  # an owner on another host that is silent for so long is taken for gone
WATCH_SECONDS = 2.2 * HEARTBEAT_SECONDS
BEGUN_SECONDS = 10.0  # that a lock without an owner's name in it may be one that is being written
MAX_BYTES = 4096
NO_FLOCK = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOLCK)  # of some network file systems


class RunInUse(UserError):
    exit_code = 4


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def _started(pid: int) -> str:
    """The start of a process in the kernel's ticks, which differs for a later process with the same pid; empty if the
    system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


_held: weakref.WeakSet[RunLock] = weakref.WeakSet()
_warned = threading.Event()  # that a file system has no flock


def _let_go_in_child() -> None:
    for lock in list(_held):
        lock.forget()


# flock belongs to the open file, which a forked child shares: a loader's worker would hold the lock of a run that was
# killed for as long as it lives. (Descriptors are closed at exec anyway; a child that closes its own frees nothing.)
os.register_at_fork(after_in_child=_let_go_in_child)


class RunLock:
    """Held from `acquire` to `release`. The kernel's lock falls with its process, so a dead owner holds nothing."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "run.lock"
        self._descriptor: int | None = None
        self._stop = threading.Event()

    def acquire(self) -> None:
        """Raises RunInUse (exit code 4) when a living process owns the folder, and OSError where nothing can be written
        to it."""
        if self._descriptor is not None:
            raise self._in_use()
        try:
            while self._descriptor is None:
                self._descriptor = self._try()
        except NotPlain as error:
            raise UserError(f"{self.path}: {error.strerror}; dlx follows no link of a run folder") from None
        _held.add(self)
        try:
            self._write_owner()
        except BaseException:
            self.release()
            raise
        self._stop = threading.Event()
        threading.Thread(target=self._beat, args=(self._stop,), daemon=True, name="run-lock").start()

    def _try(self) -> int | None:
        """The descriptor of the locked file; None if the file was deleted or replaced meanwhile: try again."""
        flags = os.O_RDWR | os.O_CREAT
        try:
            descriptor, is_new = open_plain(self.path, flags | os.O_EXCL), True
        except FileExistsError:
            try:
                descriptor, is_new = open_plain(self.path, os.O_RDWR), False
            except FileNotFoundError:
                return None
        try:
            locked = self._flock(descriptor)
            if locked is None and not is_new:
                self._take_over()  # there it is the file that is the lock: it is made anew
                os.close(descriptor)
                return None
            if locked is False:
                raise self._in_use()
            if not self._is_ours(descriptor):  # its owner unlinked it before we had it: another file is the lock now
                os.close(descriptor)
                return None
            if not is_new:
                self._check_other_host(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _flock(self, descriptor: int) -> bool | None:
        """Whether it is locked now; None where the file system has no flock. A reader that asks whether somebody holds
        it (`_is_held`) does so itself for a moment."""
        for wait in (0.01, 0.02, 0.04, 0.08, 0.0):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(wait)
            except OSError as error:
                if error.errno not in NO_FLOCK:
                    raise
                if not _warned.is_set():
                    _warned.set()
                    note(
                        f"warning: {self.path.parent}: this file system has no flock ({error.strerror}); the run is "
                        "kept from other processes by the file run.lock alone"
                    )
                return None
            else:
                return True
        return False

    def _is_ours(self, descriptor: int) -> bool:
        """True if the path is still the file that was locked."""
        try:
            there = os.lstat(self.path)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(descriptor))

    def _take_over(self) -> None:
        """Without flock: deletes a lock whose owner is gone. Raises RunInUse if the owner lives.

        Only the process that made the guard file may delete another's lock, and it reads the lock again first: so the
        lock cannot get a new owner between the look and the deletion.
        """
        guard = self.path.with_name(".run.lock.guard")
        try:
            os.close(open_plain(guard, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if _age(guard) > BEGUN_SECONDS:  # it is needed for a moment: its maker was killed in it
                    guard.unlink()
            raise self._in_use() from None
        try:
            owner = read_owner(self.path)
            if _age(self.path) < BEGUN_SECONDS if owner is None else _lives(owner, self.path):
                raise self._in_use()
            self.path.unlink()
        except FileNotFoundError:  # its owner released it
            pass
        finally:
            guard.unlink(missing_ok=True)

    def _check_other_host(self, descriptor: int) -> None:
        """Raises RunInUse where the owner is on another host and alive: not every shared file system tells hosts of
        each other's locks.

        An age below 0 is a difference of clocks. Within SILENT_SECONDS it says nothing. Beyond, no clock can be
        trusted, and the file may come from anywhere: then the heartbeat is watched, which needs no clock.
        """
        owner = read_owner(self.path)
        if owner is None or owner["host"] == socket.gethostname():
            return
        beat = os.fstat(descriptor).st_mtime
        age = time.time() - beat
        if age <= -SILENT_SECONDS:
            note(f"{self.path}: its time is in the future; looking for {WATCH_SECONDS:.0f} s whether its owner lives")
            until = time.monotonic() + WATCH_SECONDS
            while time.monotonic() < until:
                time.sleep(min(0.5, WATCH_SECONDS))
                if os.fstat(descriptor).st_mtime != beat:
                    raise self._in_use()
        elif age < SILENT_SECONDS:
            raise self._in_use(f", heard of {max(0.0, age):.0f} s ago; it counts as gone after {SILENT_SECONDS:.0f} s")

    def _in_use(self, further: str = "") -> RunInUse:
        owner = read_owner(self.path)
        who = f"process {owner['pid']} on {owner['host']}" if owner else "another process"
        return RunInUse(f"{self.path.parent}: in use by {who}{further}")

    def _write_owner(self) -> None:
        assert self._descriptor is not None
        pid = os.getpid()
        owner = {
            "pid": pid, "host": socket.gethostname(), "boot": _boot_id(), "start": time.time(), "ticks": _started(pid),
        }  # fmt: skip
        data = json.dumps(owner).encode() + b"\n"
        if os.pwrite(self._descriptor, data, 0) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(self._descriptor, len(data))

    def _beat(self, stop: threading.Event) -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            try:
                os.utime(self.path, follow_symlinks=False)
            except FileNotFoundError:  # the folder was deleted under the run
                return
            except OSError:  # a network file system that is away for a while
                continue

    def release(self) -> None:
        self._stop.set()
        _held.discard(self)
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        try:
            if self._is_ours(descriptor):
                self.path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def forget(self) -> None:
        """In a forked child: the lock is its parent's."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def read_owner(path: Path) -> dict[str, Any] | None:
    try:
        owner = json.loads(read_plain(path, MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    known = isinstance(owner, dict) and {"pid", "host", "boot"} <= set(owner)
    return owner if known and isinstance(owner["pid"], int) and isinstance(owner["host"], str) else None


def owner_is_alive(folder: Path) -> bool:
    """Whether a process still works on a run folder: on this host the kernel knows, of others the heartbeat tells.

    A heartbeat that is further in the future than SILENT_SECONDS is none: a list of runs cannot wait to see it move, as
    `acquire` does, and files get such times by being copied.
    """
    path = folder / "run.lock"
    owner = read_owner(path)
    try:
        return owner is not None and _lives(owner, path)
    except OSError:  # it was released meanwhile
        return False


def _lives(owner: dict[str, Any], path: Path) -> bool:
    """Raises OSError where its lock is gone meanwhile."""
    if owner["host"] != socket.gethostname():
        return abs(_age(path)) < SILENT_SECONDS or _is_held(path) is True
    if owner["boot"] != _boot_id():
        return False
    held = _is_held(path)
    return _process_lives(owner) if held is None else held


def _age(path: Path) -> float:
    """Seconds since the lock was written; negative if clocks differ."""
    return time.time() - os.lstat(path).st_mtime


def _is_held(path: Path) -> bool | None:
    """Not by its pid, which another process can have by now; None where the file system has no flock."""
    descriptor = open_plain(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def _process_lives(owner: dict[str, Any]) -> bool:
    pid, ticks = owner["pid"], owner.get("ticks")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return not ticks or _started(pid) in ("", ticks)
