"""Processes of their own that train, without the seconds that an import of torch takes; and disks that are full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


class Forked:
    """`dlx WORDS` in a copy of this process, whose output goes to files."""

    def __init__(self, words, before) -> None:
        import dlx.cli

        self.pid = os.fork()
        if self.pid:
            return
        code = 99
        try:
            for stream, name in ((1, "forked.out"), (2, "forked.err")):
                os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            sys.argv = ["dlx", *words]
            before()
            dlx.cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)

    def wait(self) -> int:
        """Its exit code; of one that a signal killed, less than 0."""
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def poll(self) -> int | None:
        """As `wait`; None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None


@pytest.fixture
def forked(here):
    """forked("train", ..., before=patch): `before` is called in the new process."""
    return lambda *words, before=lambda: None: Forked(words, before)


class Disk:
    """A small file system. `fill` takes all of it but so many bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fill(self, free: int = 0) -> None:
        filler = os.open(self.path / "filler", os.O_WRONLY | os.O_CREAT)
        try:
            os.lseek(filler, 0, os.SEEK_END)
            while os.write(filler, bytes(4096)):
                pass
        except OSError:
            os.ftruncate(filler, os.fstat(filler).st_size - free)
        finally:
            os.close(filler)

    def clear(self) -> None:
        (self.path / "filler").unlink()


@pytest.fixture
def small_disk(here):
    """A disk of 4 MB at small/, where one can be mounted."""
    path = here / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield Disk(path)
    subprocess.run(["umount", "-l", str(path)], check=False)
