"""Builds and checks everything that a run needs except its weights. Writes nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from dlx.config import Config, build, build_all, build_shared, class_block, file_of, instantiate
from dlx.config.build import blamed
from dlx.config.errors import ConfigError, Problem, UserError
from dlx.data.dataset import only
from dlx.data.fingerprint import check_classes
from dlx.data.loader import count_batches
from dlx.data.proposals import Proposed
from dlx.data.splits import UnpairedSplit, known_labels
from dlx.optim.build import build_optimizers
from dlx.tasks.spec import Label
from dlx.training.distributed import world_size
from dlx.training.load import adopt, build_meta, load_into

if TYPE_CHECKING:
    from dlx.data.dataset import Dataset
    from dlx.data.splits import AnySplit, SplitSettings
    from dlx.optim.build import ParamGroups
    from dlx.optim.schedules import Schedule
    from dlx.regularization.regularizer import Regularizer
    from dlx.runs.folder import RunFolder
    from dlx.tasks.spec import Spec
    from dlx.tasks.system import Objective, System
    from dlx.tracking.tracker import Tracker
    from dlx.training.trainer import Trainer


@dataclass
class Prepared:
    """A checked configuration and what was built from it: everything except the weights."""

    config: Config
    trainer: Trainer
    dataset: Dataset
    settings: SplitSettings
    splits: dict[str, AnySplit]
    regularizers: dict[str, Regularizer]
    schedule: Schedule
    trackers: dict[str, Tracker]
    grouping: ParamGroups
    spec: Spec  # what the data hold; of a resumed run what they held when it began
    system: System  # on the meta device: shapes without memory
    steps_per_epoch: int
    notes: list[str]  # what a person should know before the start

    @property
    def total_steps(self) -> int:
        return self.trainer.total_steps(self.system, self.steps_per_epoch)

    def make_optimizers(self, system: System, objectives: list[Objective]) -> list[torch.optim.Optimizer]:
        """One optimizer per objective."""
        make = partial(_make_optimizer, self.config)
        return build_optimizers(system, objectives, class_block(self.config, "optimizer"), self.grouping, make)


def prepare(
    config: Config,
    *,
    dataset: Dataset | None = None,
    splits: dict[str, AnySplit] | None = None,
    run: RunFolder | None = None,
) -> Prepared:
    """Builds all parts, the model on the meta device. Raises one ConfigError with the problems of all groups.

    dataset, splits: the configuration's, where they are there already. run: one that goes on, on the same data.
    """
    problems: list[Problem] = []

    def attempt(make: Any, *arguments: Any, blame: str = "", **given: Any) -> Any:
        """The output of `make`, or None and a problem. blame: the key of an error that names none."""
        try:
            return make(*arguments, **given)
        except ConfigError as error:
            problems.extend(error.problems)
        except (ValueError, UserError) as error:
            if not blame:
                raise
            group, _, name = blame.partition(".")
            if group == "regularization":
                problems.append(Problem(blame, str(error), file_of(config, group, name)))
            else:
                problems.append(Problem(blame, str(error).removeprefix(f"{blame}: ").removeprefix(f"{name} ")))
        return None

    trainer = attempt(build, config, "trainer")
    dataset = dataset or attempt(build, config, "dataset")
    settings = attempt(build_shared, config, "dataset")
    schedule = attempt(build, config, "scheduler")
    regularizers = attempt(build_all, config, "regularization") or {}
    trackers = attempt(build_all, config, "tracker")
    grouping = attempt(build_shared, config, "optimizer")
    if grouping is not None:
        parameter = torch.zeros(1, requires_grad=True)
        attempt(_make_optimizer, config, class_block(config, "optimizer"), params=[parameter])
    system = None
    before = adopt(dataset, run, config) if run is not None and dataset is not None else None
    spec = attempt(settings.spec, dataset) if dataset is not None and settings is not None else None
    if spec is not None and before is not None:
        check_classes(before, spec)
        spec = before
    if spec is not None and (built := attempt(build_meta, config, spec)) is not None:
        config, system = built
    if system is not None:
        for name in sorted(set(grouping.players) - set(system.players)) if grouping is not None else ():
            known = ", ".join(system.players) or "it has one objective"
            problems.append(Problem(f"optimizer.players.{name}", f"no such player ({known})"))
        for name, regularizer in regularizers.items():
            attempt(regularizer.check, system, blame=f"regularization.{name}")
    if system is not None and trainer is not None:
        problems += check_contract(system, trainer, settings)
        attempt(trainer.monitored_of, system, regularizers, blame="trainer.monitor")
        if not system.objectives():
            problems += _check_closed_form(config, trainer)
        if trainer.init_from is not None:
            attempt(load_into, system, trainer.init_from, config["output_root"], blame="trainer.init_from")
    if problems:
        raise blamed(config, ConfigError(problems))
    assert system is not None
    assert dataset is not None
    assert spec is not None
    splits = splits or settings.split(dataset)
    size = len(splits["train"])
    if not settings.batch_size:
        # A power of two, up to 128, that gives at least about 20 batches.
        settings.batch_size = 1 << min(7, max(2, (size // 20).bit_length() - 1))
        config = config.with_value("dataset", "batch_size", settings.batch_size)
    if settings.batch_size % trainer.accumulate:
        message = f"must divide dataset.batch_size ({settings.batch_size}), got {trainer.accumulate}"
        raise ConfigError([Problem("trainer.accumulate", message)])
    if not system.objectives():
        settings.drop_last = False  # what is fitted at once takes all samples
    steps = count_batches(size, settings.batch_size, settings.drop_last)
    if steps == 0:
        raise UserError(
            f"dataset.batch_size: {settings.batch_size} is more than the {size} training samples; "
            "take at most that, or set dataset.drop_last=false"
        )
    _check_entries(config, dataset, splits, system)
    total = trainer.total_steps(system, steps)
    try:
        stages = system.stage_starts(total)
        if stages[:1] != [0] or any(a >= b for a, b in pairwise([*stages, max(total, 1)])):
            raise ValueError(f"{type(system).__name__}: stages begin at {stages}, of {total} steps in all")
    except ValueError as error:
        raise ConfigError([Problem("model", str(error), file_of(config, "model"))]) from None
    prepared = Prepared(
        config, trainer, dataset, settings, splits, regularizers, schedule, trackers, grouping, spec, system, steps, []
    )
    prepared.notes += [*dataset.notes(), *_notes(prepared)]
    return prepared


FEW_STEPS = 20


def _notes(prepared: Prepared) -> list[str]:
    """Warnings: very few steps, classes without samples in a split."""
    notes = []
    total = prepared.total_steps
    if 0 < total <= FEW_STEPS and prepared.trainer.max_steps is None:
        notes.append(f"{total} steps in all; a smaller dataset.batch_size or more trainer.epochs makes them more")
    for name, entry in prepared.system.spec.entries.items():
        if not isinstance(entry, Label) or name not in prepared.system.spec.targets:
            continue
        for split in ("train", "val"):
            part = prepared.splits[split]
            if isinstance(part, UnpairedSplit):
                continue
            labels = known_labels(part.source)
            if labels is None:
                continue
            there = set(labels[part.index].tolist())
            missing = [text for number, text in enumerate(entry.classes) if number not in there]
            if missing and there and len(entry.classes) > 1:
                some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
                notes.append(f"{split} has no sample of {len(missing)} of {len(entry.classes)} classes: {some}")
    return notes


def check_contract(system: System, trainer: Trainer, settings: SplitSettings) -> list[Problem]:
    """Settings that this system does not support."""
    problems, name = [], type(system).__name__
    first = system.objectives()
    if (len(first) > 1 or system.players) and first:
        names = tuple(objective.name for objective in first)
        if set(names) - set(system.players) or len(set(names)) < len(names):
            players = ", ".join(system.players) or "none"
            problems.append(
                Problem("model", f"{name} has objectives {', '.join(names)} and players {players}: they must agree")
            )
    if system.whole_batch and trainer.accumulate > 1:
        problems.append(
            Problem("trainer.accumulate", f"must be 1: {name} compares the samples of a whole batch with each other")
        )
    if system.whole_batch and settings.batch_size == 1:
        problems.append(
            Problem("dataset.batch_size", f"must be at least 2: {name} compares the samples of a batch with each other")
        )
    if trainer.compile and not system.compiles:
        problems.append(Problem("trainer.compile", f"must be false: torch.compile cannot follow the loss of {name}"))
    if settings.weights is not None and (len(first) > 1 or "weight" not in system.takes):
        why = "has several objectives" if len(first) > 1 else "takes no sample weights"
        problems.append(Problem("dataset.weights", f"must be null: {name} {why}"))
    if system.views and (len(system.views) < 2 or not hasattr(system, "augmentation")):
        problems.append(
            Problem("model", f"{name} has views {', '.join(system.views)}, and no `augmentation` to make them")
        )
    return problems


def _check_entries(config: Config, dataset: Dataset, splits: dict[str, AnySplit], system: System) -> None:
    """Raises UserError if a split lacks an entry that the system reads, or has it in another shape."""
    views = system.views[1:]
    for name, split in splits.items():
        if dataset.acts or not len(split):
            continue
        # Proposals are made when they are first asked for, which takes its time.
        offered = (*views, *(("proposals",) if isinstance(split.source, Proposed) else ()))
        wanted = [entry for entry in system.spec.entries if entry not in offered]
        there = only(split.source, wanted).take(split.index[:1])
        missing = [entry for entry in wanted if entry not in there]
        data = f"dataset {config.choices['dataset']}"
        if missing:
            raise UserError(f"{data}: its spec names {', '.join(missing)}, which {name} samples lack")
        lengths = getattr(split.source, "lengths", None) or {}
        for key in wanted:
            shape, expected = tuple(there[key].shape[1:]), system.spec.entries[key].shape
            if len(shape) != len(expected) or (key not in lengths and shape != expected):
                raise UserError(f"{data}: {key} of {name} has shape {shape}; its spec says {expected}")


class Preparer:
    """Calls `prepare` for several configurations; reads shared data once, splits it once per settings."""

    def __init__(self) -> None:
        self._datasets: dict[str, Dataset] = {}
        self._splits: dict[str, dict[str, AnySplit]] = {}

    def __call__(self, config: Config) -> Prepared:
        blocks = class_block(config, "dataset"), config["dataset"]
        data, settings = (json.dumps(block, sort_keys=True, default=str) for block in blocks)
        prepared = prepare(config, dataset=self._datasets.get(data), splits=self._splits.get(settings))
        self._datasets[data], self._splits[settings] = prepared.dataset, prepared.splits
        return prepared


def _check_closed_form(config: Config, trainer: Trainer) -> list[Problem]:
    """Problems for settings that need gradient steps, which a closed-form system does not take."""
    model = config.choices["model"]
    why = f"does nothing for {model}, which is fitted in closed form, without gradient steps"
    keys = [f"trainer.{key}" for key in ("ema", "clip_norm") if getattr(trainer, key) is not None]
    unset = {"accumulate": 1, "compile": False, "precision": "fp32"}
    keys += [f"trainer.{key}" for key, value in unset.items() if getattr(trainer, key) != value]
    problems = [Problem(key, why) for key in (["regularization"] if config.choices["regularization"] else keys)]
    if world_size() > 1:
        problems.append(Problem("model", f"{model} is fitted in closed form, by one process, not under torchrun"))
    return problems


def _make_optimizer(config: Config, block: dict[str, Any], **given: Any) -> torch.optim.Optimizer:
    return instantiate(
        block,
        base=torch.optim.Optimizer,
        trust=config.trust,
        key="optimizer",
        file=file_of(config, "optimizer"),
        **given,
    )
