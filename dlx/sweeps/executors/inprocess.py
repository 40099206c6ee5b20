"""The executor `inprocess`: one member after another in this process."""

from __future__ import annotations

from collections.abc import Iterable

from dlx.config.errors import UserError, reason_of
from dlx.runs.folder import ENDED, RunFolder
from dlx.sweeps.executors.execution import Execution, OnResult
from dlx.sweeps.plan import Interrupted, Plan
from dlx.sweeps.search.pruning import should_prune_of
from dlx.training import run as training
from dlx.training.session import Result, val_and_test
from dlx.training.signals import Signals, exit_code


class InProcess:
    def __init__(self, execution: Execution) -> None:
        if (execution.jobs or 1) > 1:
            raise UserError("--jobs needs another --executor than inprocess")

    def __call__(self, plan: Plan, names: Iterable[str], on_result: OnResult) -> None:
        run_members(plan, names, on_result)


def run_members(plan: Plan, names: Iterable[str], on_result: OnResult) -> None:
    for name in names:
        result = run_member(plan, name)
        if result.status == "interrupted":
            raise Interrupted(result.code)
        on_result(name, result)
        if signum := Signals.pending():  # received while the run was finishing, which a signal does not interrupt
            raise Interrupted(exit_code(signum))


def run_member(plan: Plan, name: str) -> Result:
    """Starts or resumes one member; the result of one that has ended is read. Never raises for a failed member."""
    folder, config = plan.run(name), plan.members[name]
    try:
        if not folder.config_path.exists():
            return training.train(config, quiet=True, at=folder.path, should_prune=should_prune_of(plan.path, name))
        return ended_result(folder) or training.resume(
            folder, config, quiet=True, should_prune=should_prune_of(plan.path, name)
        )
    except Exception as error:  # any failure of a member is its result; the other members go on
        code = error.exit_code if isinstance(error, UserError) else 1
        return Result(folder.path, "failed", code, {}, reason_of(error))


def ended_result(folder: RunFolder) -> Result | None:
    """The result of a run that has ended, from its folder; None for a run that can go on."""
    status = folder.status()
    if status["status"] not in ENDED:
        return None
    code = 3 if status["status"] == "diverged" else 0
    return Result(folder.path, status["status"], code, val_and_test(folder.summary()), status.get("reason"))
