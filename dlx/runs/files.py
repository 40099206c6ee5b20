"""Files of run folders: written completely or not at all, read only if they are regular files, never through a link."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx.config.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_JSON = 16 << 20  # bytes: no JSON file of a run is larger
MAX_DEPTH = 100  # of lists and objects in each other
BLOCK = 4096  # bytes: what a file system gives a file at least


class NotPlain(OSError):
    """A link, a pipe, a device or a folder instead of a regular file."""


def open_plain(path: Path, flags: int = os.O_RDONLY) -> int:
    """A descriptor of a plain file. Raises NotPlain for a link, which is not followed, and for a pipe or a device,
    which nobody waits for."""
    try:
        _check_mode(path, os.lstat(path).st_mode)  # before it is opened: to open a device can already do something
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:  # it became one meanwhile
            raise NotPlain(error.errno, "it is a link", str(path)) from None
        raise
    try:
        _check_mode(path, os.fstat(descriptor).st_mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_mode(path: Path, mode: int) -> None:
    if stat.S_ISLNK(mode):
        raise NotPlain(errno.ELOOP, "it is a link", str(path))
    if not stat.S_ISREG(mode):
        raise NotPlain(errno.EINVAL, "it is no plain file", str(path))


def read_plain(path: Path, most: int = MAX_JSON) -> bytes:
    """The content of a regular file. Raises OSError for anything else, and for a file larger than `most` bytes."""
    with os.fdopen(open_plain(path), "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
    return content


def is_folder(path: Path) -> bool:
    """True for a folder that is not a link."""
    return path.is_dir() and not path.is_symlink()


def inside(folder: Path, *parts: str) -> Path:
    """The path of an entry of a run folder that is to be written. Raises UserError where it, or a folder on the way to
    it, is a link: a folder from elsewhere may have made it point to anything."""
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise UserError(f"{path}: is a link, and dlx writes through no link of a run folder")
    return path


def fsync_path(path: Path) -> None:
    """Makes a file's content, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all of the data: a disk that fills up shows first as a short write."""
    rest = memoryview(data)
    while len(rest):
        rest = rest[os.write(descriptor, rest) :]


def partial_name(path: Path) -> Path:
    """A name in the same folder for a file or folder that is not complete yet; no other process takes the same.

    It keeps the suffix, by which exporters choose a format.
    """
    return path.with_name(f".{uuid.uuid4().hex[:8]}-{path.name}")


@contextmanager
def atomic_file(path: Path, *, sync: bool = True) -> Iterator[Path]:
    """A path to write to, renamed to `path` at the end and removed if anything fails: `path` is complete or as before.

    Never through $TMPDIR: a rename across file systems is a copy. sync: survives a power cut.
    """
    partial = partial_name(path)
    try:
        yield partial
        if sync:
            fsync_path(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    if sync:
        fsync_path(path.parent)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes content through `atomic_file`."""
    with atomic_file(path) as partial:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            write_all(descriptor, content.encode() if isinstance(content, str) else content)
        finally:
            os.close(descriptor)


def open_to_append(path: Path, access: int = os.O_WRONLY) -> int:
    """A descriptor that appends to a plain file, made if missing. Raises UserError for anything else."""
    try:
        return open_plain(path, access | os.O_APPEND | os.O_CREAT)
    except NotPlain as error:
        raise UserError(f"{path}: {error.strerror}; dlx appends to plain files only") from None


def overwrite(path: Path, content: bytes) -> None:
    """Overwrites a small file in place, which works on a full disk: the file already has its block."""
    assert len(content) <= BLOCK
    descriptor = open_plain(path, os.O_WRONLY)
    try:
        write_all(descriptor, content)
        os.ftruncate(descriptor, len(content))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def no_room(path: Path, error: OSError) -> str:
    """The reason why a write below a path failed, with the free space of the disk if it is full."""
    reason = error.strerror or str(error)
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return reason
    there = path.absolute()
    while not there.exists():
        there = there.parent
    mount = there.resolve()
    while not mount.is_mount():
        mount = mount.parent
    free = os.statvfs(mount)
    return f"{reason}: the disk at {mount} has {free.f_bavail * free.f_frsize / 1e6:.1f} MB free"


def picture_bytes(figure: Figure) -> bytes:
    """A matplotlib figure as PNG."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    return image.getvalue()


def encode_nonfinite(value: Any) -> Any:
    """The value with non-finite numbers as "NaN", "Infinity", "-Infinity", which strict JSON readers take."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: encode_nonfinite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode_nonfinite(item) for item in value]
    return value


NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def decode_nonfinite(metrics: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `encode_nonfinite` for a row of metrics."""
    return {name: NON_FINITE.get(value, value) if isinstance(value, str) else value for name, value in metrics.items()}


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, json.dumps(encode_nonfinite(value), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a regular file. Raises OSError, or ValueError if it is not JSON or nested too deep."""
    try:
        found = json.loads(read_plain(path).decode())
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    waiting = [(found, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ValueError("it is nested too deep")
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        waiting += [(item, depth + 1) for item in inner if isinstance(item, (dict, list))]
    return found


def find_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object; empty if the file is missing or damaged."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object. Raises UserError, one line that names the file."""
    try:
        found = read_json(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: damaged, no JSON ({str(error).splitlines()[0]})") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: damaged, no JSON object")
    return found
