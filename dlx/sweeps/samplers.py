"""Samplers, which decide on a search's points, and pruners, which end runs that others outdo."""

from __future__ import annotations

import importlib.util
import io
import pickle
import random
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dlx.config.errors import UserError
from dlx.sweeps.space import Choices, Dimension
from dlx.sweeps.storage import StudyError

if TYPE_CHECKING:
    import optuna

SAMPLERS = ("tpe", "gp", "cmaes", "random")
PRUNERS = ("none", "median", "hyperband")


def check_sampler(sampler: str, dimensions: Sequence[Dimension]) -> None:
    if sampler != "cmaes":
        return
    if importlib.util.find_spec("cmaes") is None:
        raise UserError("--search cmaes: needs the package cmaes; pip install 'dlx[search]'")
    numbers = sum(not isinstance(dimension, Choices) for dimension in dimensions)
    if numbers < 2:
        raise UserError(f"--search cmaes: needs intervals or ranges of two keys at least, got {numbers}; tpe takes all")


def make_sampler(kind: str, seed: int, number: int) -> optuna.samplers.BaseSampler:
    import optuna

    own = random.Random(f"{seed}/{number}").getrandbits(31)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if kind == "tpe":  # running trials count as bad ones, so that those beside them go elsewhere
            return optuna.samplers.TPESampler(seed=own, constant_liar=True)
        if kind == "gp":
            return optuna.samplers.GPSampler(seed=own, warn_independent_sampling=False)
        if kind == "cmaes":
            return optuna.samplers.CmaEsSampler(seed=own, warn_independent_sampling=False)
        return optuna.samplers.RandomSampler(seed=own)


def make_pruner(kind: str) -> optuna.pruners.BasePruner:
    import optuna

    if kind == "median":
        return optuna.pruners.MedianPruner()
    if kind == "hyperband":
        return optuna.pruners.HyperbandPruner()
    return optuna.pruners.NopPruner()


class _OnlyCma(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _CMA_CLASSES:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not of cmaes")


_CMA_CLASSES = {
    ("cmaes._cma", "CMA"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
}


def check_pickles(trials: Sequence[optuna.trial.FrozenTrial], where: str) -> None:
    """CMA-ES keeps its state as pickles in the trials, which Optuna loads: a study from elsewhere could run anything.

    Raises StudyError where one names something else than CMA-ES and its arrays. where: the study, as messages name it.
    """
    for trial in trials:
        parts = {key: text for key, text in trial.system_attrs.items() if "optimizer" in key}
        ordered = sorted(parts, key=lambda key: int(key.rpartition(":")[2]))
        if parts:
            try:
                _OnlyCma(io.BytesIO(bytes.fromhex("".join(parts[key] for key in ordered)))).load()
            except Exception as error:
                raise StudyError(f"{where}: trial {trial.number} is not to be trusted: {error}") from None
