"""Trained systems back from their run folders, also as parts of others.

A model's argument `X_from` names runs; their best weights are where its systems `X` begin. `with_parts` writes the
`model:` blocks of those runs as `X` into the configuration, so that a trained system needs their folders no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dlx.config import Config, build, instantiate
from dlx.config.errors import ConfigError, Problem, UserError
from dlx.runs.checkpoint import assign, latest_checkpoint, load_weights
from dlx.runs.find import find_run
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
    """The configuration without the file or the runs that a model's first weights came from: a checkpoint has them."""
    config = without_origins(config)
    if not isinstance(config["model"].get("weights"), str):
        return config
    return _with_model(config, {**config["model"], "weights": None})


def without_origins(config: Config) -> Config:
    """The configuration without the runs that its systems come from: their blocks are in it (`with_parts`)."""
    if not (origins := _origins(config)):
        return config
    return _with_model(config, {name: value for name, value in config["model"].items() if name not in origins})


def _with_model(config: Config, model: dict[str, Any]) -> Config:
    return replace(config, values={**config.values, "model": model})


def _origins(config: Config) -> dict[str, Any]:
    """The model's arguments `X_from` that name runs: a name, or a list of them."""
    return {name: value for name, value in config["model"].items() if name.endswith("_from") and value}


def with_parts(config: Config, spec: Spec) -> Config:
    """The configuration with the `model:` block of each run that the model's `X_from` names as its `X`, and those runs
    by their paths.

    Raises ConfigError for a run that is not there, or was trained on data of another kind.
    """
    model, problems = dict(config["model"]), []
    for name, value in _origins(config).items():
        runs = []
        for run in value if isinstance(value, list) else [value]:
            try:
                folder = find_run(run, config["output_root"])
                frozen = Config.load(folder.config_path, trust=config.trust)
                check_is_run(folder, frozen)
                if load_spec(folder) != spec:
                    raise UserError(f"{run}: was trained on other data ({frozen.choices['dataset']})")
            except UserError as error:
                problems.append(Problem(f"model.{name}", str(error)))
            else:
                runs.append((str(folder.path), without_weights(frozen)["model"]))
        paths, blocks = [path for path, _ in runs], [block for _, block in runs]
        if runs:
            is_list = isinstance(value, list)
            model[name] = paths if is_list else paths[0]
            model[name.removesuffix("_from")] = blocks if is_list else blocks[0]
    if problems:
        raise ConfigError(problems)
    return _with_model(config, model)


def build_system(config: Config, spec: Spec) -> System:
    """The model as a training begins with it: systems that come from runs have their best weights."""
    parts: dict[str, Any] = {}
    origins = _origins(config)
    for name, value in origins.items():
        runs = [value] if isinstance(value, str) else value
        found = tuple(load_system(RunFolder(run), trust=config.trust) for run in runs)
        parts[name.removesuffix("_from")] = found[0] if isinstance(value, str) else found
    model = {name: value for name, value in config["model"].items() if name not in (*origins, *parts)}
    return build(_with_model(config, model), "model", spec=spec, **parts)


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
