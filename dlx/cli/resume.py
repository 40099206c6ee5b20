"""dlx resume: a run that was cut off goes on."""

from __future__ import annotations

from pathlib import Path

from dlx.cli.options import Json, Root, Run, Trust, trusted
from dlx.cli.train import report


def resume(run: Run, trust: Trust = None, json: Json = False, root: Root = Path("outputs")) -> None:
    """Go on with an interrupted run, to the same bits as if it had never stopped."""
    from dlx.config import Config
    from dlx.config.errors import UserError
    from dlx.runs.find import find_run

    folder = find_run(run, root)
    config = Config.load(folder.config_path, trust=trusted(trust))
    if folder.status()["status"] == "finished":
        raise UserError(f"{folder.path}: this run is finished; `dlx train --from {folder.name}` starts it anew")

    from dlx.training.job import resume as go_on

    report(go_on(folder, config), json)
