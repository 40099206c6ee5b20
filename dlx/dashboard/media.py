"""Pictures and texts of run folders, read so that nothing outside the folder of runs can be meant.

The page names a picture by a key that was handed out before, never by a path.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Any

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp")
BEGINNINGS = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
)
MAX_PICTURE = 64 << 20
LOG_BYTES = 64 << 10  # of the end of a log that are shown first
LOG_STEP = 512 << 10  # at most, at once


def read_inside(root: Path, path: Path, limit: int, offset: int = 0) -> tuple[bytes, int]:
    """At most `limit` bytes of a plain file below `root`, and its size.

    Raises OSError for what is none: a link, a pipe, a device, or a path that a link leads out of `root`.
    """
    if not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(root)):
        raise FileNotFoundError(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(path)
        file.seek(offset)
        return file.read(limit), found.st_size


class Pictures:
    """The pictures that were listed, by key. A file that changes has another key, so that a browser may keep it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._secret = secrets.token_bytes(16)
        self._paths: dict[str, Path] = {}

    def of(self, run: str, folder: Path) -> list[dict[str, Any]]:
        """Of a run's media/, by name and step. A name without a step has None."""
        media = folder / "media"
        found = []
        try:
            inside = [] if media.is_symlink() else list(os.scandir(media))
        except OSError:
            return []
        for item in sorted(inside, key=lambda item: item.name):
            if item.name.startswith(".") or not item.name.lower().endswith(SUFFIXES):
                continue
            if not item.is_file(follow_symlinks=False):
                continue
            about = item.stat(follow_symlinks=False)
            text = f"{item.path}\0{about.st_mtime_ns}\0{about.st_size}"
            key = hashlib.blake2b(os.fsencode(text), key=self._secret, digest_size=16).hexdigest()
            self._paths[key] = Path(item.path)
            stem = Path(item.name).stem
            named = re.fullmatch(r"(.+)-(\d{1,15})", stem)
            name, step = (named[1], int(named[2])) if named else (stem, None)
            found.append({"run": run, "name": name, "step": step, "url": f"/media/{key}"})
        return found

    def read(self, key: str) -> tuple[bytes, str]:
        """A picture and its type, by what it begins with. Raises OSError for all else."""
        path = self._paths.get(key)
        if path is None:
            raise FileNotFoundError(key)
        data, size = read_inside(self.root, path, MAX_PICTURE)
        kind = next((kind for beginning, kind in BEGINNINGS if beginning.match(data)), None)
        if kind is None or size > MAX_PICTURE:
            raise FileNotFoundError(path)
        return data, kind


def read_log(root: Path, path: Path, offset: int) -> dict[str, Any]:
    """Text from a byte offset on, and where to go on; a negative offset: the last lines."""
    size = read_inside(root, path, 0)[1]
    begin = max(0, size - LOG_BYTES) if offset < 0 else offset if offset <= size else 0
    data, _ = read_inside(root, path, LOG_STEP, begin)
    if offset < 0 and begin > 0:  # begin with a whole line
        cut = data.find(b"\n") + 1
        begin, data = begin + cut, data[cut:]
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    waiting = len(decoder.getstate()[0])  # bytes of a character that is not whole yet
    return {"text": text, "next": begin + len(data) - waiting}
