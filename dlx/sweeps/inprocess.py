"""The plainest executor: one member after another, in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dlx.config.errors import UserError
from dlx.training import run as training

if TYPE_CHECKING:
    from dlx.sweeps.plan import Plan
    from dlx.training.run import Result


class Interrupted(Exception):
    """A signal ended a member, and with it the plan; `code` is the exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"interrupted (exit code {code})")
        self.code = code


def execute(plan: Plan, tell: Callable[[str, Result], None]) -> dict[str, Result]:
    """Runs what is not finished, resumes what was cut off, leaves what is finished.

    tell: called with each member's name and result. A member that fails or diverges is recorded, and the rest go on.
    Raises Interrupted.
    """
    results = {}
    for name in plan.members:
        results[name] = _run(plan, name)
        if results[name].status == "interrupted":
            raise Interrupted(results[name].code)
        tell(name, results[name])
    return results


def _run(plan: Plan, name: str) -> Result:
    folder, config = plan.run(name), plan.members[name]
    try:
        if not folder.config_path.exists():
            return training.train(config, quiet=True, at=folder.path)
        status = folder.status()
        if status["status"] in ("finished", "diverged"):
            code = 0 if status["status"] == "finished" else 3
            return training.Result(folder.path, status["status"], code, training.judged(folder.summary()))
        return training.resume(folder, config, quiet=True)
    except Exception as error:  # whatever ends a member, the others go on, and it is said
        code = error.exit_code if isinstance(error, UserError) else 1
        return training.Result(folder.path, "failed", code, {}, f"{type(error).__name__}: {error}")
