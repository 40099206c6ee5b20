"""From a configuration to a trained run folder: build everything, train, judge, and say how it ended."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlx.config import Config, build, build_all, file_of, instantiate, own_block, settings
from dlx.config.errors import ConfigError, Problem, UserError
from dlx.data.loader import DeviceStore, count_batches, make_loader
from dlx.data.proposals import Proposed
from dlx.data.view import probe
from dlx.optim.build import build_optimizers
from dlx.random import reseed
from dlx.runs.checkpoint import latest_checkpoint, load_state, load_weights, step_of
from dlx.runs.folder import RunFolder
from dlx.runs.load import (
    build_meta,
    build_system,
    check_is_run,
    load_into,
    load_system,
    newest_checkpoint,
    without_weights,
)
from dlx.runs.lock import owner_is_alive
from dlx.tracking.recorder import Recorder
from dlx.training.evaluate import BANK, evaluate
from dlx.training.job import Data, Job, Watch
from dlx.training.progress import note
from dlx.training.session import Result, Session
from dlx.training.threads import choose_threads
from dlx.training.trainer import Trainer
from dlx.training.world import World, choose_device

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlx.data.dataset import Dataset
    from dlx.data.loader import Loader
    from dlx.data.view import AnySplit, View
    from dlx.regularization.regularizer import Regularizer
    from dlx.tasks.spec import Entry
    from dlx.tasks.system import System


@dataclass
class Prepared:
    """A configuration that was found good: everything but the weights is built, nothing is written."""

    config: Config
    trainer: Trainer
    dataset: Dataset
    view: View
    splits: dict[str, AnySplit]
    regularizers: dict[str, Regularizer]
    system: System  # on the meta device: shapes without memory
    steps_per_epoch: int

    @property
    def total_steps(self) -> int:
        return self.trainer.total_steps(self.system, self.steps_per_epoch)


def prepare(config: Config, *, dataset: Dataset | None = None, splits: dict[str, AnySplit] | None = None) -> Prepared:
    """Builds all parts, the model on the meta device. Raises ConfigError with the mistakes of all groups at once.

    dataset, splits: the configuration's, where they are there already.
    """
    problems: list[Problem] = []

    def attempt(make: Any, *arguments: Any, **given: Any) -> Any:
        try:
            return make(*arguments, **given)
        except ConfigError as error:
            problems.extend(error.problems)
            return None

    trainer = attempt(build, config, "trainer")
    dataset = dataset or attempt(build, config, "dataset")
    view = attempt(settings, config, "dataset")
    attempt(build, config, "scheduler")
    regularizers = attempt(build_all, config, "regularization") or {}
    attempt(build_all, config, "tracker")
    grouping = attempt(settings, config, "optimizer")
    if grouping is not None:
        parameter = torch.zeros(1, requires_grad=True)
        attempt(_make_optimizer, config, own_block(config, "optimizer"), params=[parameter])
    system = None
    spec = attempt(view.spec, dataset) if dataset is not None and view is not None else None
    if spec is not None and (built := attempt(build_meta, config, spec)) is not None:
        config, system = built
    if system is not None and grouping is not None and (unknown := set(grouping.players) - set(system.players)):
        known = ", ".join(system.players) or "it has one objective"
        problems += [Problem(f"optimizer.players.{name}", f"no such player ({known})") for name in sorted(unknown)]
    if system is not None and trainer is not None and view is not None:
        problems += check_contract(system, trainer, view)
    for name, regularizer in regularizers.items() if system is not None else ():
        try:
            regularizer.check(system)
        except ValueError as error:
            problems.append(Problem(f"regularization.{name}", str(error), file_of(config, "regularization", name)))
    if trainer is not None and system is not None:
        try:
            trainer.monitored_of(system, regularizers)
        except ValueError as error:
            problems.append(Problem("trainer.monitor", str(error).removeprefix("monitor ")))
        if not system.objectives():
            problems += _check_closed_form(config, trainer)
    if trainer is not None and system is not None and trainer.init_from is not None:
        try:
            load_into(system, trainer.init_from, config["output_root"])
        except UserError as error:
            problems.append(Problem("trainer.init_from", str(error).removeprefix("trainer.init_from: ")))
    if problems:
        raise ConfigError(problems)
    splits = splits or view.split(dataset)
    if view.batch_size % trainer.accumulate:
        raise ConfigError(
            [
                Problem(
                    "trainer.accumulate",
                    f"must divide dataset.batch_size ({view.batch_size}), got {trainer.accumulate}",
                )
            ]
        )
    assert system is not None
    assert dataset is not None
    if not system.objectives():
        view.drop_last = False  # what is fitted at once takes all samples
    size = len(splits["train"])
    steps = count_batches(size, view.batch_size, view.drop_last)
    if steps == 0:
        raise UserError(
            f"dataset.batch_size: {view.batch_size} is more than the {size} training samples; "
            "take at most that, or set dataset.drop_last=false"
        )
    _check_entries(config, dataset, splits, system)
    try:
        check_stages(
            system.stage_starts(trainer.total_steps(system, steps)), trainer.total_steps(system, steps), system
        )
    except ValueError as error:
        raise ConfigError([Problem("model", str(error), file_of(config, "model"))]) from None
    return Prepared(config, trainer, dataset, view, splits, regularizers, system, steps)


def check_contract(system: System, trainer: Trainer, view: View) -> list[Problem]:
    """What a system and the loop's settings do not have in common."""
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
    if trainer.compile and not system.compiles:
        problems.append(Problem("trainer.compile", f"must be false: torch.compile cannot follow the loss of {name}"))
    if view.weights is not None and (len(first) > 1 or "weight" not in system.takes):
        why = "has several objectives" if len(first) > 1 else "takes no sample weights"
        problems.append(Problem("dataset.weights", f"must be null: {name} {why}"))
    if system.views and (len(system.views) < 2 or not hasattr(system, "augmentation")):
        problems.append(
            Problem("model", f"{name} has views {', '.join(system.views)}, and no `augmentation` to make them")
        )
    return problems


