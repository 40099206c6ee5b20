"""A method inside an experiment: for a chain such as boosting, whose members no plan can know before they run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dlx.config import Config
from dlx.runs.folder import RunFolder
from dlx.sweeps.executors import Execution
from dlx.sweeps.plan import Interrupted
from dlx.sweeps.points import Point
from dlx.sweeps.sweep import Row, resume_sweep, start_sweep


def run_method(config: Config, runs: Path, name: str) -> Row:
    """What the configuration's method answers, run in `runs/NAME/`, or gone on with where it was cut off.

    runs: the folder of the experiment's runs. Raises Interrupted at a signal.
    """
    execution = Execution(trust=config.trust)
    begun = [path.parent for path in sorted((runs / name).glob("*/plan.yaml"))]
    if begun:
        swept = resume_sweep(RunFolder(begun[-1]), execution)
    else:
        placed = replace(config, values={**config.values, "output_root": str(runs), "name": name})
        swept = start_sweep([Point("", placed, {})], execution)
    if swept.status == "interrupted":
        raise Interrupted(swept.code)
    return swept.rows[0]
