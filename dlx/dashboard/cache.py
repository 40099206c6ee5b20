"""Cache on disk: columns of metrics.jsonl and flattened configurations.

Safe to delete at any time; a file that is damaged, or of another run, counts as not there, and a disk that cannot be
written means a slower start, no more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from dlx.runs.catalog import Value, read_config
from dlx.runs.columns import Columns
from dlx.runs.files import atomic_file

MAGIC = b"dlxcols1"
WORTH = 128 << 10  # bytes of metrics.jsonl: less is read faster anew than from here
KEPT_SECONDS = 30 * 24 * 3600  # a file that nobody used for so long goes
TYPES: dict[str, np.dtype[Any]] = {"i4": np.dtype(np.int32), "f8": np.dtype(np.float64)}


def cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home and Path(home).is_absolute() else Path.home() / ".cache") / "dlx" / "dashboard"


class ColumnCache:
    """One file a run: MAGIC, length and crc32 of all that follows, length of the header, JSON header, arrays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._saved: dict[Path, int] = {}  # bytes of metrics.jsonl that its file covers

    def _file(self, path: Path) -> Path:
        return self.folder / f"{_key(path)}.columns"

    def load(self, path: Path) -> Columns:
        """The columns of a metrics.jsonl as far as they are known, memory-mapped; `refresh` them before use."""
        columns = Columns(path)
        cached = self._file(path)
        try:
            inode = path.lstat().st_ino
            header, arrays = _read(cached)
            if header["path"] != os.path.realpath(path) or header["inode"] != inode:
                return columns
            columns.restore(arrays, inode=inode, offset=header["offset"], tail=bytes.fromhex(header["tail"]))
            os.utime(cached)
            self._saved[path] = columns.offset
        except (OSError, ValueError, KeyError, TypeError, struct.error):
            return Columns(path)
        return columns

    def save(self, columns: Columns) -> bool:
        """Where it is worth it: after much more was read than the file covers."""
        before = self._saved.get(columns.path, 0)
        if columns.stamp is None or columns.offset - before < max(WORTH, before // 4):
            return False
        header: dict[str, Any] = {
            "path": os.path.realpath(columns.path), "inode": columns.stamp[0], "offset": columns.offset,
            "tail": columns.tail.hex(), "arrays": [],
        }  # fmt: skip
        parts: list[bytes] = []
        at = 0
        for name, arrays in columns.arrays().items():
            spans = []
            for array in arrays:
                kind = "i4" if array.dtype == np.int32 else "f8"
                data = array.astype(TYPES[kind], copy=False).tobytes()
                spans.append([kind, at, len(array)])
                parts.append(data + bytes(-len(data) % 8))
                at += len(parts[-1])
            header["arrays"].append([name, spans])
        head = json.dumps(header).encode()
        head += b" " * (-(len(head) + 4) % 8)
        body = b"".join([struct.pack("<I", len(head)), head, *parts])
        with contextlib.suppress(OSError):
            _replace(self._file(columns.path), MAGIC + struct.pack("<QII", len(body), zlib.crc32(body), 0) + body)
            self._saved[columns.path] = columns.offset
            return True
        return False

    def prune(self) -> None:
        """Deletes cache files that were not used for a month."""
        with contextlib.suppress(OSError):
            for item in list(os.scandir(self.folder)):
                if time.time() - item.stat(follow_symlinks=False).st_mtime > KEPT_SECONDS:
                    Path(item.path).unlink()


def _read(cached: Path) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]]:
    """Raises ValueError or a similar error for a file that `save` did not write."""
    with cached.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = len(MAGIC) + 16
    size, checksum, _ = struct.unpack_from("<QII", mapped, len(MAGIC))
    view = memoryview(mapped)
    if mapped[: len(MAGIC)] != MAGIC or len(mapped) != start + size or zlib.crc32(view[start:]) != checksum:
        raise ValueError(f"{cached}: not a cache of columns")
    (length,) = struct.unpack_from("<I", mapped, start)
    body = start + 4 + length
    header = json.loads(mapped[start + 4 : body])
    arrays = {
        name: [np.frombuffer(mapped, TYPES[kind], count, body + at) for kind, at, count in spans]
        for name, spans in header["arrays"]
    }
    return header, arrays


class ConfigCache:
    """Flattened configurations below one folder, in one file: 1,000 of them are parsed in seconds and read in
    milliseconds. Called with the path of a config.yaml."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.cached = folder / f"{_key(root)}.configs.json"
        self._root = root
        self._known: dict[str, tuple[list[int], dict[str, Value]]] = {}
        self._added = 0
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            found = json.loads(self.cached.read_bytes())
            if found["root"] == os.path.realpath(root):
                self._known = {
                    str(name): (list(stamp), dict(config)) for name, (stamp, config) in found["runs"].items()
                }

    def __call__(self, path: Path) -> dict[str, Value]:
        found = path.lstat()
        stamp = [found.st_ino, found.st_size, found.st_mtime_ns]
        name = str(path.relative_to(self._root))
        known = self._known.get(name)
        if known and known[0] == stamp:
            return known[1]
        config = read_config(path)
        self._known[name] = (stamp, config)
        self._added += 1
        return config

    def save(self) -> None:
        if not self._added:
            return
        self._added = 0
        runs = {name: known for name, known in self._known.items() if (self._root / name).is_file()}
        with contextlib.suppress(OSError):
            _replace(self.cached, json.dumps({"root": os.path.realpath(self._root), "runs": runs}).encode())


def _key(path: Path) -> str:
    return hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]


def _replace(path: Path, data: bytes) -> None:
    """Not synced: a file that a power cut damaged has another checksum, or is not JSON."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with atomic_file(path, sync=False) as partial:
        partial.write_bytes(data)
