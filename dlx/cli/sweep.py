"""dlx sweep: many trainings."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from dlx.cli.options import ConfDirs, From, Json, OutputRoot, Overrides, Quiet, Trust, address, again, begin, trusted
from dlx.cli.output import print_json, say, say_values, table
from dlx.config.errors import UserError
from dlx.runs.keys import shown_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlx.sweeps.executors.execution import Execution
    from dlx.sweeps.points import Point
    from dlx.sweeps.search.search import Draft
    from dlx.sweeps.sweep import Row, SweepResult

Executor = Annotated[
    str,
    typer.Option(
        help="inprocess: one after another; processes: --jobs at a time; batched: similar members in one program; "
        "auto: batched where that is faster; ray, slurm: on a cluster."
    ),
]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", help="Members at a time.")]
Limit = Annotated[str | None, typer.Option("--time-limit", help="For each member, such as 90s, 10min, 2h.")]
SlurmOptions = Annotated[
    list[str] | None, typer.Option("--slurm", metavar="KEY=VALUE", help="For each member's job, such as partition=gpu.")
]
Seeds = Annotated[int | None, typer.Option(help="Train each point with N seeds: method=seeds method.count=N.")]
Metric = Annotated[
    str | None, typer.Option(help="Ranks the members, such as val/loss:min. [default: what they monitor]")
]
Storage = Annotated[
    str | None,
    typer.Option(help="Where a search keeps its trials: a database's URL or a journal's path (also DLX_STORAGE)."),
]


def sweep(
    overrides: Overrides = None,
    zip_: Annotated[bool, typer.Option("--zip", help="Pair the values of all keys instead of crossing them.")] = False,
    sample: Annotated[int | None, typer.Option(help="Train only N random points of the grid.")] = None,
    seeds: Seeds = None,
    search: Annotated[str | None, typer.Option(help="Search with Optuna instead of a grid: tpe, gp or random.")] = None,
    trials: Annotated[int | None, typer.Option(help="The number of points of a search. [default: 20]")] = None,
    pruner: Annotated[str | None, typer.Option(help="Ends bad runs of a search early: median or hyperband.")] = None,
    storage: Storage = None,
    study: Annotated[str | None, typer.Option(help="The name of the search's study in --storage.")] = None,
    executor: Executor = "inprocess",
    jobs: Jobs = None,
    time_limit: Limit = None,
    slurm: SlurmOptions = None,
    metric: Metric = None,
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
    from dlx.config.monitor import Monitor
    from dlx.sweeps.grid import combine, compose_points, read_axes

    if metric is not None and not Monitor.find(metric):
        raise UserError(f"--metric {metric}: must end in :min or :max, such as val/loss:min or val/accuracy:max")
    if search is None:
        given = {"--trials": trials, "--pruner": pruner, "--storage": storage, "--study": study}
        refuse_options(given, "only with --search")
    else:
        refuse_options({"--zip": zip_, "--sample": sample}, "only for a grid, not with --search")
    allowed, folders = trusted(trust), conf_dir or ()
    execution = make_execution(executor, jobs, time_limit, slurm, allowed, quiet)
    words, base = begin(overrides, root, from_run, allowed)
    words += words_of_seeds(seeds)
    if search is not None:
        from dlx.sweeps.search.settings import Settings

        count = 20 if trials is None else trials
        settings = Settings(search, count, pruner or "none", metric or "", study, storage)
        settings.check()
        from dlx.sweeps.search.search import draft_search, start_search

        draft = draft_search(words, settings, execution, conf_dirs=folders, base=base)
        if dry_run:
            _print_space(draft)
        else:
            report_sweep(start_search(draft, execution), json, again(trust))
        return
    axes = read_axes(words, folders)
    members = combine(axes, paired=zip_, sample=sample)
    points = compose_points(members, axes, conf_dirs=folders, trust=allowed, base=base)
    if any("experiment" in point.config.values for point in points):
        raise UserError("experiment: a claim is run by `dlx train experiment=NAME`, not swept")
    if equal := len(members) - len(points):
        say(f"left out        {equal} of {len(members)} members: they are configured as others are", json)
    run_points(points, execution, metric=metric, dry_run=dry_run, json=json)


def words_of_seeds(seeds: int | None) -> list[str]:
    """The overrides that --seeds stands for."""
    return [] if seeds is None else ["method=seeds", f"method.count={seeds}"]


def make_execution(
    executor: str,
    jobs: int | None,
    time_limit: str | None,
    slurm: Sequence[str] | None,
    trust: Sequence[str],
    quiet: bool = False,
) -> Execution:
    """The options of a plan, checked before anything is written."""
    from dlx.sweeps.executors.execution import Execution, make_executor, parse_seconds

    seconds = None if time_limit is None else parse_seconds(time_limit)
    if time_limit is not None and seconds is None:
        raise UserError(f"--time-limit {time_limit}: must be a time such as 90s, 10min, 2h")
    execution = Execution(executor, jobs, seconds, tuple(trust), tuple(slurm or ()), quiet)
    make_executor(execution)
    return execution


def check_one_run(executor: str, jobs: int | None, time_limit: str | None, slurm: Sequence[str] | None) -> None:
    """Raises UserError for options of a plan."""
    where = executor if executor != "inprocess" else None
    given = {"--executor": where, "--jobs": jobs, "--time-limit": time_limit, "--slurm": slurm}
    refuse_options(given, "only for sweeps, methods and experiments")


def refuse_options(given: Mapping[str, object], reason: str) -> None:
    """Raises UserError for an option that was given: that is not None, False or empty."""

    for option, value in given.items():
        if value is not None and value is not False and value != []:
            raise UserError(f"{option}: {reason}")


def run_points(
    points: Sequence[Point],
    execution: Execution,
    *,
    metric: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Runs and reports the points; prints the plan only, in a dry run."""
    if dry_run:
        _print_plan(points, execution, metric)
        return
    from dlx.sweeps.sweep import start_sweep

    report_sweep(start_sweep(points, execution, metric=metric), json, again(execution.trust))


