"""RunFolder: the folder of a run, with its configuration, status, metrics and checkpoints."""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx.config import Config
from dlx.config.errors import UserError
from dlx.runs.files import (
    BLOCK,
    decode_nonfinite,
    find_object,
    inside,
    is_folder,
    no_room,
    open_plain,
    overwrite,
    read_object,
    read_plain,
    write_atomic,
    write_json,
)
from dlx.runs.lock import RunLock, owner_is_alive
from dlx.runs.mask import masked_command

if TYPE_CHECKING:
    from collections.abc import Sequence

STATUSES = ("running", "finished", "pruned", "failed", "diverged", "interrupted")
ENDED = ("finished", "pruned", "diverged")  # there is nothing left to resume
FILES = (
    "config.yaml", "status.json", "summary.json", "metrics.jsonl", "system.jsonl", "spec.json", "environment.json",
    "data.json.gz", "run.lock", "log.txt", "notes.json", "wandb.json", "plan.yaml", "points.yaml", "search.yaml",
    "from.yaml", "study.journal", "out_of_fold.npz",
)  # fmt: skip
FOLDERS = (
    "checkpoints", "media", "spec", "plan", "runs", "points", "ensemble", "weights", "targets", "export", "wandb",
)  # fmt: skip
"""The files that dlx writes to a run folder, or deletes from it."""
LINKS_OF_OTHERS = ("wandb",)  # W&B's client makes some itself
MAX_DATA = 256 << 20  # bytes that data.json.gz may unpack to
MAX_SPEC = 64 << 20  # bytes of a file beside spec.json, such as a tokenizer's


