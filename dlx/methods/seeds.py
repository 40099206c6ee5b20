"""Seeds: the same training several times, from other first weights and in another order; how far the results spread."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dlx.config import Config, compose
from dlx.methods.method import Answer, Method
from dlx.methods.spread import spread, strip

if TYPE_CHECKING:
    from dlx.runs.folder import RunFolder


class Seeds(Method):
    """count: of trainings; their seeds are the configuration's and the ones after it."""

    def __init__(self, *, count: int = 5) -> None:
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        self.count = count

    def members(self, base: Config, done: Mapping[str, RunFolder], folder: Path) -> dict[str, Config]:
        seeds = range(base["seed"], base["seed"] + self.count)
        return {f"seed-{seed}": compose([f"seed={seed}"], base=base) for seed in seeds}

    def answer(self, base: Config, runs: Mapping[str, RunFolder], folder: Path) -> Answer:
        metrics, details = spread(runs)
        return Answer(metrics, details, {"spread": partial(strip, details)})
