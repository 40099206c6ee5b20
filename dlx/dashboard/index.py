"""Index: the runs below a folder for the page: what changed since when, columns by run, who listens."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlx.dashboard.answers import Problem
from dlx.dashboard.cache import ColumnCache, ConfigCache, cache_folder
from dlx.runs.catalog import Catalog, Entry
from dlx.runs.columns import Columns, Curve
from dlx.runs.config_diff import signature
from dlx.runs.files import encode_nonfinite

LOOK_SECONDS = 0.3  # between two looks while somebody listens; ten times as long as a look takes, if that is more
HELD_BYTES = 256 << 20  # of columns; those that were not asked for longest go, and come back from the cache
HELD_RUNS = 400  # a mapped file takes a descriptor each


@dataclass(eq=False)
class Listener:
    """An open page: the version that it has, and the runs with new rows. `wake` is called in the index's thread when
    there is news."""

    version: int
    wake: Callable[[], None]
    rows: set[str] = field(default_factory=set)


@dataclass(eq=False)
class _Held:
    columns: Columns | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Index:
    """Thread-safe: `entries` is replaced, never changed. It looks again on request, and by itself while one listens."""

    def __init__(self, root: Path, cache: Path | None = None) -> None:
        folder = cache or cache_folder()
        self.root = root
        self.configs = ConfigCache(folder, root)
        self.columns_cache = ColumnCache(folder)
        self.catalog = Catalog(root, read=self.configs)
        self.entries: dict[str, Entry] = {}
        # Versions of an earlier start are less than any of this one.
        self.version = self._first_version = int(time.time() * 1000)
        self.closed = False
        self._json: dict[str, bytes] = {}
        self._changed: dict[str, int] = {}
        self._gone: dict[str, int] = {}
        self._rows: dict[str, Any] = {}
        self._looking = threading.Lock()
        self._looked = 0.0
        self._took = 0.0
        self._listeners: list[Listener] = []
        self._state = threading.RLock()
        self._wanted = threading.Event()
        self._columns: OrderedDict[str, _Held] = OrderedDict()
        threading.Thread(target=self._watch, daemon=True, name="dashboard-index").start()

    def close(self) -> None:
        self.closed = True
        self._wanted.set()
        self.configs.save()
        with self._state:
            for listener in self._listeners:
                listener.wake()

    # What changed

    def look(self, *, within: float = LOOK_SECONDS) -> None:
        """Refreshes the catalog, unless that was done less than `within` seconds ago."""
        asked = time.monotonic()
        with self._looking:
            # One who waited here while another looked has what it asked for only if that look began later.
            if self._looked > 0 and self._looked >= asked - within:
                return
            begin = time.monotonic()
            self.catalog.refresh()
            entries = dict(self.catalog.entries)
            changed = [name for name, entry in entries.items() if self.entries.get(name) is not entry]
            gone = set(self.entries) - set(entries)
            stamps = {name: self.catalog.rows_stamp(name) for name in entries}
            grown = {name for name, stamp in stamps.items() if name in self._rows and self._rows[name] != stamp}
            self._rows = stamps
            self._looked, self._took = begin, time.monotonic() - begin
            texts = {name: _text(run_json(entries[name])) for name in changed}
            self._publish(entries, texts, gone, grown)
        if changed:
            self.configs.save()

    def _publish(self, entries: dict[str, Entry], texts: dict[str, bytes], gone: set[str], grown: set[str]) -> None:
        with self._state:
            self.entries = entries
            if texts or gone:
                self.version += 1
            for name in texts:
                self._changed[name] = self.version
                self._gone.pop(name, None)
            self._json |= texts
            for name in gone:
                self._gone[name] = self.version
                del self._json[name], self._changed[name]
                self._columns.pop(name, None)
            for listener in self._listeners:
                listener.rows |= grown
                if texts or gone or grown:
                    listener.wake()

    def changes(self, since: int | None = None) -> tuple[int, list[bytes], list[str]]:
        """The version now, and after version `since`: the runs that changed, as JSON, and the ids that are gone."""
        with self._state:
            if since is None or since < self._first_version:
                runs = [self._json[name] for name in self.entries]
                return self.version, runs, [] if since is None else list(self._gone)
            runs = [self._json[name] for name in self.entries if self._changed[name] > since]
            return self.version, runs, [name for name, version in self._gone.items() if version > since]

    def listen(self, wake: Callable[[], None]) -> Listener:
        with self._state:
            listener = Listener(self.version, wake)
            self._listeners.append(listener)
            self._wanted.set()
            return listener

    def leave(self, listener: Listener) -> None:
        with self._state:
            self._listeners.remove(listener)

    def take_rows(self, listener: Listener) -> list[str]:
        with self._state:
            rows, listener.rows = listener.rows, set()
            return sorted(rows)

    def _watch(self) -> None:
        self.columns_cache.prune()
        while not self.closed:
            with self._state:
                if not self._listeners:
                    self._wanted.clear()
            self._wanted.wait()
            if self.closed:
                return
            try:
                self.look(within=0)
            except Exception:  # whatever it is, pages that listen must not go silent for it
                logging.getLogger(__name__).exception("looking at %s failed", self.root)
            time.sleep(max(LOOK_SECONDS, 10 * self._took))

    # Curves

    def names(self, entry: Entry) -> list[str]:
        """The metrics of a run."""
        return self._with_columns(entry, lambda columns: columns.names)

    def curve(self, entry: Entry, metric: str, axis: str) -> Curve:
        return self._with_columns(entry, lambda columns: columns.curve(metric, axis))

    def _with_columns(self, entry: Entry, ask: Callable[[Columns], Any]) -> Any:
        path = entry.path / "metrics.jsonl"
        with self._state:
            held = self._columns.setdefault(entry.id, _Held())
            self._columns.move_to_end(entry.id)
        with held.lock:
            fresh = held.columns is None
            columns = held.columns or self.columns_cache.load(path)
            if columns.refresh() and self.columns_cache.save(columns):
                # From here on the arrays are the file's pages, which the system may drop, not this process' memory.
                columns = self.columns_cache.load(path)
                columns.refresh()
            held.columns = columns
            answer = ask(columns)
        if fresh:
            self._drop()
        return answer

    def _drop(self) -> None:
        with self._state:
            sizes = {name: held.columns.nbytes if held.columns else 0 for name, held in self._columns.items()}
            total = sum(sizes.values())
            for name in list(self._columns)[:-1]:
                if total <= HELD_BYTES and len(self._columns) <= HELD_RUNS:
                    break
                total -= sizes[name]
                del self._columns[name]


def one(index: Index, name: Any) -> Entry:
    entry = index.entries.get(name) if isinstance(name, str) else None
    if entry is None:
        raise Problem(404, "no such run")
    return entry


def run_json(entry: Entry) -> dict[str, Any]:
    """A run as the page takes it. signature: the same for repeats, as long as this process lives."""
    return {
        "id": entry.id, "name": entry.name, "plan": entry.plan, "is_plan": entry.is_plan, "created": entry.created,
        "status": entry.status, "reason": entry.reason, "verdict": entry.verdict, "monitor": entry.monitor,
        "config": entry.config, "metrics": entry.metrics, "tags": list(entry.notes.tags), "notes": entry.notes.notes,
        "signature": f"{hash(signature(entry.config)):x}",
    }  # fmt: skip


def _text(value: dict[str, Any]) -> bytes:
    try:
        return json.dumps(value, allow_nan=False).encode()
    except ValueError:  # rare, and to look for it takes longer than to write
        return json.dumps(encode_nonfinite(value), allow_nan=False).encode()
