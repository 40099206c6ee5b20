"""From a configuration to a trained run folder: build everything, train, judge, and say how it ended."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlx.config import Config, build, build_all, file_of, instantiate, own_block, settings
from dlx.config.errors import ConfigError, Problem, UserError
from dlx.data.loader import DeviceStore, count_batches, make_loader
from dlx.data.view import probe
from dlx.optim.build import build_optimizers
from dlx.random import reseed
from dlx.runs.checkpoint import latest_checkpoint, load_weights, step_of
from dlx.runs.folder import RunFolder
from dlx.runs.load import (
    build_system,
    check_is_run,
    load_system,
    newest_checkpoint,
    with_parts,
    without_origins,
    without_weights,
)
from dlx.runs.lock import owner_is_alive
from dlx.tracking.recorder import Recorder
from dlx.training.evaluate import evaluate
from dlx.training.job import Data, Job, Watch
from dlx.training.progress import note
from dlx.training.session import Result, Session
from dlx.training.threads import choose_threads
from dlx.training.trainer import Trainer
from dlx.training.world import World, choose_device

if TYPE_CHECKING:
    from dlx.data.dataset import Dataset
    from dlx.data.loader import Loader
    from dlx.data.view import Split, View
    from dlx.regularization.regularizer import Regularizer
    from dlx.tasks.system import System


@dataclass
class Prepared:
    """A configuration that was found good: everything but the weights is built, nothing is written."""

    config: Config
    trainer: Trainer
    dataset: Dataset
    view: View
    splits: dict[str, Split]
    regularizers: dict[str, Regularizer]
    system: System  # on the meta device: shapes without memory
    steps_per_epoch: int

    @property
    def total_steps(self) -> int:
        return self.trainer.total_steps(self.system, self.steps_per_epoch)


def prepare(config: Config, *, dataset: Dataset | None = None, splits: dict[str, Split] | None = None) -> Prepared:
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
    if dataset is not None and (whole := attempt(with_parts, config, dataset.spec)) is not None:
        config = whole
        with torch.device("meta"):
            system = attempt(build, without_origins(config), "model", spec=dataset.spec)
    if system is not None and grouping is not None and (unknown := set(grouping.players) - set(system.players)):
        known = ", ".join(system.players) or "it has one objective"
        problems += [Problem(f"optimizer.players.{name}", f"no such player ({known})") for name in sorted(unknown)]
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
    return Prepared(config, trainer, dataset, view, splits, regularizers, system, steps)


class Preparer:
    """`prepare` for several configurations: a dataset that they share is read once, and split once for each view."""

    def __init__(self) -> None:
        self._datasets: dict[str, Dataset] = {}
        self._splits: dict[str, dict[str, Split]] = {}

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
    folder.write_spec(prepared.dataset.spec.to_dict())
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
        checkpoint, problems = latest_checkpoint(folder.checkpoints)
        for problem in problems:
            note(f"warning: {problem}")
        if problems or checkpoint is None:
            where = f"the one before, {checkpoint.name}, is used" if checkpoint else "it begins anew"
            note(f"warning: {folder.path}: no newer checkpoint that is whole; {where}")
        if world.is_main and changed:
            folder.write_config(config.to_yaml())
        return _run(
            prepared, folder, world, quiet=quiet, checkpoint=checkpoint, resumed=True, changed=changed, watch=watch
        )
    finally:
        world.leave()


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
    loader = partial(
        make_loader, spec=prepared.dataset.spec, view=view, device=world.device, seed=seed, rank=world.rank,
        world_size=world.size, store=store,
    )  # fmt: skip
    large = max(view.batch_size, 256)
    reseed(seed, "init")
    system = build_system(config, prepared.dataset.spec)
    data = Data(
        dataset=prepared.dataset,
        train=loader(splits["train"]),
        val=loader(splits["val"], batch_size=large),
        test=loader(splits["test"], batch_size=large),
        probe=loader(probe(splits["train"], len(splits["val"]), view.split_seed), batch_size=large)
        if system.gaps
        else None,
    )
    grouping = settings(config, "optimizer")
    return Job(
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


def open_run(folder: RunFolder, split: str, *, trust: tuple[str, ...] = ()) -> tuple[System, Loader]:
    """A run's system with its best weights, on its device, and a loader of `train`, `val` or `test` of its data."""
    config = Config.load(folder.config_path, trust=trust)
    check_is_run(folder, config)
    trainer, dataset, view = build(config, "trainer"), build(config, "dataset"), settings(config, "dataset")
    device = choose_device(trainer.device)
    system = trainer.place(load_system(folder, config), device)
    loader = make_loader(
        view.split(dataset)[split], spec=system.spec, view=view, device=device, seed=config["seed"],
        batch_size=max(view.batch_size, 256),
    )  # fmt: skip
    return system, loader


def evaluate_run(folder: RunFolder, split: str, *, trust: tuple[str, ...] = ()) -> dict[str, float]:
    """The figures of a run's best weights on `train`, `val` or `test` of the data it was trained on."""
    system, loader = open_run(folder, split, trust=trust)
    figures = evaluate(system, loader, World(system.device), loader.seed)
    return {f"{split}/{name}": value for name, value in figures.items()}