def _print_space(draft: Draft) -> None:
    from dlx.sweeps.sweep import parent_dir

    settings = draft.settings
    say(table([[dimension.key, str(dimension)] for dimension in draft.space.dimensions], ["key", "searched"]))
    say(f"metric          {settings.metric}")
    pruned = "" if settings.pruner == "none" else f", pruned by {settings.pruner}"
    say(f"folder          {parent_dir(draft.first)}/ (not made: --dry-run)")
    say(f"trials          {settings.trials} by {settings.sampler}{pruned} (not started: --dry-run)")


def _print_plan(points: Sequence[Point], execution: Execution, metric: str | None) -> None:
    """Prints the runs of each point; of a chain, those that can start at once."""
    from dlx.sweeps.check import check_sweep
    from dlx.sweeps.sweep import expand, parent_dir

    _, overrides = expand(check_sweep(points, execution, metric).members)
    keys = list(dict.fromkeys(key for values in overrides.values() for key in values))
    rows = [[name, *(_setting(values, key) for key in keys)] for name, values in overrides.items()]
    say(table(rows, ["member", *keys]))
    say(f"folder          {parent_dir(points[0].config)}/ (not made: --dry-run)")
    say(f"runs            {len(rows)} (not started: --dry-run)")


def _setting(values: Mapping[str, object], key: str) -> str:
    return shown_text(values[key]) if key in values else ""


def report_sweep(result: SweepResult, json: bool, flags: str = "") -> None:
    """Prints the table, the best point and the next commands, with those flags; exits with the sweep's code."""

    if len(result.rows) == 1 and not result.rows[0].name:  # the only point, of a method
        _say_answer(result.rows[0], json)
    elif result.rows:
        keys = list(dict.fromkeys(key for row in result.rows for key in row.differs))
        metrics = shown_columns(result)
        header = ["member", *keys, *metrics, "status"]
        cells = [
            [row.name, *(_setting(row.differs, key) for key in keys),
             *(_metric_text(row.metrics, name) for name in metrics),
             row.status + (f": {row.reason}" if row.reason else "")]
            for row in result.rows
        ]  # fmt: skip
        say(table(cells, header), json)
    if result.best and result.best.name:
        home = result.path / "runs" / result.best.name
        go_on = f"dlx train --from {shlex.quote(str(home))}{flags}"
        say(f"best            {go_on if home.is_dir() else result.path / 'points' / result.best.name}", json)
    if importance := result.findings.get("importance"):
        say("importance      " + "  ".join(f"{key} {share:.2f}" for key, share in importance.items()), json)
    say(f"sweep           {result.path}", json)
    if result.lost:
        say(f"something was lost: {'; '.join(result.lost)}", json)
    if result.status == "interrupted":
        say(f"interrupted; go on with: dlx resume {shlex.quote(str(result.path))}{flags}", json)
    elif len(result.rows) > 1:
        name = address(result.path)
        say(f"next            dlx compare {name}    dlx report {name}    dlx dashboard", json)
    if json:
        print_json({"run": str(result.path), "status": result.status, **result.summary})
    raise typer.Exit(result.code)


MAX_TEST_METRICS = 4  # of the test split


def shown_columns(result: SweepResult) -> list[str]:
    """The metric that ranks the rows, and the test accuracy, else all test metrics, that of the same name first. Only
    metrics that a row has."""
    known = dict.fromkeys(name for row in result.rows for name in row.metrics if not name.endswith("_std"))
    same = f"test/{result.metric.rpartition('/')[2]}"
    tests = [name for name in (same, *known) if name.startswith("test/") and name in known]
    shown = ["test/accuracy"] if "test/accuracy" in known else tests
    return [name for name in dict.fromkeys([result.metric, *shown]) if name in known][: 1 + MAX_TEST_METRICS]


def _say_answer(row: Row, json: bool) -> None:

    if row.reason:
        say(f"{row.status:<16}{row.reason}", json)
    metrics = {name: _metric_text(row.metrics, name) for name in row.metrics if not name.endswith("_std")}
    say_values({**metrics, **{name: value for name, value in row.details.items() if isinstance(value, str)}}, json)


def _metric_text(metrics: Mapping[str, float], name: str) -> str:
    """The metric, with its standard deviation if it has one."""
    if name not in metrics:
        return ""
    deviation = f" ± {metrics[f'{name}_std']:.4f}" if f"{name}_std" in metrics else ""
    return f"{metrics[name]:.4f}{deviation}"
