"""What a search is asked to do, and all that can be found wrong with it before anything is written."""

from __future__ import annotations

import contextlib
import difflib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from dlx.config import Config
from dlx.config.errors import UserError
from dlx.config.extras import require
from dlx.config.yaml import dump_yaml, read_yaml
from dlx.runs.files import write_atomic
from dlx.sweeps.check import check_metric, metrics_of
from dlx.sweeps.samplers import PRUNERS, SAMPLERS, check_sampler
from dlx.sweeps.space import Space
from dlx.sweeps.storage import NoStudy, absolute, check_storage, redacted, storage_path
from dlx.sweeps.study import Study
from dlx.training.preflight import check_batch_norms
from dlx.training.run import Preparer

SEARCH = "search.yaml"
JOURNAL = "study.journal"
STORAGE = "DLX_STORAGE"  # the environment variable that has a storage's URL where it may not be written


@dataclass(frozen=True)
class Settings:
    """What was asked for, as search.yaml has it.

    metric: such as val/accuracy:max. study: None is the sweep's own name. storage: None is a journal in the sweep's
    folder; a password in it is not kept. trials: points of this sweep, also where others share the study.
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
        """Raises UserError naming the option."""
        for option, value, known in (("--search", self.sampler, SAMPLERS), ("--pruner", self.pruner, PRUNERS)):
            if value not in known:
                near = difflib.get_close_matches(value, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise UserError(f"{option} {value}: there is none; {', '.join(known)} are there{hint}")
        if self.trials < 1:
            raise UserError(f"--trials: must be at least 1, got {self.trials}")
        if self.metric.startswith("test/"):
            raise UserError(
                f"--metric {self.metric}: what the search is led by is no test any more; take a val/ figure"
            )

    def address(self, folder: Path, given: str | None = None) -> str:
        """Where the trials are. given: by the person who resumes. Raises UserError where only they can know."""
        if self.storage is None:
            if given:
                raise UserError(f"--storage: the trials of {folder} are in its own folder")
            return str(folder.absolute() / JOURNAL)
        if given or os.environ.get(STORAGE):
            return absolute(given or os.environ[STORAGE])
        if "***" in self.storage:
            raise UserError(f"{folder}: its storage has a password, which is not kept; give --storage {self.storage}")
        return self.storage

    @property
    def where(self) -> str:
        """How messages name the storage."""
        return self.storage or JOURNAL

    def write(self, folder: Path) -> None:
        write_atomic(folder / SEARCH, dump_yaml(vars(self)))

    @classmethod
    def read(cls, folder: Path) -> Settings:
        """Raises UserError where the file is not what dlx wrote."""
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


@dataclass(frozen=True)
class Draft:
    """A search that was found good; nothing is written yet. first: a configuration in its space."""

    settings: Settings
    space: Space
    first: Config
    storage: str | None = None
    base: Config | None = None


def draft_search(
    arguments: Sequence[str],
    settings: Settings,
    *,
    conf_dirs: Sequence[Path | str] = (),
    trust: Sequence[str] = (),
    base: Config | None = None,
) -> Draft:
    """Checks all that can be: each key at its bounds and choices, the models built without weights, the storage.

    settings: without metric, what the model monitors is sought.
    """
    settings.check()
    require(f"--search {settings.sampler}", "search", "optuna")
    space = Space(arguments, conf_dirs=conf_dirs, trust=trust, base=base)
    check_sampler(settings.sampler, space.dimensions)
    check_trials(settings.trials, space)
    configs = space.check()
    if any("experiment" in config.values for config in configs):
        raise UserError("experiment: a claim is run by `dlx train experiment=NAME`, not searched")
    methods = [str(config.choices["method"]) for config in configs if "method" in config.values]
    if methods and settings.pruner != "none":
        raise UserError(f"--pruner {settings.pruner}: the runs of method={methods[0]} are not pruned; leave it out")
    monitored, figures = _prepared(configs)
    if settings.metric and figures and not methods:
        check_metric(settings.metric, figures)
    if not settings.metric:
        if len(monitored) > 1 or None in monitored:
            said = ", ".join(sorted(text or "nothing" for text in monitored))
            raise UserError(f"--metric: must be given, such as val/loss:min; what the models monitor is {said}")
        settings = replace(settings, metric=monitored.pop() or "")
        settings.check()
    storage = settings.storage or os.environ.get(STORAGE)
    if storage is not None:
        storage = absolute(storage)
        shown = f"--storage {redacted(storage)}"
        check_storage(storage, shown)
        path = storage_path(storage)
        if settings.study is not None and (path is None or path.exists()):
            with contextlib.suppress(NoStudy):
                found = Study.load(storage, shown, settings.study, Path())
                found.check(space.dimensions, settings.metric)
    settings = replace(
        settings,
        storage=redacted(storage) if storage else None,
        seed=configs[0]["seed"],
        overrides=list(arguments),
        conf_dirs=[str(Path(folder).absolute()) for folder in conf_dirs],
    )
    return Draft(settings, space, configs[0], storage, base)


def check_trials(trials: int, space: Space) -> None:
    """Raises UserError for more points than there are."""
    if trials < 1:
        raise UserError(f"--trials: must be at least 1, got {trials}")
    if (points := math.prod(dimension.count for dimension in space.dimensions)) < trials:
        raise UserError(f"--trials {trials}: there are {points:g} points; without --search each is trained once")


def _prepared(configs: Sequence[Config]) -> tuple[set[str | None], set[str]]:
    """What the models of the configurations monitor, and the figures that all of them will have, as far as that is
    known; all are built, without weights."""
    monitored: set[str | None] = set()
    figures: list[set[str]] = []
    prepare = Preparer()
    for config in configs:
        prepared = prepare(config.without("method"))
        said = prepared.trainer.monitored_of(prepared.system, prepared.regularizers)
        monitored.add(":".join(said) if said else None)
        figures.append(metrics_of(prepared))
        check_batch_norms(prepared)
    return monitored, set.intersection(*[found for found in figures if found] or [set()])
