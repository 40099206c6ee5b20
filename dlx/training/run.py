"""Trains and resumes runs."""

from __future__ import annotations

import shutil
import sys
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dlx.config import Config, build
from dlx.config.errors import UserError
from dlx.config.screen import note
from dlx.data.fingerprint import brightness, changes, fingerprint
from dlx.random import reseed
from dlx.runs.checkpoint import latest_checkpoint, load_state, load_weights, step_of
from dlx.runs.files import inside
from dlx.runs.find import plan_folder
from dlx.runs.folder import RunFolder, load_frozen
from dlx.runs.lock import owner_is_alive
from dlx.training.distributed import Dist
from dlx.training.diverged import Diverged
from dlx.training.load import adopt, build_system, load_into, newest_checkpoint, without_weights
from dlx.training.loaders import make_loaders
from dlx.training.loop import Loop
from dlx.training.preflight import check_processes, preflight
from dlx.training.prepare import prepare
from dlx.training.session import EARLY, Result, Session
from dlx.training.signals import Signals
from dlx.training.state import naming
from dlx.training.threads import choose_threads

if TYPE_CHECKING:
    from torch import Tensor

    from dlx.data.loader import DeviceStore
    from dlx.tasks.system import System
    from dlx.tracking.recorder import Recorder
    from dlx.training.loop import ShouldPrune
    from dlx.training.prepare import Prepared


def train(
    config: Config,
    *,
    quiet: bool = False,
    command: list[str] | None = None,
    fork: RunFolder | None = None,
    at: Path | None = None,
    should_prune: ShouldPrune | None = None,
) -> Result:
    """Trains what the configuration says in a new run folder.

    fork: a run whose newest weights it begins with. at: the folder's path, for a member of a plan. should_prune: as in
    `Loop`.
    """
    with Signals(raises=True):
        dataset = build(config, "dataset") if fork else None
        if fork and dataset:
            adopt(dataset, fork, config)
        prepared = prepare(config, dataset=dataset)
        start = load_weights(newest_checkpoint(fork) / "last.safetensors") if fork else None
        if fork and start is not None:
            _check_fit(start, prepared.system, fork)
        if at is None:
            preflight(prepared)
        dist = Dist.init(prepared.trainer.device)
        try:
            with Signals():  # a run that is begun is also ended
                created = open_folder(prepared, at, command, fork) if dist.is_main else None
                path = dist.broadcast(created.path if created else None)
                folder = created or RunFolder(path)
                return _run(prepared, folder, dist, quiet=quiet, start=start, should_prune=should_prune)
        finally:
            dist.destroy()


def open_folder(
    prepared: Prepared, at: Path | None = None, command: list[str] | None = None, fork: RunFolder | None = None
) -> RunFolder:
    """Creates and locks a run folder, with every file that is known before the training starts."""
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
    """Raises UserError if the weights of `fork` do not fit `system` (on the meta device)."""
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
    should_prune: ShouldPrune | None = None,
) -> Result:
    """Continues a run from its newest checkpoint, in the same folder, to the same bits; from the start if it has none.

    changed: what in `config` is not as it was (`dlx.config.diff`); it is recorded. Raises UserError for a finished
    run that has no step left to do.
    """
    with Signals(raises=True):
        newest, _ = latest_checkpoint(folder.checkpoints)
        prepared = prepare(without_weights(config) if newest else config, run=folder)
        for line in changes(folder.data(), fingerprint(prepared.dataset)):
            prepared.notes.append(f"the data changed since the run began: {line}")
        step, total = step_of(newest) if newest else 0, prepared.total_steps
        if newest:
            _check_boundaries(folder, newest, prepared)
        if step > total:
            raise UserError(f"{folder.path}: {step} steps are done, more than the {total} that are asked for")
        longer = {"trainer.epochs", "trainer.max_steps"} & set(changed or ())
        done = newest is not None and (not longer or step >= total) and not _lost(folder, newest)
        if folder.status()["status"] == "finished" and done:
            raise UserError(f"{folder.path}: this run is finished{_how_to_go_on(folder, prepared)}")
        if newest and longer and total and (jump := _note_of_jump(folder, step, prepared)):
            prepared.notes.append(jump)
        check_processes(prepared)
        dist = Dist.init(prepared.trainer.device)
        try:
            with Signals():
                if dist.is_main:
                    folder.take()
                with folder.released_on_error():
                    # One process says which: on a shared file system others may not see the newest yet.
                    checkpoint, problems = dist.broadcast(
                        latest_checkpoint(folder.checkpoints) if dist.is_main else None
                    )
                    for problem in problems if dist.is_main else ():
                        note(f"warning: {problem}")
                    if dist.is_main and (problems or checkpoint is None):
                        where = f"the one before, {checkpoint.name}, is used" if checkpoint else "it begins anew"
                        note(f"warning: {folder.path}: no newer checkpoint that is whole; {where}")
                    if dist.is_main and changed:
                        folder.write_config(config.to_yaml())
                return _run(
                    prepared,
                    folder,
                    dist,
                    quiet=quiet,
                    checkpoint=checkpoint,
                    resumed=True,
                    changed=changed,
                    should_prune=should_prune,
                )
        finally:
            dist.destroy()


