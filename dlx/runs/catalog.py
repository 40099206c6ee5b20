"""Catalog: every run below a folder with its status, metrics and configuration; reads only files that changed.

`dlx runs`, `dlx compare`, `dlx report` and the dashboard all look at runs through it. Nothing here writes to a run
folder but `write_notes`, to a file of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx.config.errors import UserError
from dlx.config.keys import flatten
from dlx.config.root import runs_root
from dlx.config.yaml import FORMAT, read_frozen
from dlx.runs.files import inside, read_json, write_json
from dlx.runs.find import created, plan_of, run_folders
from dlx.runs.folder import RunFolder

if TYPE_CHECKING:
    from dlx.runs.columns import Columns

NOTES = "notes.json"
WATCHED = ("config.yaml", "status.json", "summary.json", "metrics.jsonl", "run.lock", NOTES)
READ = {*WATCHED, "environment.json", "plan.yaml"}
MAX_LEAVES = 2000

Value = str | float | int | bool | None
Files = dict[str, os.DirEntry[str]]


@dataclass(frozen=True)
class Notes:
    """Tags and notes that the user gave a run."""

    tags: tuple[str, ...] = ()
    notes: str = ""


@dataclass(frozen=True)
class Entry:
    """A run, or a plan of many (`is_plan`), as a list shows it.

    id: its path below the catalog's folder, with `/`; plan: the id of the plan that it is a member of. config: by
    dotted keys; the groups' own keys say which option was chosen (`model`: resnet), lists are text as in YAML.
    metrics: the metrics of the summary; before there is one, the newest of each. created: seconds since 1970, from the
    name or the file. monitor: what its best step was chosen by, such as val/accuracy:max.
    """

    id: str
    path: Path
    is_plan: bool
    plan: str | None
    created: float
    config: dict[str, Value] = field(repr=False)
    status: str = "lost"
    reason: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    monitor: str | None = None
    verdict: str | None = None
    notes: Notes = Notes()

    @property
    def name(self) -> str:
        return self.path.name


class Catalog:
    """The entries below `root`, oldest first. `refresh` looks again and reads only what changed since.

    read: reads a config.yaml, such as through a cache; by default `read_config`.
    """

    def __init__(self, root: str | Path, read: Callable[[Path], dict[str, Value]] | None = None) -> None:
        self.root = runs_root(root)
        self._read_config = read or read_config
        self.entries: dict[str, Entry] = {}
        self._seen: dict[str, tuple[Any, ...]] = {}
        self._growing: dict[str, Columns] = {}  # of runs under way: read on from where it stopped

    def refresh(self) -> tuple[set[str], set[str]]:
        """Reads again. Returns the ids that are new or changed, and those that are gone."""
        found = {name: (path, _files(inside)) for name, path, inside in run_folders(self.root)}
        gone = set(self.entries) - set(found)
        for name in gone:
            del self.entries[name], self._seen[name]
            self._growing.pop(name, None)
        changed = set()
        for name, (path, files) in found.items():
            stamp = _stamp(files)
            before = self.entries.get(name)
            if before is not None and stamp == self._seen[name] and _is_settled(before):
                continue
            is_same = before is not None and stamp[0] == self._seen[name][0]  # a resume can change its configuration
            try:
                entry = self._read(name, path, files, before if is_same else None)
            except OSError:  # it went meanwhile
                continue
            except (UserError, ValueError) as error:
                entry = Entry(name, path, False, plan_of(name), 0.0, {}, reason=f"cannot be read: {error}")
            self._seen[name] = stamp
            if entry != before:
                self.entries[name] = entry
                changed.add(name)
        order = sorted(self.entries.values(), key=lambda entry: (entry.created, entry.id))
        self.entries = {entry.id: entry for entry in order}
        return changed, gone

    def rows_stamp(self, name: str) -> Any:
        """A value that changes whenever the metrics.jsonl of that run changed."""
        return self._seen[name][WATCHED.index("metrics.jsonl")]

    def _read(self, name: str, path: Path, files: Files, before: Entry | None) -> Entry:
        for file, item in files.items():  # a reader would follow a link, and wait for a pipe
            if not item.is_file(follow_symlinks=False):
                raise ValueError(f"{file} is not a plain file")
        folder = RunFolder(path)
        entry = (
            before
            if before and before.created
            else Entry(
                id=name,
                path=path,
                is_plan=folder.is_plan,
                plan=plan_of(name),
                created=created(path),
                config=self._read_config(folder.config_path),
            )
        )
        status, summary = folder.status(), folder.summary()
        metrics = _metrics(summary)
        if not summary and not entry.is_plan:
            from dlx.runs.columns import Columns

            columns = self._growing.setdefault(name, Columns(folder.metrics_path))
            columns.refresh()
            metrics = columns.newest()
        if summary or status["status"] != "running":
            self._growing.pop(name, None)
        return replace(
            entry,
            is_plan=folder.is_plan,
            status=status["status"],
            reason=_as_text(status.get("reason")),
            metrics=metrics,
            monitor=_as_text(summary.get("monitor")),
            verdict=_as_text(summary.get("verdict")),
            notes=read_notes(path),
        )


def _is_settled(entry: Entry) -> bool:
    """True if an entry is up to date while its files are: a running run becomes `lost` without any change of them."""
    return entry.status != "running" or RunFolder(entry.path).status()["status"] == "running"


def read_entry(path: Path) -> Entry:
    """The entry of one run folder; its id is the folder's name. Raises UserError naming what cannot be read."""
    try:
        return Catalog(path.parent)._read(path.name, path, _files(os.scandir(path)), None)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def _files(inside: Iterable[os.DirEntry[str]]) -> Files:
    return {item.name: item for item in inside if item.name in READ}


def _stamp(files: Files) -> tuple[Any, ...]:
    stamp: list[Any] = []
    for name in WATCHED:
        try:
            found = files[name].stat(follow_symlinks=False)
            stamp.append((found.st_size, found.st_mtime_ns))
        except (KeyError, OSError):
            stamp.append(None)
    return tuple(stamp)


def _metrics(summary: dict[str, Any]) -> dict[str, float]:
    found = {}
    for name, value in islice(summary.items(), MAX_LEAVES):
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "finished":
            with suppress(OverflowError):  # an int of hundreds of digits
                found[name] = float(value)
    return found


def read_config(path: Path) -> dict[str, Value]:
    """A frozen configuration by dotted keys. Raises UserError naming the file where it is none."""
    content = read_frozen(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a configuration that dlx wrote")
    choices = content.pop("choices", {})
    if not isinstance(choices, dict) or content.pop("format", 0) not in range(FORMAT + 1):
        raise UserError(f"{path}: not a configuration that this dlx wrote")
    values = {str(key): _text(value) for key, value in choices.items()}
    for key, value in flatten(content):
        if not key.endswith("_target_") and key not in values:
            values[key] = _text(value)
        if len(values) >= MAX_LEAVES:
            break
    return values


def _as_text(value: Any) -> str | None:
    return None if value is None else str(value)


def _text(value: Any) -> Value:
    if isinstance(value, list):
        return json.dumps(value) if value else ""
    return value if isinstance(value, (str, int, float, bool)) or value is None else str(value)


def read_notes(path: Path) -> Notes:
    """The notes of a run folder; empty if the file is missing or damaged."""
    try:
        found = read_json(path / NOTES)
        return Notes(tuple(str(tag) for tag in found["tags"]), str(found["notes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Notes()


def write_notes(path: Path, notes: Notes) -> None:
    write_json(inside(path, NOTES), {"tags": list(notes.tags), "notes": notes.notes})
