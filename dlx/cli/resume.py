"""dlx resume: continues an interrupted run."""

from __future__ import annotations

from typing import Annotated

import typer

from dlx.cli.options import DEFAULT_ROOT, ConfDirs, Json, Overrides, Quiet, Root, Run, Trust, again, trusted
from dlx.cli.sweep import Executor, Jobs, Limit, SlurmOptions, Storage, check_one_run, make_execution, report_sweep
from dlx.cli.train import report, report_claim
from dlx.config import compose
from dlx.config.diff import check_resumable
from dlx.config.errors import UserError


def resume(
    run: Run,
    overrides: Overrides = None,
    fork: Annotated[bool, typer.Option("--fork", help="Start a new run from the run's newest weights.")] = False,
    executor: Executor = "inprocess",
    jobs: Jobs = None,
    time_limit: Limit = None,
    storage: Storage = None,
    trials: Annotated[
        int | None, typer.Option(help="Of a search: how many points it has now in all, for one that shall go on.")
    ] = None,
    slurm: SlurmOptions = None,
    conf_dir: ConfDirs = None,
    trust: Trust = None,
    quiet: Quiet = False,
    json: Json = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Go on with an interrupted run, experiment or sweep, to the same bits as if it had never stopped.

    A finished run goes on with more trainer.epochs=N, a finished search with more --trials N; with --fork everything
    may change but the network.
    """
    from dlx.runs.find import find_run

    folder = find_run(run, root)
    folder.check_own()
    frozen = folder.load_config(trust=trusted(trust))
    is_claim = "experiment" in frozen.values
    is_plan = folder.is_plan or is_claim
    if is_plan and (overrides or fork):
        raise UserError(f"{folder.path}: goes on as it was planned; it takes no overrides and no --fork")
    for option, value in {"--storage": storage, "--trials": trials}.items():
        if value is not None and not is_plan:
            raise UserError(f"{option}: {folder.path} is no search")
    if is_plan:
        from dlx.sweeps.sweep import resume_sweep

        execution = make_execution(executor, jobs, time_limit, slurm, trusted(trust), quiet)
        swept = resume_sweep(folder, execution, storage=storage, trials=trials)
        (report_claim if is_claim else report_sweep)(swept, json, again(trust))
        return

    check_one_run(executor, jobs, time_limit, slurm)
    config = compose(overrides, conf_dirs=conf_dir or (), base=frozen) if overrides else frozen
    changed = {} if fork else check_resumable(frozen, config)

    from dlx.training import run as training

    if fork:
        result = training.train(config, fork=folder, quiet=quiet)
    else:
        result = training.resume(folder, config, changed=changed, quiet=quiet)
    report(result, json, again(trust))