def _note_of_jump(folder: RunFolder, step: int, prepared: Prepared) -> str | None:
    """A warning if a changed length makes the learning rate jump at the next step (schedules span the training)."""
    config, system = prepared.config, prepared.system
    trainer = build(load_frozen(folder.config_path, trust=config.trust), "trainer")
    before, after = trainer.total_steps(system, prepared.steps_per_epoch), prepared.total_steps
    schedule, lr = prepared.schedule, config["optimizer"]["lr"]

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


def _how_to_go_on(folder: RunFolder, prepared: Prepared) -> str:
    """Why a run is finished, and which command continues it."""
    trainer, anew = prepared.trainer, f"`dlx train --from {folder.name}` starts it anew"
    if early := folder.summary().get(EARLY):
        fork = f"`dlx resume {folder.name} --fork reg=[]` goes on from its weights without it"
        return f": {early} ended it; {fork}, {anew}"
    if not prepared.total_steps:
        return f"; {anew}"
    longer = f"max_steps={2 * trainer.max_steps}" if trainer.max_steps else f"epochs={2 * trainer.epochs}"
    return f"; trainer.{longer} goes on with it, {anew}"


def _lost(folder: RunFolder, newest: Path | None) -> bool:
    """True if a finished run has something left to do: its last checkpoint, its summary or its test metrics are missing
    (a full disk, a bug in `evaluate`)."""
    summary = folder.summary()
    steps = summary.get("steps")
    is_older = newest is not None and isinstance(steps, int) and step_of(newest) < steps
    return is_older or not summary or "lacks" in summary


def _check_boundaries(folder: RunFolder, newest: Path, prepared: Prepared) -> None:
    """Raises UserError if the changed length would move the start of a stage that is already passed."""
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


def build_loop(
    prepared: Prepared,
    dist: Dist,
    recorder: Recorder,
    folder: RunFolder,
    checkpoint: Path | None,
    *,
    start: dict[str, Tensor] | None = None,
    should_prune: ShouldPrune | None = None,
    store: DeviceStore | None = None,
) -> Loop:
    """Builds a `Loop` with initial weights. store: keeps data that several runs share on a device."""
    reseed(prepared.config["seed"], "init")
    system = build_system(prepared.config, prepared.spec)
    if prepared.trainer.init_from is not None and checkpoint is None:
        missing = load_into(system, prepared.trainer.init_from, prepared.config["output_root"])
        if dist.is_main:
            note(missing)
    loaders = make_loaders(prepared, system, dist, store)
    return Loop(
        prepared, system, loaders, dist, recorder, folder.checkpoints,
        resume=checkpoint, start=start, should_prune=should_prune,
    )  # fmt: skip


def _run(
    prepared: Prepared,
    folder: RunFolder,
    dist: Dist,
    *,
    quiet: bool,
    checkpoint: Path | None = None,
    resumed: bool = False,
    changed: dict[str, Any] | None = None,
    start: dict[str, Tensor] | None = None,
    should_prune: ShouldPrune | None = None,
) -> Result:
    trainer = prepared.trainer
    if dist.device.type == "cpu":
        torch.set_num_threads(trainer.threads or choose_threads(prepared.system, prepared.settings.batch_size))
    session = open_session(prepared, folder, dist, quiet=quiet, resumed=resumed)
    # --quiet leaves out how far a run is; what should be known of many members was said before they began.
    for line in prepared.notes if dist.is_main and not (quiet and plan_folder(folder.path)) else ():
        session.recorder.warn(line)
    if resumed:
        session.recorder.resumed(step_of(checkpoint) if checkpoint else 0, changed or {})
    with session, Signals(raises=True):
        loop = build_loop(prepared, dist, session.recorder, folder, checkpoint, start=start, should_prune=should_prune)
        try:
            loop.run()
        except Diverged as error:
            raise error.explained(loop.loaders.train) from None
        session.ended(loop)
    return session.result


def open_session(prepared: Prepared, folder: RunFolder, dist: Dist, *, quiet: bool, resumed: bool) -> Session:
    """Opens a session in a locked folder. If that fails, a new folder is removed again."""
    with folder.released_on_error() if resumed or not dist.is_main else folder.whole_or_gone():
        return Session(prepared, folder, dist, quiet)
