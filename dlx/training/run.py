"""From a configuration to a trained run folder: build everything, train, judge, and say how it ended."""

from __future__ import annotations

import json
import shutil
import sys
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlx.config import Config, build, build_all, build_shared, class_block, compose, file_of, instantiate
from dlx.config.errors import ConfigError, Problem, UserError
from dlx.config.origin import blamed
from dlx.config.screen import note
from dlx.data.dataset import only
from dlx.data.fingerprint import brightness, changes, check_classes, fingerprint
from dlx.data.loader import DeviceStore, count_batches, make_loader
from dlx.data.proposals import Proposed
from dlx.data.view import UnpairedSplit, class_labels, probe
from dlx.optim.build import build_optimizers
from dlx.random import reseed
from dlx.runs.checkpoint import latest_checkpoint, load_state, load_weights, step_of
from dlx.runs.files import inside
from dlx.runs.find import plan_folder
from dlx.runs.folder import RunFolder, load_frozen
from dlx.runs.lock import owner_is_alive
from dlx.tasks.spec import Label
from dlx.tracking.recorder import Recorder
from dlx.training.evaluate import BANK, evaluate
from dlx.training.fit import naming
from dlx.training.job import Data, Diverged, Job, Watch
from dlx.training.load import (
    build_meta,
    build_system,
    check_is_run,
    load_into,
    load_spec,
    load_system,
    newest_checkpoint,
    without_weights,
)
from dlx.training.preflight import preflight
from dlx.training.session import EARLY, Result, Session
from dlx.training.signals import Signals
from dlx.training.threads import choose_threads
from dlx.training.trainer import Trainer
from dlx.training.world import World, choose_device, world_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlx.data.dataset import Dataset
    from dlx.data.loader import Loader
    from dlx.data.view import AnySplit, View
    from dlx.regularization.regularizer import Regularizer
    from dlx.tasks.spec import Entry, Spec
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
    spec: Spec  # what the data hold; of a resumed run what they held when it began
    system: System  # on the meta device: shapes without memory
    steps_per_epoch: int
    notes: list[str]  # what a person should know before the start

    @property
    def total_steps(self) -> int:
        return self.trainer.total_steps(self.system, self.steps_per_epoch)


def prepare(
    config: Config,
    *,
    dataset: Dataset | None = None,
    splits: dict[str, AnySplit] | None = None,
    run: RunFolder | None = None,
) -> Prepared:
    """Builds all parts, the model on the meta device. Raises ConfigError with the mistakes of all groups at once.

    dataset, splits: the configuration's, where they are there already. run: one that goes on, on the same data.
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
    view = attempt(build_shared, config, "dataset")
    attempt(build, config, "scheduler")
    regularizers = attempt(build_all, config, "regularization") or {}
    attempt(build_all, config, "tracker")
    grouping = attempt(build_shared, config, "optimizer")
    if grouping is not None:
        parameter = torch.zeros(1, requires_grad=True)
        attempt(_make_optimizer, config, class_block(config, "optimizer"), params=[parameter])
    system = None
    spec = attempt(view.spec, dataset) if dataset is not None and view is not None else None
    if spec is not None and run is not None:
        before = load_spec(run, trust=config.trust)
        check_classes(before, spec)
        spec = before
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
        raise blamed(config, ConfigError(problems))
    splits = splits or view.split(dataset)
    if not view.batch_size:
        view.batch_size = suitable_batch(len(splits["train"]))
        config = config.with_value("dataset", "batch_size", view.batch_size)
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
    assert spec is not None
    prepared = Prepared(config, trainer, dataset, view, splits, regularizers, spec, system, steps, [])
    prepared.notes += [*dataset.notes(), *_notes(prepared)]
    return prepared


FEW_STEPS = 20


def suitable_batch(samples: int) -> int:
    """A power of two that makes about 20 batches of a small dataset, and 128 of a large one."""
    return 1 << min(7, max(2, (samples // 20).bit_length() - 1))


def _notes(prepared: Prepared) -> list[str]:
    """What may surprise: a training of very few steps, classes that a split lacks."""
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
            there = set(class_labels(part.source)[part.index].tolist())
            missing = [text for number, text in enumerate(entry.classes) if number not in there]
            if missing and there and len(entry.classes) > 1:
                some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
                notes.append(f"{split} has no sample of {len(missing)} of {len(entry.classes)} classes: {some}")
    return notes


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
    """`prepare` for several configurations: a dataset that they share is read once, and split once for each view."""

    def __init__(self) -> None:
        self._datasets: dict[str, Dataset] = {}
        self._splits: dict[str, dict[str, AnySplit]] = {}

    def __call__(self, config: Config) -> Prepared:
        blocks = class_block(config, "dataset"), config["dataset"]
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
    with Signals(raises=True):
        prepared = prepare(config)
        start = load_weights(newest_checkpoint(fork) / "last.safetensors") if fork else None
        if fork and start is not None:
            _check_fit(start, prepared.system, fork)
        if at is None:
            preflight(prepared)
        world = World.join(prepared.trainer.device)
        try:
            with Signals():  # a run that is begun is also ended
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
    config, spec = prepared.config, prepared.spec
    data = {**fingerprint(prepared.dataset), "brightness": brightness(prepared.splits["train"], spec)}
    if at is not None:
        if inside(at.parent, at.name).exists() and not owner_is_alive(at):
            shutil.rmtree(at)  # its process was killed before it was a run
        folder = RunFolder.create_at(at)
    else:
        title = "-".join(str(config.choices[group]) for group in ("model", "dataset", "optimizer"))
        folder = RunFolder.create(config["output_root"], str(config["name"] or config.choices["model"]), title)
    with folder.whole_or_gone():
        folder.write_spec(spec.to_dict(), spec.files())
        folder.write_data(data)
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

    changed: what in `config` is not as it was (`dlx.config.diff`); it is recorded. Raises UserError for a finished
    run that has no step left to do.
    """
    with Signals(raises=True):
        return _resume(folder, config, changed=changed, quiet=quiet, watch=watch)


