"""dlx show: a model's layers, parameters and FLOPs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlx.cli.options import ConfDirs, Overrides, Trust, trusted

if TYPE_CHECKING:
    from dlx.tasks.summary import Summary


def show(overrides: Overrides = None, conf_dir: ConfDirs = None, trust: Trust = None) -> None:
    """Show a model layer by layer: dlx show model=resnet model.depth=50"""
    from dlx.config import build, compose, settings

    config = compose(overrides or [], conf_dirs=conf_dir or (), trust=trusted(trust))

    from dlx.cli.output import say
    from dlx.config.groups import options
    from dlx.runs.load import build_meta
    from dlx.tasks.summary import summarize

    spec = settings(config, "dataset").spec(build(config, "dataset"))
    _, system = build_meta(config, spec)
    say(options("model", conf_dir or ()).get(str(config.choices["model"]), ""))
    print_summary(summarize(system))


def print_summary(summary: Summary, layers: bool = True) -> None:
    """The layer table and the totals; shapes are per sample, a multiply-add counts as 2 FLOPs."""
    from dlx.cli.output import say, table

    if layers and summary.rows:
        rows = [
            [row.name, row.type, "x".join(map(str, row.shape)), f"{row.parameters:,}" if row.parameters else ""]
            for row in summary.rows
        ]
        say(table(rows, ["layer", "type", "output", "parameters"]))
    say(f"parameters      {summary.parameters:,}")
    if summary.flops is not None:
        say(f"FLOPs           {summary.flops:,} per sample")
