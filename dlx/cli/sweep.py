"""dlx sweep: many trainings."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from dlx.cli.options import ConfDirs, From, Json, OutputRoot, Overrides, Quiet, Trust, address, again, begin, trusted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlx.sweeps.draft import Draft
    from dlx.sweeps.executors import Execution
    from dlx.sweeps.points import Point
    from dlx.sweeps.sweep import Row, Swept

Executor = Annotated[
    str,
    typer.Option(
        help="inprocess: one after another; processes: --jobs at a time; batched: alike ones in one program; auto: "
        "batched where that is faster; ray, slurm: on a cluster."
    ),
]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", help="Members at a time.")]
Limit = Annotated[str | None, typer.Option("--time-limit", help="For each member, such as 90s, 10min, 2h.")]
SlurmOptions = Annotated[
    list[str] | None, typer.Option("--slurm", metavar="KEY=VALUE", help="For each member's job, such as partition=gpu.")
]
Metric = Annotated[str | None, typer.Option(help="What is best, such as val/loss:min; else what the members monitor.")]
Storage = Annotated[
    str | None,
    typer.Option(help="Of a search: a database's URL or a journal's path, which machines share (also DLX_STORAGE)."),
]


def sweep(
    overrides: Overrides = None,
    zip_: Annotated[bool, typer.Option("--zip", help="Pair the values of all keys instead of crossing them.")] = False,
    random: Annotated[int | None, typer.Option(help="Only so many members of the grid, drawn at random.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Each member with that many seeds, from 0.")] = None,
    search: Annotated[str | None, typer.Option(help="Not a grid, but a search by tpe, gp, cmaes or random.")] = None,
    trials: Annotated[int | None, typer.Option(help="Of a search: how many points. [default: 20]")] = None,
    pruner: Annotated[str | None, typer.Option(help="Of a search, to end bad runs early: median, hyperband.")] = None,
    storage: Storage = None,
    study: Annotated[str | None, typer.Option(help="Of a search: the study's name in --storage.")] = None,
    executor: Executor = "inprocess",
    jobs: Jobs = None,
    time_limit: Limit = None,
    slurm: SlurmOptions = None,
    metric: Metric = None,
    goal: Annotated[str | None, typer.Option(help="Of --metric, where that does not say it: min or max.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and print the plan, start nothing.")] = False,
    from_run: From = None,
    conf_dir: ConfDirs = None,
    trust: Trust = None,
    root: OutputRoot = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train a grid: dlx sweep model=mlp,resnet optim.lr=1e-3,1e-2 seed='range(3)'

    Or search: dlx sweep optim.lr='tag(log, interval(1e-4, 1e-1))' --search tpe --trials 20
    """
    from dlx.cli.output import say
    from dlx.config.errors import UserError
    from dlx.sweeps.grid import combine, compose_points, read_axes

    allowed, folders = trusted(trust), conf_dir or ()
    metric = metric_of(metric, goal)
    if search is not None:
        check_options("--search", {"--zip": zip_, "--random": random, "--seeds": seeds})
        from dlx.sweeps.draft import Settings, draft_search

        execution = make_execution(executor, jobs, time_limit, slurm, allowed, quiet)
        count = 20 if trials is None else trials
        settings = Settings(search, count, pruner or "none", metric or "", study, storage)
        words, base = begin(overrides, root, from_run, allowed)
        draft = draft_search(words, settings, conf_dirs=folders, trust=allowed, base=base)
        run_search(draft, execution, dry_run=dry_run, json=json)
        return
    given = {"--trials": trials, "--pruner": pruner, "--storage": storage, "--study": study}
    check_options("a sweep without --search", given)
    words, base = begin(overrides, root, from_run, allowed)
    axes = read_axes(words, folders)
    if seeds is not None and any(axis.key == "seed" for axis in axes):
        raise UserError("--seeds: seed is given as well; take one of them")
    repeated = read_axes([f"seed=range({seeds})"]) if seeds is not None else []
    drawn = combine(axes, paired=zip_, draw=random)  # without the seeds, which each of these has all of
    members = [[*own, *seed] for own in drawn for seed in combine(repeated)]
    axes += repeated
    points = compose_points(members, axes, conf_dirs=folders, trust=allowed, base=base)
    if any("experiment" in point.config.values for point in points):
        raise UserError("experiment: a claim is run by `dlx train experiment=NAME`, not swept")
    execution = make_execution(executor, jobs, time_limit, slurm, allowed, quiet)
    if equal := len(members) - len(points):
        say(f"left out        {equal} of {len(members)} members: they are configured as others are", json)
    run_points(points, execution, metric=metric, dry_run=dry_run, json=json)


