"""The ensemble of a method's members: a run of its own, which eval, predict and export take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlx.config import Config
from dlx.runs.find import ENSEMBLE
from dlx.runs.folder import RunFolder
from dlx.sweeps.plan import Interrupted
from dlx.training.run import train

ENSEMBLE_NOTE = "a run of its own in ensemble/; dlx eval, predict and export take this folder for it"


def write_ensemble(base: Config, runs: Mapping[str, RunFolder], home: Path, **settings: Any) -> RunFolder:
    """Writes the run `home/ensemble`: the members' best weights, evaluated on val and test of the base's data.

    settings: further arguments of the model (dlx/models/ensemble.py): vote, weights, offset. A run from before stays if
    it was made of the same members, at the same steps.
    """
    folder = RunFolder(home / ENSEMBLE)
    made_of = {"best_steps": {name: run.summary().get("best_step") for name, run in runs.items()}, **settings}
    if folder.summary().get("made_of") == made_of:  # written last
        return folder
    model = {
        "_target_": "dlx.models.ensemble.Ensemble", "members_from": [str(run.path) for run in runs.values()],
        "vote": "average", "weights": None, "offset": None, **settings, "loss": None,
    }  # fmt: skip
    by_gradients = {
        "ema": None,
        "clip_norm": None,
        "accumulate": 1,
        "compile": False,
        "precision": "fp32",
        "monitor": None,
        "init_from": None,
    }
    blocks = {
        "model": model,
        "dataset": {**base["dataset"], "bootstrap": None},
        "trainer": {**base["trainer"], **by_gradients},  # without settings of a training by gradients
        "regularization": {},
    }
    choices = {**base.choices, "model": ENSEMBLE, "regularization": []}
    config = replace(base, values={**base.values, **blocks}, choices=choices)
    result = train(config, quiet=True, at=folder.path)
    if result.status == "interrupted":
        raise Interrupted(result.code)
    folder.write_summary({**folder.summary(), "made_of": made_of})
    return folder
