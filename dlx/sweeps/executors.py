"""Executors: how a plan's members are run. All leave the same folders; one that fails is recorded, the rest go on.

An executor is called with the plan, the names of members to run, and whom to tell how each ended. It takes a name only
when there is a place for it, so that names may come from whoever decides by what was told before: a search, a chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlx.config.errors import UserError, reason_of
from dlx.runs.folder import ENDED
from dlx.sweeps.plan import Interrupted
from dlx.sweeps.search import should_prune_of
from dlx.training import run as training
from dlx.training.session import Result, val_and_test
from dlx.training.signals import Signals, exit_code

if TYPE_CHECKING:
    from dlx.sweeps.plan import Plan

Tell = Callable[[str, Result], None]
Executor = Callable[["Plan", Iterable[str], Tell], None]
"""Raises Interrupted at a signal; of a member that was cut off by it nothing is told."""

EXECUTORS = ("inprocess", "processes", "batched", "auto", "ray", "slurm")


@dataclass(frozen=True)
class Execution:
    """What a person chose.

    jobs: members at a time; None is what suits the executor. time_limit: seconds for each member; None: no limit.
    slurm: what is asked of Slurm for each member, such as partition=gpu. quiet: how far it is is not shown.
    """

    executor: str = "inprocess"
    jobs: int | None = None
    time_limit: float | None = None
    trust: tuple[str, ...] = ()
    slurm: tuple[str, ...] = ()
    quiet: bool = False

    @property
    def here(self) -> bool:
        """Whether members run on this machine."""
        return self.executor not in ("ray", "slurm")


def make_executor(execution: Execution) -> Executor:
    """Raises UserError for an executor that is not there, or values that it cannot take."""
    if execution.executor not in EXECUTORS:
        raise UserError(f"--executor {execution.executor}: there is none; {', '.join(EXECUTORS)} are there")
    if execution.jobs is not None and execution.jobs < 1:
        raise UserError(f"--jobs: must be at least 1, got {execution.jobs}")
    if execution.slurm and execution.executor != "slurm":
        raise UserError("--slurm needs --executor slurm")
    if execution.executor == "processes":
        from dlx.sweeps.processes import Processes

        return Processes(execution)
    if execution.executor == "ray":
        from dlx.sweeps.ray_ import Ray

        return Ray(execution)
    if execution.executor == "slurm":
        from dlx.sweeps.slurm import Slurm

        return Slurm(execution)
    if execution.time_limit is not None:
        raise UserError("--time-limit needs --executor processes, ray or slurm")
    if execution.executor in ("batched", "auto"):
        from dlx.sweeps.batched import Batched

        return Batched(execution, chooses=execution.executor == "auto")
    if (execution.jobs or 1) > 1:
        raise UserError("--jobs needs another --executor than inprocess")
    return in_this_process


def run_member(plan: Plan, name: str) -> Result:
    """Runs, resumes or leaves alone one member; whatever ends it is in the result."""
    folder, config = plan.run(name), plan.members[name]
    try:
        if not folder.config_path.exists():
            return training.train(config, quiet=True, at=folder.path, should_prune=should_prune_of(plan.path, name))
        status = folder.status()
        if status["status"] in ENDED:
            code = 3 if status["status"] == "diverged" else 0
            figures = val_and_test(folder.summary())
            return Result(folder.path, status["status"], code, figures, status.get("reason"))
        return training.resume(folder, config, quiet=True, should_prune=should_prune_of(plan.path, name))
    except Exception as error:  # whatever ends a member, the others go on, and it is said
        code = error.exit_code if isinstance(error, UserError) else 1
        return Result(folder.path, "failed", code, {}, reason_of(error))


def in_this_process(plan: Plan, names: Iterable[str], tell: Tell) -> None:
    """One member after another."""
    for name in names:
        result = run_member(plan, name)
        if result.status == "interrupted":
            raise Interrupted(result.code)
        tell(name, result)
        if signum := Signals.pending():  # it came while the run was ended, which it does not cut
            raise Interrupted(exit_code(signum))
