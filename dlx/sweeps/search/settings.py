"""The settings of a search, as search.yaml has them. Imports no Optuna."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path

from dlx.config.errors import UserError
from dlx.config.extras import require
from dlx.config.groups import nearest
from dlx.config.monitor import Monitor
from dlx.config.yaml import dump_yaml, read_yaml
from dlx.runs.files import write_atomic
from dlx.sweeps.plan import SEARCH

JOURNAL = "study.journal"
STORAGE = "DLX_STORAGE"  # the environment variable for a storage whose URL may not be written to disk
SAMPLERS = ("tpe", "gp", "random")
PRUNERS = ("none", "median", "hyperband")


@dataclass(frozen=True)
class Settings:
    """metric: such as val/accuracy:max. study: None is the sweep's own name. storage: None is a journal in the sweep's
    folder; written without its password. trials: points of this sweep, also where others share the study.
    """

    sampler: str
    trials: int = 20
    pruner: str = "none"
    metric: str = ""
    study: str | None = None
    storage: str | None = None
    seed: int = 0
    overrides: list[str] = field(default_factory=list)
    conf_dirs: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Raises UserError naming the option, and if Optuna is not installed."""
        require("--search", "search", "optuna")
        for option, value, known in (("--search", self.sampler, SAMPLERS), ("--pruner", self.pruner, PRUNERS)):
            if value not in known:
                hint = nearest(value, known, cutoff=0.6)
                raise UserError(f"{option} {value}: unknown; choose from {', '.join(known)}{hint}")
        if self.trials < 1:
            raise UserError(f"--trials: must be at least 1, got {self.trials}")
        if self.metric.startswith("test/"):
            raise UserError(f"--metric {self.metric}: a search may not optimize a test/ metric; use val/")

    @property
    def metric_name(self) -> str:
        return Monitor.parse(self.metric).name

    @property
    def storage_shown(self) -> str:
        """The storage's name in messages."""
        return self.storage or JOURNAL

    def storage_url(self, folder: Path, given: str | None = None) -> str:
        """The storage of the trials. given: by --storage on resume. Raises UserError if only the person knows it."""
        if self.storage is None:
            if given:
                raise UserError(f"--storage: the trials of {folder} are in its own folder")
            return str(folder.absolute() / JOURNAL)
        if url := given or os.environ.get(STORAGE):
            from dlx.sweeps.search.storage import absolute

            return absolute(url)
        if "***" in self.storage:
            raise UserError(f"{folder}: its storage has a password, which is not kept; give --storage {self.storage}")
        return self.storage

    def write(self, folder: Path) -> None:
        write_atomic(folder / SEARCH, dump_yaml(vars(self)))

    @classmethod
    def read(cls, folder: Path) -> Settings:
        """Raises UserError if dlx did not write the file."""
        path = folder / SEARCH
        content = read_yaml(path)
        defaults = vars(cls("tpe", study="", storage=""))
        if not isinstance(content, dict) or set(content) != {item.name for item in fields(cls)}:
            raise UserError(f"{path}: not a search that dlx wrote")
        for name, value in content.items():
            may_be_none = name in ("study", "storage") and value is None
            if not may_be_none and (
                type(value) is not type(defaults[name])
                or (isinstance(value, list) and not all(isinstance(item, str) for item in value))
            ):
                raise UserError(f"{path}: {name} cannot be {value!r}")
        settings = cls(**content)
        settings.check()
        return settings
