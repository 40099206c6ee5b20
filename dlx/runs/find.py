"""Finding runs: by path, by name or a unique part of it, or `@last`."""

from __future__ import annotations

import difflib
from pathlib import Path

from dlx.config.errors import UserError
from dlx.runs.folder import RunFolder

MEMBERS = "runs"  # the folder, inside that of a plan, of the plan's runs
ENSEMBLE = "ensemble"  # the run, inside the folder of a method, that its members are together


def all_runs(root: str | Path = "outputs", *, members: bool = False) -> list[RunFolder]:
    """Every run folder below `root`, oldest first (folder names begin with their UTC time).

    members: also the runs inside a plan's folder (an experiment's, a sweep's), after it.
    """
    root = Path(root).expanduser()
    found = [path.parent.relative_to(root) for path in root.glob("**/config.yaml") if not path.is_symlink()]
    found = [path for path in found if not (path.name == "files" and "wandb" in path.parts)]  # that of W&B's client
    ordered = sorted(found, key=lambda path: (path.parts[1:], str(path)))
    return [RunFolder(root / path) for path in ordered if members or not _is_inside(path)]


def _is_inside(path: Path) -> bool:
    """Whether a run folder lies in a plan's; a folder of its own is named after its time."""
    return MEMBERS in path.parts or path.name == ENSEMBLE


def find_run(run: str, root: str | Path = "outputs") -> RunFolder:
    """Raises UserError when nothing, or more than one run, is meant."""
    path = Path(run).expanduser()
    if (path / "config.yaml").is_file():
        return RunFolder(path)
    if path.is_dir():
        raise UserError(f"{run}: not a run folder (it has no config.yaml)")
    if not (started := all_runs(root)):
        raise UserError(f"{run}: there are no runs below {root}/ yet; `dlx train` makes one")
    if run == "@last":
        return started[-1]
    runs = all_runs(root, members=True)
    matches = (
        [folder for folder in runs if run == folder.name]
        or [folder for folder in started if run in str(folder.path)]
        or [folder for folder in runs if run in str(folder.path)]
    )
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(folder.name for folder in matches[-3:])
        raise UserError(f"{run}: {len(matches)} runs match, such as {names}; give more of the name")
    near = difflib.get_close_matches(run, [folder.name for folder in runs], n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"{run}: no such run below {root}/{hint}; `dlx runs` lists them")


def plan_folder(run: Path) -> Path | None:
    """The folder of the sweep, method or experiment that a run is a member of."""
    path = run.resolve()
    around = path.parent.parent if path.parent.name == MEMBERS else path.parent if path.name == ENSEMBLE else None
    if around is not None and around.parent.name == "points":
        around = around.parent.parent
    return around if around is not None and RunFolder(around).is_plan else None


def find_trained(run: str, root: str | Path = "outputs") -> RunFolder:
    """As find_run; for a method's folder the ensemble that it left."""
    folder = find_run(run, root)
    ensemble = RunFolder(folder.path / ENSEMBLE)
    return ensemble if ensemble.config_path.is_file() else folder
