"""Media and texts of run folders, read so that nothing outside the folder of runs can be meant.

The page names a medium by a key that was handed out before, never by a path.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import math
import os
import secrets
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from dlx.runs.files import encode_nonfinite, open_plain
from dlx.runs.media import (
    BEGINNINGS,
    MAX_BYTES,
    MAX_LINES,
    MAX_ROWS,
    Kind,
    MediaFile,
    files_in,
    numeric_columns,
    read_curve,
    read_table,
    read_text,
)

TYPES: dict[Kind, str] = {
    "image": "image/png", "animation": "image/gif", "text": "text/plain; charset=utf-8", "curve": "application/json",
    "table": "application/json",
}  # fmt: skip
MAX_COLUMNS = 100
LOG_BYTES = 64 << 10  # of the end of a log that are shown first
LOG_STEP = 512 << 10  # at most, at once


def read_inside(root: Path, path: Path, limit: int, offset: int = 0) -> tuple[bytes, int]:
    """At most `limit` bytes of a plain file below `root`, and its size.

    Raises OSError for what is none: a link, a pipe, a device, or a path that a link leads out of `root`.
    """
    if not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(root)):
        raise FileNotFoundError(path)
    with os.fdopen(open_plain(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(offset)
        return file.read(limit), size


class Media:
    """The media that were listed, by key. A file that changes has another key, so that a browser may keep it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._secret = secrets.token_bytes(16)
        self._files: dict[str, MediaFile] = {}

    def of(self, run: str, folder: Path) -> list[dict[str, Any]]:
        """Of a run's media/. What belongs to no step has None."""
        found = []
        for file in files_in(folder / "media"):
            try:
                about = file.path.stat(follow_symlinks=False)
            except OSError:  # gone meanwhile
                continue
            text = f"{file.path}\0{about.st_mtime_ns}\0{about.st_size}"
            key = hashlib.blake2b(os.fsencode(text), key=self._secret, digest_size=16).hexdigest()
            self._files[key] = file
            found.append({"run": run, "name": file.name, "step": file.step, "kind": file.kind, "url": f"/media/{key}"})
        return found

    def read(self, key: str) -> tuple[bytes, str]:
        """What the page shows of a medium, and its type. Raises OSError for a picture that is none, and for all else
        that was not listed. Curves and tables are JSON with what is shown of them, or with `problem`."""
        file = self._files.get(key)
        if file is None:
            raise FileNotFoundError(key)
        limit = MAX_BYTES[file.kind]
        content, size = read_inside(self.root, file.path, limit)
        if file.kind == "text":
            content = read_text(content, size).encode()
        elif file.kind in ("curve", "table"):
            content = json.dumps(encode_nonfinite(_data(file.kind, content, size)), allow_nan=False).encode()
        elif size > limit or not content.startswith(BEGINNINGS[file.kind]):
            raise FileNotFoundError(file.path)
        return content, TYPES[file.kind]


def _data(kind: Kind, content: bytes, size: int) -> dict[str, Any]:
    """Of a curve: lines, x, y, title, and `count`, how many lines there are. Of a table: columns, rows, `numbers` (the
    columns that hold numbers), and how many rows (`count`) and columns (`wide`) there are."""
    if size > len(content):
        return {"problem": f"the file has {size / 1e6:,.0f} MB"}
    try:
        if kind == "curve":
            curve = read_curve(content)
            lines = {name: [finite(part) for part in line] for name, line in islice(curve.lines.items(), MAX_LINES)}
            return {"lines": lines, "x": curve.x, "y": curve.y, "title": curve.title, "count": len(curve.lines)}
        table = read_table(content)
    except ValueError as error:
        return {"problem": str(error)}
    return {
        "columns": table.columns[:MAX_COLUMNS],
        "rows": [row[:MAX_COLUMNS] for row in table.rows[:MAX_ROWS]],
        "numbers": [i for i in numeric_columns(table) if i < MAX_COLUMNS],
        "count": len(table.rows),
        "wide": len(table.columns),
    }


def finite(values: Sequence[float]) -> list[float | None]:
    """The values for JSON: None for NaN and infinities."""
    return [value if math.isfinite(value) else None for value in values]


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