def _resume(
    folder: RunFolder, config: Config, *, changed: dict[str, Any] | None, quiet: bool, watch: Watch | None
) -> Result:
    newest, _ = latest_checkpoint(folder.checkpoints)
    prepared = prepare(without_weights(config) if newest else config, run=folder)
    for line in changes(folder.data(), fingerprint(prepared.dataset)):
        prepared.notes.append(f"the data changed since the run began: {line}")
    if newest:
        _check_boundaries(folder, newest, prepared)
    if newest and step_of(newest) > prepared.total_steps:
        raise UserError(
            f"{folder.path}: {step_of(newest)} steps are done, more than the {prepared.total_steps} that are asked for"
        )
    longer = {"trainer.epochs", "trainer.max_steps"} & set(changed or ())
    done = newest is not None and (not longer or step_of(newest) >= prepared.total_steps)
    done = done and not _lost(folder, newest)
    if folder.status()["status"] == "finished" and done:
        raise UserError(_is_finished(folder, prepared))
    if newest and longer and prepared.total_steps and (jump := _note_of_jump(folder, step_of(newest), prepared)):
        prepared.notes.append(jump)
    world = World.join(prepared.trainer.device)
    try:
        with Signals():
            if world.is_main:
                folder.take()
            with folder.released_on_error():
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


def _note_of_jump(folder: RunFolder, step: int, prepared: Prepared) -> str | None:
    """Of a training that is to be longer or shorter than it was, what this does to the learning rate at its next step:
    a schedule is over the whole training."""
    config, system = prepared.config, prepared.system
    trainer = build(load_frozen(folder.config_path, trust=config.trust), "trainer")
    before, after = trainer.total_steps(system, prepared.steps_per_epoch), prepared.total_steps
    schedule, lr = build(config, "scheduler"), config["optimizer"]["lr"]

    def rate(step: int, total: int) -> float:
        stages = [*system.stage_starts(total), max(total, step + 1)]
        stage = bisect_right(stages, step) - 1
        return lr * schedule.factor(step - stages[stage], stages[stage + 1] - stages[stage])

    old, new = rate(step - 1, before), rate(step, after)
    if abs(new - old) <= 0.1 * max(abs(new), abs(old)):
        return None
    scheduler = config.choices["scheduler"]
    return (
        f"the learning rate goes from {old:.3g} to {new:.3g} at step {step + 1:,}: {scheduler} is over {after:,} steps "
        f"now, not {before:,}"
    )


