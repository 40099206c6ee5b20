"""dlx train: one training."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from dlx.cli.options import ConfDirs, From, Json, OutputRoot, Overrides, Quiet, Trust, address, again, begin, trusted
from dlx.cli.output import print_json, say, say_values
from dlx.cli.sweep import (
    Executor,
    Jobs,
    Limit,
    Seeds,
    SlurmOptions,
    check_one_run,
    make_execution,
    run_points,
    sweep,
    words_of_seeds,
)
from dlx.config import compose
from dlx.config.errors import LOST
from dlx.runs.keys import shown_text

if TYPE_CHECKING:
    from dlx.sweeps.executors.execution import Execution
    from dlx.sweeps.points import Point
    from dlx.sweeps.sweep import SweepResult
    from dlx.training.prepare import Prepared
    from dlx.training.session import Result


def train(
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, start nothing.")] = False,
    from_run: From = None,
    multirun: Annotated[bool, typer.Option("--multirun", "-m", help="Sweep over comma lists, as `dlx sweep`.")] = False,
    seeds: Seeds = None,
    executor: Executor = "inprocess",
    jobs: Jobs = None,
    time_limit: Limit = None,
    slurm: SlurmOptions = None,
    conf_dir: ConfDirs = None,
    trust: Trust = None,
    root: OutputRoot = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train what the configuration says: dlx train model=resnet optim=adam"""
    if multirun:
        sweep(
            overrides, seeds=seeds, executor=executor, jobs=jobs, time_limit=time_limit, slurm=slurm, dry_run=dry_run,
            from_run=from_run, conf_dir=conf_dir, trust=trust, root=root, quiet=quiet, json=json,
        )  # fmt: skip
        return

    allowed = trusted(trust)
    words, base = begin(overrides, root, from_run, allowed)
    words += words_of_seeds(seeds)
    config = compose(words, conf_dirs=conf_dir or (), trust=allowed, base=base)

    if "experiment" in config.values or "method" in config.values:
        from dlx.sweeps.points import Point
        from dlx.sweeps.sweep import start_sweep

        execution, point = make_execution(executor, jobs, time_limit, slurm, allowed, quiet), Point("", config, {})
        if point.group == "method":
            run_points([point], execution, dry_run=dry_run, json=json)
        elif dry_run:
            _print_claim(point, execution)
        else:
            report_claim(start_sweep([point], execution), json, again(trust))
        return

    check_one_run(executor, jobs, time_limit, slurm)
    from dlx.training.prepare import prepare
    from dlx.training.run import train as run

    if dry_run:
        _print_plan(prepare(config))
        return
    report(run(config, quiet=quiet), json, again(trust))


def report(result: Result, json: bool, flags: str = "") -> None:
    """Prints the metrics, the folder and the next commands of a run, of several processes in the first; ends the
    process with the result's code."""
    from dlx.training.distributed import prints

    if not prints():
        raise typer.Exit(result.code)
    if result.code in (0, LOST) or result.metrics:
        run = result.run
        say_values({name: f"{value:.4f}" for name, value in result.metrics.items() if name.startswith("test/")}, json)
        if result.early:
            say(f"{'ended early':<16}{result.early}", json)
        say(f"{'run':<16}{run}", json)
        name = f"{address(run)}{flags}"
        further = {"predict": f"dlx predict {name} FILE    ", "sample": f"dlx sample {name}    "}
        offered = "".join(further[command] for command in result.commands)
        say(f"next            dlx eval {name}    {offered}dlx runs", json)
    if result.status == "interrupted":
        say(f"interrupted ({result.reason}); go on with: dlx resume {shlex.quote(str(result.run))}{flags}", json)
    elif result.status == "diverged":
        say(f"diverged: {result.reason}", json)
        say(f"run             {result.run}", json)
    elif result.code == LOST:
        say(f"done, but something was lost: {result.reason}", json)
    if json:
        print_json({"run": str(result.run), "status": result.status, "metrics": result.metrics})
    raise typer.Exit(result.code)


def report_claim(swept: SweepResult, json: bool, flags: str = "") -> None:
    """Prints a claim's verdict, its figure, and the members that did not finish; ends the process with its code."""
    found = swept.rows[0].details if swept.rows else {}
    resume = f"dlx resume {shlex.quote(str(swept.path))}{flags}"
    if found:
        say(f"{'held' if found['held'] else 'did not hold':<16}{found['verdict']}", json)
        if (figure := swept.path / "media" / "figure.png").is_file():
            say(f"{'figure':<16}{figure}", json)
        for name, reason in found["reasons"].items():
            say(f"{found['members'][name]:<16}{name}: {reason}", json)
    say(f"{'experiment':<16}{swept.path}", json)
    if swept.code == 1:
        say(f"{swept.rows[0].reason}; {resume} tries them again", json)
    if swept.status == "interrupted":
        say(f"interrupted; go on with: {resume}", json)
    if swept.lost:
        say(f"something was lost: {'; '.join(swept.lost)}", json)
    if json:
        held, metrics = found.get("held"), found.get("measured", {})
        print_json({"run": str(swept.path), "status": swept.status, "held": held, "metrics": metrics})
    raise typer.Exit(swept.code)


def _print_claim(point: Point, execution: Execution) -> None:
    from dlx.claims.claim import Claim
    from dlx.sweeps.check import check_sweep
    from dlx.sweeps.sweep import expand, parent_dir

    claim = point.method
    assert isinstance(claim, Claim)
    _, overrides = expand(check_sweep([point], execution).members)
    say(f"claim           {claim.claim}")
    for name, values in overrides.items():
        say(f"  {name:<24}" + "  ".join(f"{key}={shown_text(value)}" for key, value in values.items()))
    say(f"folder          {parent_dir(point.config)}/ (not made: --dry-run)")
    say(f"runs            {len(overrides)} (not started: --dry-run)")


def _print_plan(prepared: Prepared) -> None:
    from dlx.cli.show import print_summary
    from dlx.runs.folder import slug
    from dlx.tasks.summary import summarize
    from dlx.training.preflight import preflight

    device = preflight(prepared)
    config = prepared.config
    say(config.to_yaml())
    print_summary(summarize(prepared.system), layers=False)
    counts = ", ".join(f"{name} {len(split):,}" for name, split in prepared.splits.items())
    say(f"samples         {counts}")
    steps = f"{prepared.total_steps:,} of {config['dataset']['batch_size']} samples"
    say(f"steps           {steps if prepared.total_steps else 'none: fitted in closed form'}")
    say(f"device          {device}")
    name = slug(str(config["name"] or config.choices["model"]))
    say(f"run folder      {config['output_root']}/{name}/ (not made: --dry-run)")
