"""Trained systems back from their run folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dlx.config import Config, build, instantiate
from dlx.config.errors import UserError
from dlx.runs.checkpoint import assign, latest_checkpoint, load_weights
from dlx.runs.folder import RunFolder

if TYPE_CHECKING:
    from pathlib import Path

    from dlx.tasks.spec import Spec
    from dlx.tasks.system import System


def newest_checkpoint(run: RunFolder) -> Path:
    """The newest checkpoint that is whole. Raises UserError when there is none."""
    folder, problems = latest_checkpoint(run.checkpoints)
    if folder is None:
        raise UserError("\n".join([f"{run.path}: no checkpoint that is whole", *problems]))
    return folder


def without_weights(config: Config) -> Config:
    """The configuration without the file that a model's first weights came from: a checkpoint has them."""
    model = config["model"]
    if model.get("weights") is None:
        return config
    return replace(config, values={**config.values, "model": {**model, "weights": None}})


def check_is_run(run: RunFolder, config: Config) -> None:
    """Raises UserError for a folder of many runs, also an experiment's that was cut off before its plan was whole."""
    if run.is_plan or "experiment" in config.values:
        raise UserError(f"{run.path}: an experiment or sweep; name one of its runs (dlx runs --members lists them)")


def load_spec(run: RunFolder) -> Spec:
    return instantiate(run.spec, base="dlx.tasks.spec.Spec", key="spec", file=str(run.path / "spec.json"))


def load_system(run: RunFolder, config: Config | None = None, *, trust: Sequence[str] = ()) -> System:
    """The run's system with its best weights, on the CPU, in eval mode. Needs no dataset.

    config: the run's, where it is loaded already.
    """
    config = config or Config.load(run.config_path, trust=trust)
    check_is_run(run, config)
    system = build(without_weights(config), "model", spec=load_spec(run))
    assign(system, load_weights(newest_checkpoint(run) / "best.safetensors"))
    return system.eval()
