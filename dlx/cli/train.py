"""dlx train: one training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dlx.cli.options import ConfDirs, Json, Overrides, Trust, trusted

if TYPE_CHECKING:
    from dlx.training.run import Prepared, Result


def train(
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, start nothing.")] = False,
    from_run: Annotated[
        str | None, typer.Option("--from", metavar="RUN", help="Begin with the configuration of this run.")
    ] = None,
    conf_dir: ConfDirs = None,
    trust: Trust = None,
    json: Json = False,
) -> None:
    """Train what the configuration says: dlx train model=resnet optim=adam"""
    from dlx.config import Config, compose

    base = None
    if from_run:
        from dlx.runs.find import find_run

        base = Config.load(find_run(from_run).config_path, trust=trusted(trust))
    config = compose(overrides or [], conf_dirs=conf_dir or (), trust=trusted(trust), base=base)

    from dlx.training.run import prepare
    from dlx.training.run import train as run

    if dry_run:
        _print_plan(prepare(config))
        return
    report(run(config), json)


def report(result: Result, json: bool) -> None:
    """What came out, where it lies, what to try next; ends the process with the result's code."""
    from dlx.cli.output import print_json, say

    if result.code == 0 or result.metrics:
        run = result.run
        shown = {k: v for k, v in result.metrics.items() if k.startswith("test/")}
        for name, value in shown.items():
            say(f"{name:<16}{value:.4f}", json)
        say(f"{'run':<16}{run}", json)
        say(f"next            dlx eval {run.name}    dlx predict {run.name} FILE    dlx runs", json)
    if result.status == "interrupted":
        say(f"interrupted ({result.reason}); go on with: dlx resume {result.run}", json)
    elif result.status == "diverged":
        say(f"diverged: {result.reason}", json)
        say(f"run             {result.run}; a smaller optim.lr or trainer.clip_norm=1 often helps", json)
    elif result.code == 5:
        say(f"done, but something was lost: {result.reason}", json)
    if json:
        print_json({"run": str(result.run), "status": result.status, "metrics": result.metrics})
    raise typer.Exit(result.code)


def _print_plan(prepared: Prepared) -> None:
    from dlx.cli.output import say
    from dlx.cli.show import print_summary
    from dlx.tasks.summary import summarize

    config = prepared.config
    say(config.to_yaml())
    print_summary(summarize(prepared.system), layers=False)
    counts = ", ".join(f"{name} {len(split):,}" for name, split in prepared.splits.items())
    say(f"samples         {counts}")
    say(f"steps           {prepared.total_steps:,} of {config['dataset']['batch_size']} samples")
    name = config["name"] or config.choices["model"]
    say(f"run folder      {config['output_root']}/{name}/ (not made: --dry-run)")
