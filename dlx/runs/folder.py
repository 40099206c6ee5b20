"""RunFolder: where a run keeps what it was asked, what it did and what came out."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from dlx.config.errors import UserError
from dlx.runs.files import loosened, read_json, write_atomic, write_json
from dlx.runs.lock import RunLock, owner_is_alive

STATUSES = ("running", "finished", "pruned", "failed", "diverged", "interrupted")
ENDED = ("finished", "pruned", "diverged")  # by themselves: nothing is left to go on with


def slug(text: str) -> str:
    """A name that is safe as a folder's: letters, digits, '.', '_' and '-', no leading dot or dash, at most 60."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:60].rstrip("-._") or "run"


class RunFolder:
    """A run on disk. Making one of these touches nothing; `create` makes the folder."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.lock = RunLock(self.path)

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
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"output_root: cannot write to {path.parent} ({error.strerror})") from error
        try:
            path.mkdir()
        except PermissionError as error:
            raise UserError(f"output_root: cannot write to {path.parent} ({error.strerror})") from error
        folder = cls(path)
        folder.lock.acquire()
        folder.media.mkdir()
        return folder

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def is_plan(self) -> bool:
        """Whether it holds many runs, and is none itself."""
        return (self.path / "plan.yaml").is_file()

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def media(self) -> Path:
        return self.path / "media"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @cached_property
    def spec(self) -> dict[str, Any]:
        return read_json(self.path / "spec.json")

    def write_config(self, text: str) -> None:
        write_atomic(self.config_path, text)

    def write_spec(self, spec: dict[str, Any], files: Mapping[str, str] | None = None) -> None:
        """files: what belongs beside it, contents by name (a tokenizer)."""
        for name, text in (files or {}).items():
            (self.path / "spec").mkdir(exist_ok=True)
            write_atomic(self.path / "spec" / name, text)
        write_json(self.path / "spec.json", spec)

    def spec_files(self) -> list[Path]:
        """What `write_spec` left beside spec.json."""
        return sorted(path for path in (self.path / "spec").glob("*.*") if not path.name.startswith("."))

    def write_environment(self, command: list[str], forked_from: str | None = None) -> None:
        """forked_from: the run whose weights this one begins with."""
        origin = {"forked_from": forked_from} if forked_from else {}
        write_json(self.path / "environment.json", environment(command) | origin)

    def write_status(self, status: str, reason: str | None = None) -> None:
        """One of STATUSES, with the reason for all that is not as it should be."""
        assert status in STATUSES, status
        write_json(self.path / "status.json", {"status": status, "reason": reason, "time": round(time.time(), 3)})

    def status(self) -> dict[str, Any]:
        """What status.json says; `lost` for a run whose owner is gone without a word."""
        path = self.path / "status.json"
        if not path.exists():
            return {"status": "lost", "reason": "no status was written"}
        try:
            status = read_json(path)
            assert status["status"] in STATUSES
        except (ValueError, KeyError, TypeError, AssertionError):
            return {"status": "lost", "reason": "status.json is damaged"}
        if status["status"] == "running" and not owner_is_alive(self.path):
            return {**status, "status": "lost", "reason": "its process is gone"}
        return status

    def write_summary(self, summary: dict[str, Any]) -> None:
        write_json(self.path / "summary.json", summary)

    def summary(self) -> dict[str, Any]:
        path = self.path / "summary.json"
        try:
            found = read_json(path) if path.exists() else {}
        except ValueError:
            return {}  # damaged: a list of runs must not end for one of them
        return loosened(found) if isinstance(found, dict) else {}


@cache
def _git_revision() -> str | None:
    """Of the code that this process imported."""
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
    """What a run ran on. No environment variables: they hold secrets."""
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
