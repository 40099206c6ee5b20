"""Finding runs: by path, by name or a unique part of it, or `@last`."""

from __future__ import annotations

import difflib
from pathlib import Path

from dlx.config.errors import UserError
from dlx.runs.folder import RunFolder


def all_runs(root: str | Path = "outputs") -> list[RunFolder]:
    """Every run folder below `root`, oldest first (folder names begin with their UTC time)."""
    found = [path.parent for path in Path(root).expanduser().glob("**/config.yaml") if not path.is_symlink()]
    return [RunFolder(path) for path in sorted(found, key=lambda path: (path.name, str(path)))]


def find_run(run: str, root: str | Path = "outputs") -> RunFolder:
    """Raises UserError when nothing, or more than one run, is meant."""
    path = Path(run).expanduser()
    if (path / "config.yaml").is_file():
        return RunFolder(path)
    if path.is_dir():
        raise UserError(f"{run}: not a run folder (it has no config.yaml)")
    runs = all_runs(root)
    if not runs:
        raise UserError(f"{run}: there are no runs below {root}/ yet; `dlx train` makes one")
    if run == "@last":
        return runs[-1]
    matches = [folder for folder in runs if run == folder.name] or [
        folder for folder in runs if run in str(folder.path)
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(folder.name for folder in matches[-3:])
        raise UserError(f"{run}: {len(matches)} runs match, such as {names}; give more of the name")
    near = difflib.get_close_matches(run, [folder.name for folder in runs], n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"{run}: no such run below {root}/{hint} `dlx runs` lists them")