def check_stages(stages: list[int], total: int, system: System) -> None:
    """Raises ValueError for first steps that are none."""
    if stages[:1] != [0] or any(a >= b for a, b in pairwise([*stages, max(total, 1)])):
        raise ValueError(f"{type(system).__name__}: stages begin at {stages}, of {total} steps in all")


def _check_entries(config: Config, dataset: Dataset, splits: dict[str, AnySplit], system: System) -> None:
    """Raises UserError where a split lacks an entry that the system reads: it is found before anything is written."""
    views = system.views[1:]
    for name, split in splits.items():
        if dataset.acts or not len(split):
            continue
        # Proposals are made when they are first asked for, which takes its time.
        offered = (*views, *(("proposals",) if isinstance(split.source, Proposed) else ()))
        wanted = [entry for entry in system.spec.entries if entry not in offered]
        only = getattr(split.source, "only", None)
        there = (only(wanted) if only else split.source).take(split.index[:1])
        missing = [entry for entry in wanted if entry not in there]
        if missing:
            raise UserError(
                f"dataset {config.choices['dataset']}: its spec names {', '.join(missing)}, which {name} samples lack"
            )


class Preparer:
    """`prepare` for several configurations: a dataset that they share is read once, and split once for each view."""

    def __init__(self) -> None:
        self._datasets: dict[str, Dataset] = {}
        self._splits: dict[str, dict[str, AnySplit]] = {}

    def __call__(self, config: Config) -> Prepared:
        blocks = own_block(config, "dataset"), config["dataset"]
        data, view = (json.dumps(block, sort_keys=True, default=str) for block in blocks)
        prepared = prepare(config, dataset=self._datasets.get(data), splits=self._splits.get(view))
        self._datasets[data], self._splits[view] = prepared.dataset, prepared.splits
        return prepared


def _check_closed_form(config: Config, trainer: Trainer) -> list[Problem]:
    """What needs gradient steps would do nothing, and nobody would notice."""
    model = config.choices["model"]
    why = f"does nothing for {model}, which is fitted in closed form, without gradient steps"
    chosen = config.choices["regularization"]
    keys = [*(["regularization"] if chosen else [])]
    keys += [f"trainer.{key}" for key in ("ema", "clip_norm") if getattr(trainer, key) is not None and not chosen]
    problems = [Problem(key, why) for key in keys]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
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


def train(
    config: Config,
    *,
    quiet: bool = False,
    command: list[str] | None = None,
    fork: RunFolder | None = None,
    at: Path | None = None,
    watch: Watch | None = None,
) -> Result:
    """Trains what the configuration says in a new run folder.

    fork: from the newest weights of that run. at: the folder's path, for a member of a plan. watch: `Job.watch`.
    """
    prepared = prepare(config)
    start = load_weights(newest_checkpoint(fork) / "last.safetensors") if fork else None
    if fork and start is not None:
        _check_fit(start, prepared.system, fork)
    world = World.join(prepared.trainer.device)
    try:
        created = open_folder(prepared, at, command, fork) if world.is_main else None
        path = world.agree(created.path if created else None)
        folder = created or RunFolder(path)
        return _run(prepared, folder, world, quiet=quiet, start=start, watch=watch)
    finally:
        world.leave()