def make_execution(
    executor: str,
    jobs: int | None,
    time_limit: str | None,
    slurm: Sequence[str] | None,
    trust: Sequence[str],
    quiet: bool = False,
) -> Execution:
    """What the options of many runs say, checked before anything is written."""
    from dlx.sweeps.executors import Execution, make_executor

    execution = Execution(executor, jobs, seconds(time_limit), tuple(trust), tuple(slurm or ()), quiet)
    make_executor(execution)
    return execution


def check_one_run(executor: str, jobs: int | None, time_limit: str | None, slurm: Sequence[str] | None) -> None:
    """Raises UserError for options of many runs, where there is one."""
    where = executor if executor != "inprocess" else None
    check_options("one run", {"--executor": where, "--jobs": jobs, "--time-limit": time_limit, "--slurm": slurm})


def run_points(
    points: Sequence[Point],
    execution: Execution,
    *,
    metric: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Runs and reports them; of a dry run the plan alone."""
    if dry_run:
        _print_plan(points, execution, metric)
        return
    from dlx.sweeps.sweep import start_sweep

    report_sweep(start_sweep(points, execution, metric=metric), json, again(execution.trust))


def seconds(limit: str | None) -> float | None:
    from dlx.config.errors import UserError
    from dlx.training.interval import Interval

    if limit is None:
        return None
    try:
        found = Interval.parse(limit, steps_per_epoch=1).seconds
    except ValueError:
        found = None
    if found is None:
        raise UserError(f"--time-limit {limit}: must be a time such as 90s, 10min, 2h")
    return found


def metric_of(metric: str | None, goal: str | None) -> str | None:
    """What --metric and --goal say together, such as val/loss:min."""
    from dlx.config.errors import UserError

    if goal not in (None, "min", "max"):
        raise UserError(f"--goal {goal}: must be min or max")
    if metric is None:
        if goal is not None:
            raise UserError(f"--goal {goal}: needs --metric, such as val/accuracy")
        return None
    name, _, said = metric.rpartition(":")
    if said not in ("min", "max") or not name:
        if goal is None:
            raise UserError(f"--metric {metric}: must say the goal, such as val/loss:min or val/accuracy:max")
        return f"{metric}:{goal}"
    if goal not in (None, said):
        raise UserError(f"--goal {goal}: --metric {metric} says {said}")
    return metric


def check_options(where: str, given: Mapping[str, object]) -> None:
    """Raises UserError for options that have nothing to say there. None, False and no values: not given."""
    from dlx.config.errors import UserError

    for option, value in given.items():
        if value is not None and value is not False and value != []:
            raise UserError(f"{option}: has no meaning for {where}")


def run_search(draft: Draft, execution: Execution, *, dry_run: bool = False, json: bool = False) -> None:
    """Runs and reports it; of a dry run the space alone."""
    if dry_run:
        _print_space(draft, execution)
        return
    from dlx.sweeps.sweep import start_search

    report_sweep(start_search(draft, execution), json, again(execution.trust))


def _print_space(draft: Draft, execution: Execution) -> None:
    from dlx.cli.output import say, table
    from dlx.sweeps.sweep import check_search, place_of

    check_search(draft, execution)
    say(table([[dimension.key, str(dimension)] for dimension in draft.space.dimensions], ["key", "searched"]))
    say(f"metric          {draft.settings.metric}")
    pruned = "" if draft.settings.pruner == "none" else f", pruned by {draft.settings.pruner}"
    say(f"folder          {place_of(draft.first)}/ (not made: --dry-run)")
    say(f"trials          {draft.settings.trials} by {draft.settings.sampler}{pruned} (not started: --dry-run)")


def _print_plan(points: Sequence[Point], execution: Execution, metric: str | None) -> None:
    """Each point, with the runs that its method makes of it (of a chain those that can start at once)."""
    from dlx.cli.output import say, table
    from dlx.sweeps.sweep import check_sweep, expand, place_of

    _, differs = expand(check_sweep(points, execution, metric))
    keys = list(dict.fromkeys(key for values in differs.values() for key in values))
    rows = [[name, *(_setting(values, key) for key in keys)] for name, values in differs.items()]
    say(table(rows, ["member", *keys]))
    say(f"folder          {place_of(points[0].config)}/ (not made: --dry-run)")
    say(f"runs            {len(rows)} (not started: --dry-run)")


def _setting(values: Mapping[str, object], key: str) -> str:
    from dlx.runs.keys import shown_text

    return shown_text(values[key]) if key in values else ""


def report_sweep(swept: Swept, json: bool, flags: str = "") -> None:
    """The table, the best point and how to go on with it, with those flags; ends the process with the sweep's code."""
    from dlx.cli.output import print_json, say, table

    if len(swept.rows) == 1 and not swept.rows[0].name:  # the only point, of a method
        _say_answer(swept.rows[0], json)
    elif swept.rows:
        keys = list(dict.fromkeys(key for row in swept.rows for key in row.differs))
        figures = shown_columns(swept)
        header = ["member", *keys, *figures, "status"]
        cells = [
            [row.name, *(_setting(row.differs, key) for key in keys),
             *(_figure(row.metrics, name) for name in figures), row.status + (f": {row.reason}" if row.reason else "")]
            for row in swept.rows
        ]  # fmt: skip
        say(table(cells, header), json)
    if swept.best and swept.best.name:
        home = swept.path / "runs" / swept.best.name
        go_on = f"dlx train --from {shlex.quote(str(home))}{flags}"
        say(f"best            {go_on if home.is_dir() else swept.path / 'points' / swept.best.name}", json)
    if importance := swept.findings.get("importance"):
        say("importance      " + "  ".join(f"{key} {share:.2f}" for key, share in importance.items()), json)
    say(f"sweep           {swept.path}", json)
    if swept.lost:
        say(f"something was lost: {'; '.join(swept.lost)}", json)
    if swept.status == "interrupted":
        say(f"interrupted; go on with: dlx resume {shlex.quote(str(swept.path))}{flags}", json)
    elif len(swept.rows) > 1:
        name = address(swept.path)
        say(f"next            dlx compare {name}    dlx report {name}    dlx dashboard", json)
    if json:
        print_json(
            {
                "run": str(swept.path),
                "status": swept.status,
                "metric": swept.metric,
                "best": swept.best.name if swept.best else None,
                **swept.findings,
                "members": [vars(row) for row in swept.rows],
            }
        )
    raise typer.Exit(swept.code)


MOST_FIGURES = 4  # of the test split


def shown_columns(swept: Swept) -> list[str]:
    """The metric that rows are ranked by, and how the test split did, as far as a row has them: its accuracy, else all
    that there is, that of the metric's kind first."""
    known = dict.fromkeys(name for row in swept.rows for name in row.metrics if not name.endswith("_std"))
    same = f"test/{swept.metric.rpartition('/')[2]}"
    tests = [name for name in (same, *known) if name.startswith("test/") and name in known]
    shown = ["test/accuracy"] if "test/accuracy" in known else tests
    return [name for name in dict.fromkeys([swept.metric, *shown]) if name in known][: 1 + MOST_FIGURES]


def _say_answer(row: Row, json: bool) -> None:
    from dlx.cli.output import say

    if row.reason:
        say(f"{row.status:<16}{row.reason}", json)
    names = [name for name in row.metrics if not name.endswith("_std")]
    width = max([14, *map(len, names)]) + 2
    for name in names:
        say(f"{name:<{width}}{_figure(row.metrics, name)}", json)
    for name, value in row.details.items():
        if isinstance(value, str):
            say(f"{name:<{width}}{value}", json)


def _figure(metrics: Mapping[str, float], name: str) -> str:
    """The figure, with its standard deviation where there is one."""
    if name not in metrics:
        return ""
    deviation = f" ± {metrics[f'{name}_std']:.4f}" if f"{name}_std" in metrics else ""
    return f"{metrics[name]:.4f}{deviation}"
