"""Seeds: the same training from several first weights and in other orders; how far the results spread."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from dlx.config import Config, compose
from dlx.config.checks import at_least
from dlx.methods.spread import plot_members, spread
from dlx.runs.folder import RunFolder
from dlx.sweeps.method import Method, MethodResult


class Seeds(Method):
    """count: number of trainings; their seeds are the configuration's and the ones after it."""

    def __init__(self, *, count: int = 5) -> None:
        at_least(1, count=count)
        self.count = count

    def members(self, base: Config, done: Mapping[str, RunFolder], folder: Path) -> dict[str, Config]:
        seeds = range(base["seed"], base["seed"] + self.count)
        return {f"seed-{seed}": compose([f"seed={seed}"], base=base) for seed in seeds}

    def aggregate(self, base: Config, runs: Mapping[str, RunFolder], folder: Path) -> MethodResult:
        metrics, details = spread(runs)
        return MethodResult(metrics, details, {"spread": partial(plot_members, details)})