def open_folder(
    prepared: Prepared, at: Path | None = None, command: list[str] | None = None, fork: RunFolder | None = None
) -> RunFolder:
    """A new folder for a run, locked, with all that is known before it starts."""
    config = prepared.config
    if at is not None:
        if at.exists() and not owner_is_alive(at):
            shutil.rmtree(at)  # its process was killed before it was a run
        folder = RunFolder.create_at(at)
    else:
        title = "-".join(str(config.choices[group]) for group in ("model", "dataset", "optimizer"))
        folder = RunFolder.create(config["output_root"], str(config["name"] or config.choices["model"]), title)
    spec = prepared.view.spec(prepared.dataset)
    folder.write_spec(spec.to_dict(), spec.files())
    folder.write_environment(command or sys.argv, forked_from=fork.name if fork else None)
    folder.write_config(config.to_yaml())  # last: a folder that has it is a run
    return folder


def _check_fit(weights: dict[str, Tensor], system: System, fork: RunFolder) -> None:
    """Raises UserError where the weights of `fork` are not those of `system` (on the meta device)."""
    own = system.state_dict()
    wrong = [name for name in {**own, **weights} if name not in own or name not in weights]
    wrong += [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if wrong:
        raise UserError(f"{fork.path}: its weights do not fit this model: {', '.join(wrong[:3])}, {len(wrong)} in all")


def resume(
    folder: RunFolder,
    config: Config,
    *,
    changed: dict[str, Any] | None = None,
    quiet: bool = False,
    watch: Watch | None = None,
) -> Result:
    """Goes on from the run's newest checkpoint, in the same folder, to the same bits. From the start if it has none.

    changed: what in `config` is not as it was (`dlx.config.changes`); it is recorded. Raises UserError for a finished
    run that has no step left to do.
    """
    newest, _ = latest_checkpoint(folder.checkpoints)
    prepared = prepare(without_weights(config) if newest else config)
    if newest:
        _check_boundaries(folder, newest, prepared)
    if newest and step_of(newest) > prepared.total_steps:
        raise UserError(
            f"{folder.path}: {step_of(newest)} steps are done, more than the {prepared.total_steps} that are asked for"
        )
    longer = {"trainer.epochs", "trainer.max_steps"} & set(changed or ())
    done = newest is not None and (not longer or step_of(newest) >= prepared.total_steps)
    if folder.status()["status"] == "finished" and done:
        further = f"trainer.epochs={2 * config['trainer']['epochs']} goes on with it, " if prepared.total_steps else ""
        raise UserError(
            f"{folder.path}: this run is finished; {further}`dlx train --from {folder.name}` starts it anew"
        )
    world = World.join(prepared.trainer.device)
    try:
        if world.is_main:
            folder.lock.acquire()
        # One process says which: on a shared file system others may not see the newest yet.
        checkpoint, problems = world.agree(latest_checkpoint(folder.checkpoints) if world.is_main else None)
        for problem in problems if world.is_main else ():
            note(f"warning: {problem}")
        if world.is_main and (problems or checkpoint is None):
            where = f"the one before, {checkpoint.name}, is used" if checkpoint else "it begins anew"
            note(f"warning: {folder.path}: no newer checkpoint that is whole; {where}")
        if world.is_main and changed:
            folder.write_config(config.to_yaml())
        return _run(
            prepared, folder, world, quiet=quiet, checkpoint=checkpoint, resumed=True, changed=changed, watch=watch
        )
    finally:
        world.leave()


def _check_boundaries(folder: RunFolder, newest: Path, prepared: Prepared) -> None:
    """Raises UserError where a longer or shorter training would have begun a stage elsewhere than this one did."""
    if not prepared.system.defines("stage_starts"):
        return
    passed = [start for start in load_state(newest)["state"]["stages"] if start < step_of(newest)]
    planned = prepared.system.stage_starts(prepared.total_steps)
    if planned[: len(passed)] != passed:
        raise UserError(
            f"{folder.path}: its stages began at steps {passed}, and would begin at {planned}; "
            "start such a change anew with `dlx train --from`"
        )


def build_job(
    prepared: Prepared,
    world: World,
    recorder: Recorder,
    folder: RunFolder,
    checkpoint: Path | None,
    start: dict[str, Tensor] | None = None,
    watch: Watch | None = None,
    store: DeviceStore | None = None,
) -> Job:
    """store: of data that runs share on a device."""
    config, view, splits = prepared.config, prepared.view, prepared.splits
    seed = config["seed"]
    for name, split in splits.items():
        if len(split) < world.size:
            raise UserError(f"dataset: {name} has {len(split)} samples, too few for {world.size} processes")
    store = store or DeviceStore()
    reseed(seed, "init")
    system = build_system(config, view.spec(prepared.dataset))
    if prepared.trainer.init_from is not None and checkpoint is None:
        said = load_into(system, prepared.trainer.init_from, config["output_root"])
        if world.is_main:
            note(said)
    loader = partial(
        make_loader, entries=system.spec.entries, view=view, device=world.device, seed=seed, rank=world.rank,
        world_size=world.size, store=store,
    )  # fmt: skip
    alone: dict[str, Any] = {"rank": 0, "world_size": 1, "training": False}
    train, size = splits["train"], len(splits["val"])
    data = Data(
        dataset=prepared.dataset,
        train=loader(train),
        val=loader(splits["val"], training=False),
        test=loader(splits["test"], training=False),
        probe=loader(probe(train, size, view.split_seed), training=False) if system.gaps else None,
        bank=loader(probe(train, BANK, view.split_seed), **alone) if system.defines("before_evaluation") else None,
        whole=loader(train, **alone) if system.defines("fit") and world.size > 1 else None,
    )
    grouping = settings(config, "optimizer")
    return Job(
        clip_norms=grouping.clip_norms,
        system=system,
        data=data,
        make_optimizers=lambda system, objectives: build_optimizers(
            system, objectives, own_block(config, "optimizer"), grouping, partial(_make_optimizer, config)
        ),
        schedule=build(config, "scheduler"),
        regularizers=build_all(config, "regularization"),
        recorder=recorder,
        world=world,
        seed=seed,
        checkpoints=folder.checkpoints,
        resume=checkpoint,
        start=start,
        watch=watch,
    )


def _run(
    prepared: Prepared,
    folder: RunFolder,
    world: World,
    *,
    quiet: bool,
    checkpoint: Path | None = None,
    resumed: bool = False,
    changed: dict[str, Any] | None = None,
    start: dict[str, Tensor] | None = None,
    watch: Watch | None = None,
) -> Result:
    trainer = prepared.trainer
    if world.device.type == "cpu":
        torch.set_num_threads(trainer.threads or choose_threads(prepared.system, prepared.view.batch_size))
    session = Session(prepared.config, folder, world, quiet)
    if resumed:
        session.recorder.resumed(step_of(checkpoint) if checkpoint else 0, changed or {})
    with session:
        job = build_job(prepared, world, session.recorder, folder, checkpoint, start, watch)
        session.ended(job, trainer.fit(job))
    return session.result


@dataclass
class Opened:
    """A trained run with the data that it was trained on."""

    config: Config
    system: System  # with its best weights, on its device
    dataset: Dataset
    view: View

    @cached_property
    def splits(self) -> dict[str, AnySplit]:
        return self.view.split(self.dataset)

    def loader(self, split: str, entries: Mapping[str, Entry] | None = None) -> Loader:
        """Of `train`, `val` or `test`: the entries that the system reads, or others of the dataset."""
        return self._loader(self.splits[split], entries)

    @property
    def bank(self) -> Loader | None:
        """Training samples for a system that looks at them when it is evaluated."""
        if not self.system.defines("before_evaluation"):
            return None
        return self._loader(probe(self.splits["train"], BANK, self.view.split_seed))

    def _loader(self, split: AnySplit, entries: Mapping[str, Entry] | None = None) -> Loader:
        return make_loader(
            split, entries or self.system.spec.entries, self.view, device=self.system.device, seed=self.config["seed"],
            training=False,
        )  # fmt: skip


def open_all(folder: RunFolder, *, trust: tuple[str, ...] = ()) -> Opened:
    config = Config.load(folder.config_path, trust=trust)
    check_is_run(folder, config)
    trainer, dataset, view = build(config, "trainer"), build(config, "dataset"), settings(config, "dataset")
    system = trainer.place(load_system(folder, config), choose_device(trainer.device))
    return Opened(config, system, dataset, view)


def open_run(folder: RunFolder, split: str, *, trust: tuple[str, ...] = ()) -> tuple[System, Loader]:
    """A run's system with its best weights, on its device, and a loader of `train`, `val` or `test` of its data."""
    opened = open_all(folder, trust=trust)
    return opened.system, opened.loader(split)


def evaluate_run(folder: RunFolder, split: str, *, trust: tuple[str, ...] = ()) -> dict[str, float]:
    """The metrics of a run's best weights on `train`, `val` or `test` of the data it was trained on."""
    opened = open_all(folder, trust=trust)
    loader, world = opened.loader(split), World(opened.system.device)
    found = evaluate(opened.system, loader, world, loader.seed, opened.bank)
    return {f"{split}/{name}": value for name, value in found.items()}
