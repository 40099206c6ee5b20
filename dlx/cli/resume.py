"""dlx resume: a run that was cut off goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlx.cli.options import ConfDirs, Json, Overrides, Root, Run, Trust, again, trusted
from dlx.cli.sweep import Executor, Jobs, Limit, SlurmOptions, Storage, check_one_run, make_execution, report_sweep
from dlx.cli.train import report, report_finding


def resume(
    run: Run,
    overrides: Overrides = None,
    fork: Annotated[bool, typer.Option("--fork", help="Start a new run from the run's newest weights.")] = False,
    executor: Executor = "inprocess",
    jobs: Jobs = None,
    time_limit: Limit = None,
    storage: Storage = None,
    slurm: SlurmOptions = None,
    conf_dir: ConfDirs = None,
    trust: Trust = None,
    json: Json = False,
    root: Root = Path("outputs"),
) -> None:
    """Go on with an interrupted run, experiment or sweep, to the same bits as if it had never stopped.

    A finished run goes on with more trainer.epochs=N; with --fork everything may change but the network.
    """
    from dlx.config import Config, compose
    from dlx.config.changes import check_resumable
    from dlx.config.errors import UserError
    from dlx.runs.find import find_run

    folder = find_run(run, root)
    frozen = Config.load(folder.config_path, trust=trusted(trust))
    if (folder.is_plan or "experiment" in frozen.values) and (overrides or fork):
        raise UserError(f"{folder.path}: goes on as it was planned; it takes no overrides and no --fork")
    if storage and (not folder.is_plan or "experiment" in frozen.values):
        raise UserError(f"--storage: {folder.path} is no search")
    if "experiment" in frozen.values:
        from dlx.experiments.run import resume_experiment

        execution = make_execution(executor, jobs, time_limit, slurm, trusted(trust))
        report_finding(resume_experiment(folder, frozen, execution), json, again(trust))
        return
    if folder.is_plan:
        from dlx.sweeps.sweep import resume_sweep

        execution = make_execution(executor, jobs, time_limit, slurm, trusted(trust))
        report_sweep(resume_sweep(folder, execution, storage=storage), json, again(trust))
        return

    check_one_run(executor, jobs, time_limit, slurm)
    config = compose(overrides, conf_dirs=conf_dir or (), base=frozen) if overrides else frozen
    changed = {} if fork else check_resumable(frozen, config)

    from dlx.training import run as training

    result = training.train(config, fork=folder) if fork else training.resume(folder, config, changed=changed)
    report(result, json, again(trust))
