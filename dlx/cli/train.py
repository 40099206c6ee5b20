"""dlx train: one training."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from dlx.cli.options import ConfDirs, From, Json, OutputRoot, Overrides, Quiet, Trust, address, again, begin, trusted
from dlx.cli.output import LOST, print_json, say
from dlx.cli.sweep import Executor, Jobs, Limit, SlurmOptions, check_one_run, make_execution, run_points, sweep
from dlx.config import compose
from dlx.config.diff import changes
from dlx.runs.keys import shown_text

if TYPE_CHECKING:
    from dlx.config import Config
    from dlx.experiments.run import Finding
    from dlx.sweeps.executors import Execution
    from dlx.training.run import Prepared
    from dlx.training.session import Result


def train(
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, start nothing.")] = False,
    from_run: From = None,
    multirun: Annotated[bool, typer.Option("--multirun", "-m", help="Sweep over comma lists, as `dlx sweep`.")] = False,
    seeds: Annotated[int | None, typer.Option(help="That many seeds, from 0: a sweep.")] = None,
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
    if multirun or seeds is not None:
        sweep(
            overrides, seeds=seeds, executor=executor, jobs=jobs, time_limit=time_limit, slurm=slurm, dry_run=dry_run,
            from_run=from_run, conf_dir=conf_dir, trust=trust, root=root, quiet=quiet, json=json,
        )  # fmt: skip
        return

    allowed = trusted(trust)
    words, base = begin(overrides, root, from_run, allowed)
    config = compose(words, conf_dirs=conf_dir or (), trust=allowed, base=base)

    if "experiment" in config.values:
        from dlx.experiments.run import run_experiment

        execution = make_execution(executor, jobs, time_limit, slurm, allowed, quiet)
        if dry_run:
            _print_members(config, execution)
        else:
            report_finding(run_experiment(config, execution, quiet=quiet), json, again(trust))
        return
    if "method" in config.values:
        from dlx.sweeps.points import Point

        execution = make_execution(executor, jobs, time_limit, slurm, allowed, quiet)
        run_points([Point("", config, {})], execution, dry_run=dry_run, json=json)
        return

    check_one_run(executor, jobs, time_limit, slurm)
    from dlx.training.run import prepare
    from dlx.training.run import train as run

    if dry_run:
        _print_plan(prepare(config))
        return
    report(run(config, quiet=quiet), json, again(trust))


def report(result: Result, json: bool, flags: str = "") -> None:
    """Prints the metrics, the folder and the next commands of a run; ends the process with the result's code."""
    if result.code in (0, LOST) or result.metrics:
        run = result.run
        shown = {k: v for k, v in result.metrics.items() if k.startswith("test/")}
        width = max([14, *map(len, shown)]) + 2
        for name, value in shown.items():
            say(f"{name:<{width}}{value:.4f}", json)
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


def report_finding(finding: Finding, json: bool, flags: str = "") -> None:
    """Prints the verdict, the figure and the failures of an experiment; ends the process with its code."""
    if finding.verdict:
        say(f"{'held' if finding.verdict.held else 'did not hold':<16}{finding.verdict.line}", json)
        if (figure := finding.path / "media" / "figure.png").is_file():
            say(f"{'figure':<16}{figure}", json)
    go_on = f"dlx resume {shlex.quote(str(finding.path))}{flags}"
    lost = {name: result for name, result in finding.results.items() if result.status != "finished"}
    for name, result in lost.items():
        say(f"{result.status:<16}{name}: {result.reason or ''}", json)
    say(f"{'experiment':<16}{finding.path}", json)
    if finding.code == 1:
        count = sum(result.status == "failed" for result in lost.values())
        say(f"{count} of {len(finding.results)} members failed; {go_on} tries them again", json)
    if finding.status == "interrupted":
        say(f"interrupted; go on with: {go_on}", json)
    if finding.lost:
        say(f"something was lost: {'; '.join(finding.lost)}", json)
    if json:
        print_json(
            {
                "run": str(finding.path),
                "status": finding.status,
                "held": finding.verdict.held if finding.verdict else None,
                "metrics": finding.measured,
            }
        )
    raise typer.Exit(finding.code)


def _print_members(config: Config, execution: Execution) -> None:
    from dlx.experiments.run import draft_experiment
    from dlx.runs.folder import slug

    experiment, base, members = draft_experiment(config, execution)
    say(f"claim           {experiment.claim}")
    for name, member in members.items():
        say(f"  {name:<24}" + "  ".join(f"{key}={shown_text(value)}" for key, value in changes(base, member).items()))
    name = slug(str(config["name"] or config.choices["experiment"]))
    say(f"folder          {config['output_root']}/{name}/ (not made: --dry-run)")
    say(f"runs            {len(members)} (not started: --dry-run)")


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
