"""dlx sweep: many trainings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlx.cli.options import ConfDirs, From, Json, Overrides, Trust, frozen, trusted

if TYPE_CHECKING:
    from dlx.sweeps.grid import Grid
    from dlx.sweeps.sweep import Swept

Executor = Annotated[str, typer.Option(help="inprocess: one after another; processes: --jobs at a time.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", help="Members at a time.")]
Limit = Annotated[str | None, typer.Option("--time-limit", help="For each member, such as 90s, 10min, 2h.")]
Metric = Annotated[str | None, typer.Option(help="What is best, such as val/loss:min; else what the members monitor.")]


def sweep(
    overrides: Overrides = None,
    zip_: Annotated[bool, typer.Option("--zip", help="Pair the values of all keys instead of crossing them.")] = False,
    random: Annotated[int | None, typer.Option(help="Only so many members of the grid, drawn at random.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Each member with that many seeds, from 0.")] = None,
    executor: Executor = "inprocess",
    jobs: Jobs = 1,
    time_limit: Limit = None,
    metric: Metric = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and print the plan, start nothing.")] = False,
    from_run: From = None,
    conf_dir: ConfDirs = None,
    trust: Trust = None,
    json: Json = False,
) -> None:
    """Train a grid: dlx sweep model=mlp,resnet optim.lr=1e-3,1e-2 seed='range(3)'"""
    from dlx.config.errors import UserError
    from dlx.sweeps.executors import Execution, make_executor
    from dlx.sweeps.grid import combine, compose_members, read_axes

    allowed, folders = trusted(trust), conf_dir or ()
    words = [*(overrides or []), *([f"seed=range({seeds})"] if seeds is not None else [])]
    axes = read_axes(words, folders)
    if seeds is not None and sum(axis.key == "seed" for axis in axes) > 1:
        raise UserError("--seeds: seed is given as well; take one of them")
    members = combine(axes, paired=zip_, draw=random)
    grid = compose_members(members, axes, conf_dirs=folders, trust=allowed, base=frozen(from_run, allowed))
    if any("experiment" in config.values for config in grid.members.values()):
        raise UserError("experiment: a claim is run by `dlx train experiment=NAME`, not swept")
    execution = Execution(executor, jobs, seconds(time_limit), allowed)
    make_executor(execution)  # says what is wrong with it before anything is written
    check_metric(metric)
    if dry_run:
        _print_plan(grid)
        return

    from dlx.sweeps.sweep import start_sweep

    report_sweep(start_sweep(grid, execution, metric=metric), json)


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


def check_metric(metric: str | None) -> None:
    from dlx.config.errors import UserError

    if metric is not None and not metric.endswith((":min", ":max")):
        raise UserError(f"--metric {metric}: must say the goal, such as val/loss:min or val/accuracy:max")


def _print_plan(grid: Grid) -> None:
    from dlx.cli.output import say, table

    keys = list(dict.fromkeys(key for values in grid.differs.values() for key in values))
    rows = [[name, *(values[key] for key in keys)] for name, values in grid.differs.items()]
    say(table(rows, ["member", *keys]))
    say(f"runs            {len(rows)} (not started: --dry-run)")


def report_sweep(swept: Swept, json: bool) -> None:
    """The table, the best member and how to go on with it; ends the process with the sweep's code."""
    from dlx.cli.output import print_json, say, table

    if swept.rows:
        keys = list(dict.fromkeys(key for row in swept.rows for key in row.differs))
        header = ["member", *keys, swept.metric, "test/accuracy", "status"]
        cells = [
            [row.name, *(str(row.differs.get(key, "")) for key in keys), _figure(row.metrics.get(swept.metric)),
             _figure(row.metrics.get("test/accuracy")), row.status + (f": {row.reason}" if row.reason else "")]
            for row in swept.rows
        ]  # fmt: skip
        say(table(cells, header), json)
    if swept.best:
        run = Path("runs") / swept.best.name
        say(f"best            dlx train --from {swept.path / run}", json)
    say(f"sweep           {swept.path}", json)
    if swept.status == "interrupted":
        say(f"interrupted; go on with: dlx resume {swept.path}", json)
    if json:
        print_json(
            {
                "run": str(swept.path),
                "status": swept.status,
                "metric": swept.metric,
                "best": swept.best.name if swept.best else None,
                "members": [vars(row) for row in swept.rows],
            }
        )
    raise typer.Exit(swept.code)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
