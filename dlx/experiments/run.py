"""An experiment from its configuration to its folder: plan, runs, measures, figure, verdict."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx.config import Config, build
from dlx.config.errors import UserError
from dlx.runs.files import write_picture
from dlx.runs.folder import RunFolder
from dlx.sweeps.executors import make_executor
from dlx.sweeps.plan import Interrupted, Plan, check_alone, told
from dlx.training.progress import PlanProgress
from dlx.training.session import Result

if TYPE_CHECKING:
    from dlx.experiments.experiment import Experiment, Verdict
    from dlx.sweeps.executors import Execution


@dataclass(frozen=True)
class Finding:
    """What an experiment left: its folder, what was measured, the verdict. code: 0, 1 (a member failed; to diverge may
    be what is looked for) or 130."""

    path: Path
    status: str
    code: int
    measured: dict[str, Any] = field(default_factory=dict)
    verdict: Verdict | None = None
    results: dict[str, Result] = field(default_factory=dict)


def build_experiment(config: Config) -> Experiment:
    return build(config, "experiment")


def run_experiment(
    config: Config, execution: Execution, *, quiet: bool = False, command: list[str] | None = None
) -> Finding:
    """Runs what the configuration's `experiment` block names, in a new folder."""
    check_alone()
    experiment = build_experiment(config)
    base = config.without("experiment")
    members = experiment.members(base)  # composed and checked before anything is written
    name = str(config["name"] or config.choices["experiment"])
    folder = RunFolder.create(config["output_root"], name, str(config.choices["experiment"]))
    folder.write_config(config.to_yaml())
    folder.write_environment(command or sys.argv)
    plan = Plan.write(folder.path, members, base)
    return _run(experiment, config, folder, plan, execution, quiet)


def resume_experiment(folder: RunFolder, config: Config, execution: Execution, *, quiet: bool = False) -> Finding:
    """Goes on with the runs that are not finished, then measures."""
    experiment = build_experiment(config)
    folder.lock.acquire()
    if folder.is_plan:
        plan = Plan.load(folder.path, trust=config.trust)
    else:  # cut off before the plan was whole, so before anything ran
        base = config.without("experiment")
        plan = Plan.write(folder.path, experiment.members(base), base)
    return _run(experiment, config, folder, plan, execution, quiet)


def _run(
    experiment: Experiment, config: Config, folder: RunFolder, plan: Plan, execution: Execution, quiet: bool
) -> Finding:
    started = time.perf_counter()
    try:
        with told(folder) as ending:
            results: dict[str, Result] = {}
            with PlanProgress(len(plan.members), quiet or not plan.members) as progress:

                def tell(name: str, result: Result) -> None:
                    results[name] = result
                    progress.done(name, result)

                make_executor(execution)(plan, plan.members, tell)
            runs = {name: plan.run(name) for name in plan.members}
            failed = [name for name, result in results.items() if result.status == "failed"]
            try:
                measured = experiment.measure(config.without("experiment"), runs)
            except Exception as error:
                if failed:  # which is why
                    raise _nothing_to_measure(folder, failed, len(results)) from error
                raise
            verdict = experiment.verdict(measured)
            write_picture(folder.media / "figure.png", experiment.figure(measured))
            folder.write_summary(
                {
                    "held": verdict.held,
                    "verdict": verdict.line,
                    "measured": measured,
                    "members": {name: result.status for name, result in results.items()},
                    "seconds": round(time.perf_counter() - started, 3),
                }
            )
            ending["reason"] = f"{len(failed)} of {len(results)} members failed" if failed else None
            return Finding(folder.path, "finished", 1 if failed else 0, measured, verdict, results)
    except Interrupted as error:
        return Finding(folder.path, "interrupted", error.code)


def _nothing_to_measure(folder: RunFolder, failed: Sequence[str], count: int) -> UserError:
    error = UserError(
        f"{len(failed)} of {count} members failed ({', '.join(failed[:3])}), and without them nothing can be measured; "
        f"dlx resume {folder.path} tries them again"
    )
    error.exit_code = 1  # nothing was wrong with the request
    return error