def _is_finished(folder: RunFolder, prepared: Prepared) -> str:
    """What a person is told who resumes a run that has nothing left to do: why, and what goes on with it."""
    trainer, anew = prepared.trainer, f"`dlx train --from {folder.name}` starts it anew"
    if early := folder.summary().get(EARLY):
        fork = f"`dlx resume {folder.name} --fork reg=[]` goes on from its weights without it"
        return f"{folder.path}: this run is finished: {early} ended it; {fork}, {anew}"
    if not prepared.total_steps:
        return f"{folder.path}: this run is finished; {anew}"
    longer = f"max_steps={2 * trainer.max_steps}" if trainer.max_steps else f"epochs={2 * trainer.epochs}"
    return f"{folder.path}: this run is finished; trainer.{longer} goes on with it, {anew}"


def _lost(folder: RunFolder, newest: Path | None) -> bool:
    """Whether a run that is finished has something left to do: a full disk had no room for its last checkpoint or its
    summary, or a mistake kept it from being judged on the test split."""
    summary = folder.summary()
    steps = summary.get("steps")
    is_older = newest is not None and isinstance(steps, int) and step_of(newest) < steps
    return is_older or not summary or "lacks" in summary


def _check_boundaries(folder: RunFolder, newest: Path, prepared: Prepared) -> None:
    """Raises UserError where a longer or shorter training would have begun a stage elsewhere than this one did."""
    if not prepared.system.defines("stage_starts"):
        return
    with naming(newest):
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
    system = build_system(config, prepared.spec)
    if prepared.trainer.init_from is not None and checkpoint is None:
        said = load_into(system, prepared.trainer.init_from, config["output_root"])
        if world.is_main:
            note(said)
    loader = partial(
        make_loader, entries=system.spec.entries, view=view, device=world.device, seed=seed, rank=world.rank,
        world_size=world.size, store=store, look=Signals.overdue,
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
    grouping = build_shared(config, "optimizer")
    return Job(
        clip_norms=grouping.clip_norms,
        system=system,
        data=data,
        make_optimizers=lambda system, objectives: build_optimizers(
            system, objectives, class_block(config, "optimizer"), grouping, partial(_make_optimizer, config)
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
    session = open_session(prepared.config, folder, world, quiet=quiet, resumed=resumed)
    # --quiet leaves out how far a run is; what should be known of many members was said before they began.
    for line in prepared.notes if world.is_main and not (quiet and plan_folder(folder.path)) else ():
        session.recorder.warn(line)
    if resumed:
        session.recorder.resumed(step_of(checkpoint) if checkpoint else 0, changed or {})
    with session, Signals(raises=True):
        job = build_job(prepared, world, session.recorder, folder, checkpoint, start, watch)
        try:
            outcome = trainer.fit(job)
        except Diverged as error:
            raise error.explained(job.data.train) from None
        session.ended(job, outcome)
    return session.result


def open_session(config: Config, folder: RunFolder, world: World, *, quiet: bool, resumed: bool) -> Session:
    """A session in a folder that is this process's. Where it cannot begin, a new folder is no more."""
    with folder.released_on_error() if resumed or not world.is_main else folder.whole_or_gone():
        return Session(config, folder, world, quiet)


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
            training=False, look=Signals.overdue,
        )  # fmt: skip


def open_all(folder: RunFolder, *, trust: tuple[str, ...] = (), overrides: Sequence[str] = ()) -> Opened:
    """overrides: of the dataset's keys, for data that lie elsewhere now. Raises UserError where classes differ."""
    config = folder.load_config(trust=trust)
    check_is_run(folder, config)
    if overrides:
        config = compose([*overrides], base=config)
    trainer, dataset, view = build(config, "trainer"), build(config, "dataset"), build_shared(config, "dataset")
    check_classes(load_spec(folder, trust=trust), view.spec(dataset))
    for line in changes(folder.data(), fingerprint(dataset)):
        note(f"warning: the data changed since the run began: {line}")
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
