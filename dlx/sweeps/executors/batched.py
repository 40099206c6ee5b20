"""The batched executor: members that share a program train as one, each in its own run folder.

Members share a program where their configurations differ only in the numbers that it is run with: seeds, splits of the
data, settings of the optimizer, of the schedule, and of what is done to batches. Members that cannot be batched run one
after another, and a note says why.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from dlx.batched.loader import SourceStore
from dlx.batched.stack import Stack, fit_stack
from dlx.batched.vmapped import NotBatchable
from dlx.config import class_block
from dlx.config.errors import UserError, reason_of
from dlx.config.keys import flatten
from dlx.config.screen import note
from dlx.runs.checkpoint import latest_checkpoint, step_of
from dlx.runs.folder import ENDED, RunFolder
from dlx.sweeps.executors.execution import Execution, OnResult
from dlx.sweeps.executors.inprocess import run_members
from dlx.sweeps.plan import SEARCH, Interrupted, Plan
from dlx.sweeps.search.pruning import should_prune_of
from dlx.tracking.recorder import Recorder
from dlx.training.distributed import Dist
from dlx.training.diverged import Diverged
from dlx.training.load import without_weights
from dlx.training.loop import Loop
from dlx.training.prepare import Prepared, Preparer
from dlx.training.progress import Progress
from dlx.training.run import build_loop, open_folder, open_session
from dlx.training.session import Result, Session
from dlx.training.signals import Signals, exit_code
from dlx.training.threads import choose_threads

OWN_GROUPS = ("seed", "name", "output_root", "tracker", "scheduler")
OWN_DATA = ("fold", "folds", "bootstrap", "split_seed", "subset", "weights", "targets")
SEARCH_BATCH = 8  # members of a search that start together: with more it would learn nothing in between
TIMED = 3  # steps, of which the fastest counts


@dataclass(frozen=True, eq=False)
class Member:
    """A run that can start, or go on from its checkpoint."""

    name: str
    folder: RunFolder
    prepared: Prepared
    checkpoint: Path | None

    @property
    def program(self) -> str:
        """What members of one stack have in common."""
        values = {key: value for key, value in self.prepared.config.values.items() if key not in OWN_GROUPS}
        data, optimizer = values["dataset"], values["optimizer"]
        of_dataset = class_block(self.prepared.config, "dataset")  # members share one dataset
        values["dataset"] = {key: value for key, value in data.items() if key not in OWN_DATA or key in of_dataset}
        values["optimizer"] = {key: optimizer.get(key) for key in ("_target_", "no_decay", "players")}
        parts = self.prepared.regularizers
        values["regularization"] = {
            name: block if parts[name].defines("penalty") else block["_target_"]
            for name, block in values["regularization"].items()
        }
        step = step_of(self.checkpoint) if self.checkpoint else 0
        sizes = (self.prepared.steps_per_epoch, step, data.get("weights") is not None)
        partial = None if self.prepared.settings.drop_last else len(self.prepared.splits["train"])
        return json.dumps([values, sizes, partial], sort_keys=True, default=str)


class Batched:
    """jobs: most members of a stack; None is all, and SEARCH_BATCH in a search. `--executor auto` runs them one after
    another if that is measured to be faster."""

    def __init__(self, execution: Execution) -> None:
        self.jobs, self.chooses, self.quiet = execution.jobs, execution.executor == "auto", execution.quiet
        self._prepare = Preparer()
        self._store = SourceStore()

    def __call__(self, plan: Plan, names: Iterable[str], on_result: OnResult) -> None:
        waiting, jobs = iter(names), self.jobs or (SEARCH_BATCH if (plan.path / SEARCH).is_file() else None)
        while chunk := list(islice(waiting, jobs)):
            programs: dict[str, list[Member]] = {}
            for name in chunk:
                if member := self._member(plan, name):
                    programs.setdefault(member.program, []).append(member)
                else:
                    run_members(plan, [name], on_result)
            if len(programs) > 1:
                note(f"batched: {_why_several(list(programs.values()))}")
            for members in programs.values():
                stack = self._stack(plan, members) if len(members) > 1 else None
                left = _train(stack, members, on_result, self.quiet) if stack else [member.name for member in members]
                run_members(plan, left, on_result)

    def _member(self, plan: Plan, name: str) -> Member | None:
        """None for a member that has ended or cannot start: its own run reports that."""
        folder, config = plan.run(name), plan.members[name]
        checkpoint = None
        if folder.config_path.exists():
            if folder.status()["status"] in ENDED:
                return None
            checkpoint, _ = latest_checkpoint(folder.checkpoints)
        try:
            prepared = self._prepare(without_weights(config) if checkpoint else config)
        except UserError:
            return None
        return Member(name, folder, prepared, checkpoint)

    def _stack(self, plan: Plan, members: Sequence[Member]) -> Stack | None:
        """The members ready to train as one; None if they cannot, or with `auto` if they are faster alone."""
        try:
            return self._build_stack(plan, members)
        except NotBatchable as error:
            reason = str(error)
        except Exception as error:  # of any member: each reports its own when it runs alone
            reason = reason_of(error)
        note(f"batched: {len(members)} members run one after another: {reason}")
        return None

    def _build_stack(self, plan: Plan, members: Sequence[Member]) -> Stack | None:
        first = members[0].prepared
        dist = Dist.init(first.trainer.device)
        if dist.device.type == "cpu":
            samples = first.settings.batch_size * len(members)
            torch.set_num_threads(first.trainer.threads or choose_threads(first.system, samples))
        loops = [
            build_loop(
                member.prepared,
                dist,
                Recorder(),
                member.folder,
                member.checkpoint,
                should_prune=should_prune_of(plan.path, member.name),
                store=self._store,
            )
            for member in members
        ]
        stack = Stack(first.trainer, loops)
        stack.evaluate([loop.loaders.val for loop in loops])
        together, alone = measure(stack)
        if alone < together:
            if not self.quiet:
                times = f"{1e3 * together:.1f} ms a step as one, {1e3 * alone:.1f} ms one by one"
                note(f"batched: {len(members)} members take {times}")
            return None if self.chooses else stack
        return stack


def measure(stack: Stack) -> tuple[float, float]:
    """Seconds of a step's passes, of all members as one and of all one after another. No member is changed."""
    loop = stack.loops[0]
    epoch, position = divmod(loop.state.step, loop.loaders.train.steps_per_epoch)
    batch = {**stack.regularized(next(stack.loader.epoch(epoch, position))), **stack.counters()}
    draws = stack.drawn(batch)
    buffers = {name: buffer.clone() for name, buffer in stack.buffers.items()}
    together = _fastest(lambda: stack.program.gradients(stack.params, buffers, batch, draws))
    system = copy.deepcopy(loop.system).train()
    own = stack.own(batch, 0)
    (objective,) = system.objectives()
    alone = _fastest(lambda: system.training_loss(own, objective)[0].backward())
    return together, alone * len(stack.loops)


