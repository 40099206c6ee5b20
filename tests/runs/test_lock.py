"""One process owns a run folder, on any file system, whatever clocks say; nobody who is gone does."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from dlx.config.errors import UserError
from dlx.runs import lock as locks
from dlx.runs.folder import RunFolder
from dlx.runs.lock import RunInUse, RunLock, owner_is_alive


def contend(folder, seconds, counts):
    """Takes and releases it as often as it can, or leaves it as one that is killed; whoever has it makes a file that
    nobody else may have made."""
    acquired = shared = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        lock = RunLock(folder)
        try:
            lock.acquire()
        except RunInUse:
            continue
        acquired += 1
        try:
            os.close(os.open(folder / "owner", os.O_CREAT | os.O_EXCL))
            os.unlink(folder / "owner")  # noqa: PTH108
        except FileExistsError:
            shared += 1
        if acquired % 3:
            lock.release()
        else:
            (folder / "run.lock").write_text(json.dumps({"pid": 1, "host": socket.gethostname(), "boot": "before"}))
            lock.forget()
    counts.put((acquired, shared))


@pytest.mark.parametrize("flock", [True, False])
def test_under_contention_there_is_one_owner(flock, tmp_path, monkeypatch):
    if not flock:
        refuse_flock(monkeypatch)
    context = multiprocessing.get_context("fork")
    counts = context.Queue()
    processes = [context.Process(target=contend, args=(tmp_path, 1.0, counts)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [counts.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sum(acquired for acquired, _ in found) > 20
    assert sum(shared for _, shared in found) == 0


def refuse_flock(monkeypatch, code=errno.ENOTSUP):
    def flock(descriptor, operation):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(locks, "_warned", type(locks._warned)())


def test_a_lock_that_was_unlinked_and_made_anew_is_the_new_ones(tmp_path, monkeypatch):
    """Between its opening and its locking the owner ends, and another takes the folder."""
    first, other, late = (RunLock(tmp_path) for _ in range(3))
    first.acquire()
    flock, calls = fcntl.flock, []

    def meanwhile(descriptor, operation):
        if not calls:
            calls.append(1)
            first.release()
            other.acquire()
        return flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    with pytest.raises(RunInUse):
        late.acquire()
    other.release()
    late.acquire()
    late.release()


def test_a_forked_child_does_not_keep_it(tmp_path):
    """A loader's worker lives on for a while when its run is killed."""
    ready, go = os.pipe(), os.pipe()
    owner = os.fork()
    if owner == 0:
        lock = RunLock(tmp_path)
        lock.acquire()
        if os.fork() == 0:  # the worker
            os.write(ready[1], b"x")
            os.close(go[1])
            os.read(go[0], 1)
            lock.release()  # it has none
            os._exit(0)
        signal.pause()
    os.read(ready[0], 1)
    with pytest.raises(RunInUse):
        RunLock(tmp_path).acquire()
    assert owner_is_alive(tmp_path)
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    assert not owner_is_alive(tmp_path)
    mine = RunLock(tmp_path)
    mine.acquire()
    os.close(go[1])
    time.sleep(0.1)  # the worker ends, and takes nothing with it
    assert owner_is_alive(tmp_path)
    mine.release()
    assert not (tmp_path / "run.lock").exists()


def of_another_host(folder, age):
    owner = {"pid": 1, "host": "elsewhere", "boot": "x"}
    path = folder / "run.lock"
    path.write_text(json.dumps(owner))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


@pytest.mark.parametrize(("age", "lives"), [(5, True), (-60, True), (500, True), (700, False), (1e9, False)])
def test_another_host_lives_while_it_is_heard_of(age, lives, tmp_path):
    of_another_host(tmp_path, age)
    assert owner_is_alive(tmp_path) == lives
    if lives:
        with pytest.raises(RunInUse, match=r"process 1 on elsewhere, heard of .* s ago; it counts as gone"):
            RunLock(tmp_path).acquire()
        assert json.loads((tmp_path / "run.lock").read_text())["host"] == "elsewhere"
    else:
        lock = RunLock(tmp_path)
        lock.acquire()
        assert json.loads((tmp_path / "run.lock").read_text())["host"] == socket.gethostname()
        lock.release()


@pytest.mark.parametrize("beats", [False, True])
def test_a_time_in_the_future_is_believed_only_if_it_moves(beats, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locks, "WATCH_SECONDS", 0.3)
    path = of_another_host(tmp_path, -3600)
    assert not owner_is_alive(tmp_path)
    if beats:
        sleep = time.sleep

        def beat(seconds):
            sleep(seconds)
            os.utime(path, (time.time() + 3700, time.time() + 3700))

        monkeypatch.setattr(locks.time, "sleep", beat)
        with pytest.raises(RunInUse):
            RunLock(tmp_path).acquire()
    else:
        lock = RunLock(tmp_path)
        lock.acquire()
        lock.release()
    assert "its time is in the future" in capsys.readouterr().err


@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_flock_there_is_a_lock_and_it_is_said_once(code, tmp_path, monkeypatch, capsys):
    refuse_flock(monkeypatch, code)
    run = RunFolder.create(tmp_path, "a", "b")
    run.write_status("running")
    assert run.status()["status"] == "running"
    with pytest.raises(RunInUse, match=str(os.getpid())):
        RunFolder(run.path).lock.acquire()
    said = capsys.readouterr().err
    assert said.count("this file system has no flock") == 1
    owner = json.loads((run.path / "run.lock").read_text())
    run.lock.release()
    assert not (run.path / "run.lock").exists()
    for gone in ({"pid": 2**22 + 1}, {"ticks": "1"}):  # a dead process, and one that has its number
        (run.path / "run.lock").write_text(json.dumps(owner | gone))
        assert run.status()["status"] == "lost"
        lock = RunFolder(run.path).lock
        lock.acquire()
        lock.release()
    assert not capsys.readouterr().err
    assert not [path for path in run.path.iterdir() if path.name.startswith(".run.lock")]


def test_a_lock_is_no_link_and_no_pipe(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("of somebody else")
    for make in (lambda path: path.symlink_to(precious), os.mkfifo, lambda path: path.mkdir()):
        folder = tmp_path / "run"
        folder.mkdir()
        make(folder / "run.lock")
        with pytest.raises(UserError, match=r"run\.lock: it is (a link|no plain file)"):
            RunLock(folder).acquire()
        assert not owner_is_alive(folder)
        assert precious.read_text() == "of somebody else"
        path = folder / "run.lock"
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        folder.rmdir()


def test_a_program_that_is_started_does_not_keep_it(tmp_path):
    code = """
import os, subprocess, sys
from pathlib import Path
from dlx.runs.lock import RunLock
RunLock(Path(sys.argv[1])).acquire()
subprocess.Popen(["sleep", "20"], close_fds=False)
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    lock = RunLock(tmp_path)
    lock.acquire()
    lock.release()
