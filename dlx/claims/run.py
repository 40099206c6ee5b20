"""An experiment from its configuration to its folder: plan, runs, measures, figure, verdict."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx.config import Config, build
from dlx.config.changes import changes
from dlx.config.errors import ConfigError, Problem, UserError
from dlx.config.groups import GROUPS
from dlx.config.signature import read
from dlx.runs.folder import RunFolder
from dlx.sweeps.check import check_members
from dlx.sweeps.executors import make_executor
from dlx.sweeps.plan import LOST, Interrupted, Plan, check_alone, told
from dlx.training.preflight import check_folder
from dlx.training.progress import PlanProgress
from dlx.training.session import Result

if TYPE_CHECKING:
    from dlx.claims.claim import Experiment, Verdict
    from dlx.sweeps.executors import Execution


OWN = ("name", "output_root")  # say where an experiment is written


@dataclass(frozen=True)
class Finding:
    """What an experiment left: its folder, what was measured, the verdict. code: 0, 1 (a member failed; to diverge may
    be what is looked for), 5 (something was lost) or 130. lost: what was lost on the way."""

    path: Path
    status: str
    code: int
    measured: dict[str, Any] = field(default_factory=dict)
    verdict: Verdict | None = None
    results: dict[str, Result] = field(default_factory=dict)
    lost: tuple[str, ...] = ()


def build_experiment(config: Config) -> Experiment:
    return build(config, "experiment")


def draft_experiment(config: Config, execution: Execution) -> tuple[Experiment, Config, dict[str, Config]]:
    """The experiment, what its runs have in common, and the runs by name; nothing is written. Raises UserError for
    what cannot run, and for overrides that would be without effect."""
    check_alone()
    if "method" in config.values:
        raise UserError(f"method: {config.choices['experiment']} trains what its claim needs; leave it out")
    experiment = build_experiment(config)
    base = config.without("experiment")
    members = experiment.members(base)
    check_overrides(config, experiment, base)
    check_members(members, here=execution.here)
    check_folder(config, name_of(config))
    return experiment, base, members


def name_of(config: Config) -> str:
    """Of the folder that an experiment's own is in."""
    return str(config["name"] or config.choices["experiment"])


def check_overrides(config: Config, experiment: Experiment, base: Config) -> None:
    """Raises UserError for typed keys that the claim sets itself, or does not read."""
    name = config.choices["experiment"]
    members = experiment.members(replace(base, typed={}))
    # What a member is given can also be what was typed. What some members keep has an effect on these.
    changed = [{*changes(base, member), *member.typed} for member in members.values()]
    varied = {*experiment.varies, *(set.intersection(*changed) if changed else ())}
    varied |= {
        group for member in members.values() for group in GROUPS if member.choices.get(group) != base.choices.get(group)
    }
    problems = []
    for key, argument in config.typed.items():
        if key.partition(".")[0] == "experiment" or key in OWN:
            continue
        if any(key == other or _within(key, other) or (_within(other, key) and key not in GROUPS) for other in varied):
            settings = ", ".join(f"experiment.{own}" for own in vars_of(experiment)) or "nothing"
            what = f"{name} varies it itself, so {argument} would be without effect; it takes {settings}"
            problems.append(Problem(key, what))
        elif not members and not any(key == other or _within(key, other) for other in experiment.reads):
            reads = ", ".join(experiment.reads)
            problems.append(Problem(key, f"{name} trains nothing and reads {reads} alone; {argument} has no effect"))
    if problems:
        raise ConfigError(problems)


def _within(key: str, block: str) -> bool:
    return key.startswith(f"{block}.")


def vars_of(experiment: Experiment) -> list[str]:
    """The settings of a claim, as its constructor names them."""
    signature = read(f"{type(experiment).__module__}.{type(experiment).__qualname__}")
    return list(signature.params) if signature else []


def run_experiment(
    config: Config, execution: Execution, *, quiet: bool = False, command: list[str] | None = None
) -> Finding:
    """Runs what the configuration's `experiment` block names, in a new folder."""
    experiment, base, members = draft_experiment(config, execution)
    folder = RunFolder.create(config["output_root"], name_of(config), str(config.choices["experiment"]))
    with folder.whole_or_gone():
        folder.write_config(config.to_yaml())
        folder.write_environment(command or sys.argv)
        plan = Plan.write(folder.path, members, base)
    return _run(experiment, config, folder, plan, execution, quiet)


def resume_experiment(folder: RunFolder, config: Config, execution: Execution, *, quiet: bool = False) -> Finding:
    """Goes on with the runs that are not finished, then measures."""
    experiment = build_experiment(config)
    folder.take()
    with folder.released_on_error():
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
            ending.finish(
                {
                    "held": verdict.held,
                    "verdict": verdict.line,
                    "measured": measured,
                    "members": {name: result.status for name, result in results.items()},
                    "seconds": round(time.perf_counter() - started, 3),
                },
                f"{len(failed)} of {len(results)} members failed" if failed else None,
            )
            ending.draw("figure", lambda: experiment.figure(measured))
        code = 1 if failed else LOST if ending.lost else 0
        return Finding(folder.path, "finished", code, measured, verdict, results, tuple(ending.lost))
    except Interrupted as error:
        return Finding(folder.path, "interrupted", error.code)


def _nothing_to_measure(folder: RunFolder, failed: Sequence[str], count: int) -> UserError:
    error = UserError(
        f"{len(failed)} of {count} members failed ({', '.join(failed[:3])}), and without them nothing can be measured; "
        f"dlx resume {folder.path} tries them again"
    )
    error.exit_code = 1  # nothing was wrong with the request
    return error