def _fastest(run: Callable[[], Any]) -> float:
    times = []
    for _ in range(TIMED + 1):
        started = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])  # the first traces


def _why_several(programs: Sequence[Sequence[Member]]) -> str:
    """How many programs there are, and a key that differs between the first two."""
    first, second = (dict(flatten(json.loads(members[0].program)[0])) for members in programs[:2])
    key = next((key for key in first | second if first.get(key) != second.get(key)), "the size of the data")
    return f"{sum(map(len, programs))} members are {len(programs)} programs, since {key} differs; each trains apart"


def _train(stack: Stack, members: Sequence[Member], on_result: OnResult, quiet: bool) -> list[str]:
    """Trains a stack; each member's folder is opened now and closed when the member ends.

    Returns the members that have not ended if the stack itself failed: they go on alone, from their checkpoints.
    """
    sessions: dict[Loop, tuple[str, Session]] = {}
    left = [member.name for member in members]

    def ended(loop: Loop, diverged: Diverged | None) -> None:
        name, session = sessions.pop(loop)
        left.remove(name)
        try:
            with session:
                if diverged:
                    raise diverged
                session.ended(loop)
        except Exception as error:  # a member's failure is its result; the others go on
            on_result(name, Result(session.folder.path, "failed", 1, {}, reason_of(error)))
            return
        if session.result.status != "interrupted":
            on_result(name, session.result)

    try:
        for member, loop in zip(members, list(stack.loops), strict=True):
            session = _open(member, loop.dist)
            sessions[loop] = member.name, session
            loop.recorder = session.recorder
            loop.recorder.begin(loop.state.step, loop.total, loop.loaders.train.steps_per_epoch)
        received = fit_stack(stack, ended, Progress(quiet))
    except Exception as error:  # which member caused it shows when each runs alone
        note(f"batched: {len(left)} members go on one after another: {reason_of(error)}")
        for _, session in sessions.values():
            with session:
                session.abandon("the stack that it trained in failed")
        return left
    except BaseException as error:
        for _, session in sessions.values():
            session.__exit__(type(error), error, error.__traceback__)
        raise
    if received := received or Signals.pending():
        raise Interrupted(exit_code(received))
    return []


def _open(member: Member, dist: Dist) -> Session:
    folder = member.folder
    resumed = folder.config_path.exists()
    with Signals():  # a signal waits until the session can end the run
        if resumed:
            folder.take()
        else:
            folder = open_folder(member.prepared, at=folder.path)
        session = open_session(member.prepared, folder, dist, quiet=True, resumed=resumed)
    if resumed:
        session.recorder.resumed(step_of(member.checkpoint) if member.checkpoint else 0, {})
    return session