def slug(text: str) -> str:
    """A name that is safe as a folder's: letters, digits, '.', '_' and '-', no leading dot or dash, at most 60."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:60].rstrip("-._") or "run"


class RunFolder:
    """A run on disk. The constructor touches no file; `create` makes the folder."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.lock = RunLock(self.path)
        self._made: list[Path] = []  # folders around it that were not there before
        self.config_path = self.path / "config.yaml"
        self.metrics_path = self.path / "metrics.jsonl"
        self.media = self.path / "media"
        self.checkpoints = self.path / "checkpoints"

    @classmethod
    def create(cls, output_root: str | Path, name: str, title: str) -> RunFolder:
        """`<root>/<name>/<UTC date-time>-<title>-<4 random>`, made exclusively and locked."""
        parent = Path(output_root).expanduser() / slug(name)
        while True:
            stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
            try:
                return cls.create_at(parent / f"{stamp}-{slug(title)}-{secrets.token_hex(2)}")
            except FileExistsError:
                continue

    @classmethod
    def create_at(cls, path: Path) -> RunFolder:
        """That folder, locked. Raises FileExistsError where it is there already."""
        folder = cls(path)
        folder._made = [parent for parent in path.parents if not parent.exists()]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except OSError as error:
            if os.path.lexists(path):
                raise
            folder._unmake_parents()
            raise cannot_write(path.parent, error) from error
        with folder.whole_or_gone():
            folder.lock.acquire()
            folder.media.mkdir()
        return folder

    @contextmanager
    def whole_or_gone(self) -> Iterator[None]:
        """Wraps the first writes to a new folder: if one fails, deletes the folder; an OSError becomes a UserError."""
        try:
            yield
        except BaseException as error:
            with suppress(OSError):
                self.lock.release()
            shutil.rmtree(self.path, ignore_errors=True)
            self._unmake_parents()
            if isinstance(error, OSError):
                raise cannot_write(self.path, error) from error
            raise

    def _unmake_parents(self) -> None:
        for parent in self._made:
            with suppress(OSError):  # another run is in it
                parent.rmdir()

    def take(self) -> None:
        """Locks an existing folder to resume its run. Raises UserError for links and files of a wrong kind: the folder
        may come from elsewhere."""
        self.check_own()
        with self.released_on_error():
            self.lock.acquire()

    @contextmanager
    def released_on_error(self) -> Iterator[None]:
        """Wraps the first writes to an existing folder: if one fails, releases the lock; an OSError becomes a
        UserError."""
        try:
            yield
        except BaseException as error:
            with suppress(OSError):
                self.lock.release()
            if isinstance(error, OSError):
                raise UserError(f"{self.path}: cannot be written to ({no_room(self.path, error)})") from error
            raise

    def check_own(self) -> None:
        """Raises UserError for a link, and for a file or folder of the wrong kind, among the names that dlx writes."""
        for item in _entries(self.path):
            if item.name in FILES and not item.is_file(follow_symlinks=False):
                raise UserError(f"{item.path}: {_kind_of(item)}; dlx goes on with plain files only")
            if item.name not in FOLDERS:
                continue
            if not item.is_dir(follow_symlinks=False):
                raise UserError(f"{item.path}: {_kind_of(item)}; dlx goes on with plain folders only")
            links = [inner for inner in _entries(Path(item.path)) if inner.is_symlink()]
            if links and item.name not in LINKS_OF_OTHERS:
                raise UserError(f"{links[0].path}: is a link; dlx follows no link of a run folder")

    def inside(self, *parts: str) -> Path:
        """The path of an entry to write to. Raises UserError if it is behind a link."""
        return inside(self.path, *parts)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def is_plan(self) -> bool:
        """True for the folder of a plan: it holds runs and is not one."""
        return (self.path / "plan.yaml").is_file()

    @cached_property
    def spec(self) -> dict[str, Any]:
        return read_object(self.path / "spec.json")

    def load_config(self, *, trust: Sequence[str] = ()) -> Config:
        """The frozen configuration, checked like a composed one. Raises UserError."""
        return load_frozen(self.config_path, trust=trust)

    def write_config(self, text: str) -> None:
        write_atomic(self.config_path, text)

    def write_spec(self, spec: dict[str, Any], files: Mapping[str, str] | None = None) -> None:
        """files: what belongs beside it, contents by name (a tokenizer)."""
        for name, text in (files or {}).items():
            self.inside("spec").mkdir(exist_ok=True)
            write_atomic(self.inside("spec", name), text)
        write_json(self.path / "spec.json", spec)

    def spec_files(self) -> list[Path]:
        """The files that `write_spec` wrote beside spec.json."""
        folder = self.path / "spec"
        return sorted(path for path in folder.glob("*.*") if not path.name.startswith(".")) if is_folder(folder) else []

    def spec_texts(self) -> dict[str, str]:
        """The contents of `spec_files` by name. Raises UserError naming one that cannot be read."""
        texts = {}
        for path in self.spec_files():
            try:
                texts[path.name] = read_plain(path, MAX_SPEC).decode(errors="replace")
            except OSError as error:
                raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        return texts

    def write_data(self, fingerprint: dict[str, Any]) -> None:
        """Writes the fingerprint of the run's data (dlx/data/fingerprint.py); names of many samples are compressed."""
        content = gzip.compress(json.dumps(fingerprint).encode(), mtime=0)
        write_atomic(self.path / "data.json.gz", content)

    def data(self) -> dict[str, Any]:
        """Reads the file of `write_data`; empty for an older run, or if the file is damaged."""
        try:
            packed = zlib.decompressobj(wbits=31)
            content = packed.decompress(read_plain(self.path / "data.json.gz"), MAX_DATA)
            found = json.loads(content) if packed.eof else None  # else it is cut off, or unpacks to more
        except (OSError, ValueError, RecursionError, zlib.error):
            return {}
        return found if isinstance(found, dict) else {}

    def write_environment(self, command: list[str], forked_from: str | None = None) -> None:
        """forked_from: the run whose weights this one starts from."""
        origin = {"forked_from": forked_from} if forked_from else {}
        write_json(self.path / "environment.json", environment(masked_command(command)) | origin)

    def write_status(self, status: str, reason: str | None = None) -> None:
        """status: one of STATUSES. reason: why it is not running or finished."""
        assert status in STATUSES, status
        path = self.path / "status.json"
        content = {"status": status, "reason": reason, "time": round(time.time(), 3)}
        try:
            write_json(path, content)
        except OSError:
            if not path.is_file():
                raise
            if reason is not None:  # it may be longer than the block that the file has
                content["reason"] = reason.encode("ascii", "replace").decode()[: BLOCK // 2 - 200]
            overwrite(path, json.dumps(content).encode() + b"\n")

    def status(self) -> dict[str, Any]:
        """The content of status.json; `lost` for a running run whose process is gone."""
        path = self.path / "status.json"
        status = find_object(path)
        if status.get("status") not in STATUSES:
            is_there = os.path.lexists(path)
            return {"status": "lost", "reason": "status.json is damaged" if is_there else "no status was written"}
        reason = status.get("reason")
        status["reason"] = reason if reason is None or isinstance(reason, str) else str(reason)
        if status["status"] == "running" and not owner_is_alive(self.path):
            return {**status, "status": "lost", "reason": "its process is gone"}
        return status

    def write_summary(self, summary: dict[str, Any]) -> None:
        write_json(self.path / "summary.json", summary)

    def summary(self) -> dict[str, Any]:
        """The content of summary.json; empty if it is missing or damaged, so that one bad run ends no list of runs."""
        return decode_nonfinite(find_object(self.path / "summary.json"))


def cannot_write(path: Path, error: OSError) -> UserError:
    """The error for a folder that a run cannot be made in."""
    return UserError(f"output_root: cannot write to {path} ({no_room(path, error)})")


def load_frozen(path: Path, *, trust: Sequence[str] = ()) -> Config:
    """Loads the configuration of a run folder. Raises UserError, also for a link."""
    try:
        os.close(open_plain(path))
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise UserError(f"{path}: {'there is no such file' if missing else error.strerror}") from None
    return Config.load(path, trust=trust)


def _entries(path: Path) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _kind_of(item: os.DirEntry[str]) -> str:
    if item.is_symlink():
        return "is a link"
    return "is a folder" if item.is_dir() else "is no plain file" if not item.is_file() else "is no folder"


@cache
def _git_revision() -> str | None:
    """The git revision of the code that this process imported."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


@cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def environment(command: list[str]) -> dict[str, Any]:
    """The machine and the versions of a run. No environment variables: they hold secrets."""
    packages = ("dlx", "torch", "torchvision", "hydra-core", "omegaconf", "numpy")
    return {
        "command": command,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": {package: _version(package) for package in packages},
        "git": _git_revision(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
