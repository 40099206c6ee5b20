"""Finds runs by path, by name or a unique part of it, or `@last`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from dlx.config.errors import UserError
from dlx.config.groups import nearest
from dlx.config.root import default_root, runs_root
from dlx.runs.files import read_json
from dlx.runs.folder import RunFolder

MEMBERS = "runs"  # the folder, inside that of a plan, of the plan's runs
INSIDE = ("checkpoints", "media", "spec", "wandb", "plan", "export")  # folders of a run that hold no runs
POINTS = "points"  # the folder, inside that of a sweep of methods, of what each method writes
ENSEMBLE = "ensemble"  # the run, inside the folder of a method, that its members are together


def run_folders(root: Path) -> Iterator[tuple[str, Path, list[os.DirEntry[str]]]]:
    """Every run folder below `root`: its id (the path below, with `/`), its path, and what lies in it. Links are not
    followed, and what begins with a dot (the trash) holds no runs."""
    waiting = [("", root)]
    while waiting:
        name, path = waiting.pop()
        try:
            inside = list(os.scandir(path))
        except OSError:
            continue
        is_run = any(item.name == "config.yaml" and item.is_file(follow_symlinks=False) for item in inside)
        if is_run and name:
            yield name, path, inside
        for item in inside:
            if item.name.startswith(".") or (is_run and item.name in INSIDE):
                continue
            if item.is_dir(follow_symlinks=False):
                waiting.append((f"{name}/{item.name}".lstrip("/"), path / item.name))


def plan_of(name: str) -> str | None:
    """The id of the plan that a run is a member of, at any depth below the plan's runs; None for other runs. That of a
    method's ensemble in a sweep of methods is the sweep."""
    *parents, own = name.split("/")
    if parents and own == ENSEMBLE:
        plan = parents[:-2] if parents[-2:-1] == [POINTS] else parents
    elif MEMBERS in parents[1:]:
        plan = parents[: len(parents) - 1 - parents[::-1].index(MEMBERS)]
    else:
        return None
    return "/".join(plan)


def chronological(paths: Mapping[str, Path]) -> list[str]:
    """The ids of run folders, oldest first: a plan's members, at whatever depth, follow it by name."""
    begun = {name: _began(path) for name, path in paths.items() if plan_of(name) is None}

    def rank_key(name: str) -> tuple[float, str, str]:
        outermost = name
        while (plan := plan_of(outermost)) is not None:
            outermost = plan
        return begun.get(outermost, 0.0), outermost.rpartition("/")[2], name

    return sorted(paths, key=rank_key)


def created(path: Path) -> float:
    """The start of a run in seconds since 1970, from its name, else from its files."""
    with suppress(ValueError):
        return datetime.strptime(path.name[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC).timestamp()
    try:
        return datetime.fromisoformat(read_json(path / "environment.json")["started"]).timestamp()
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return (path / "config.yaml").lstat().st_mtime


def _began(path: Path) -> float:
    """As `created`, with fractions of a second from the time of the run's first file."""
    second = created(path)
    with suppress(OSError):
        return second + min(max((path / "environment.json").lstat().st_mtime - second, 0.0), 0.999)
    return second


def all_runs(root: str | Path | None = None, *, members: bool = False) -> list[RunFolder]:
    """Every run folder below `root` (None: the default one), oldest first.

    members: also the runs inside a plan's folder (an experiment's, a sweep's), after it.
    """
    found = {name: path for name, path, _ in run_folders(runs_root(root))}
    return [RunFolder(found[name]) for name in chronological(found) if members or plan_of(name) is None]


def find_run(run: str, root: str | Path | None = None) -> RunFolder:
    """The run with this path, name or end of its id; else the only one with this part in its id. Raises UserError
    if none matches, or more than one.

    root: the folder of runs; None is the default one.
    """
    path, root = Path(run).expanduser(), root if root is not None else default_root()
    if (path / "config.yaml").is_file():
        return RunFolder(path)
    wanted = run.strip("/")
    if not wanted:
        raise UserError("RUN: is empty; give a path, a name or @last")
    runs = {name: RunFolder(found) for name, found, _ in run_folders(runs_root(root))}
    outer = [name for name in runs if plan_of(name) is None]
    if wanted == "@last" and outer:
        return runs[chronological({name: runs[name].path for name in outer})[-1]]
    matches = (
        [name for name in runs if f"/{name}".endswith(f"/{wanted}")]
        or [name for name in outer if wanted == runs[name].path.parent.name]
        or [name for name in outer if wanted in name]
        or [name for name in runs if wanted in name]
    )
    if len(matches) == 1:
        return runs[matches[0]]
    if matches:
        names = [name.rpartition("/")[2] for name in matches[-3:]]
        shown = ", ".join(names if len(set(names)) == len(names) else matches[-3:])
        raise UserError(f"{run}: {len(matches)} runs match, such as {shown}; give more of the name")
    if path.is_dir():
        raise UserError(f"{run}: not a run folder (it has no config.yaml)")
    if not runs:
        raise UserError(f"{run}: there are no runs below {root}/ yet; `dlx train` makes one")
    hint = nearest(run, [folder.name for folder in runs.values()], cutoff=0.4)
    raise UserError(f"{run}: no such run below {root}/{hint}; `dlx runs` lists them")


def plan_folder(run: Path) -> Path | None:
    """The folder of the sweep, method or experiment of a member; None for other runs."""
    plan = plan_of(run.resolve().as_posix())
    return Path(plan) if plan and RunFolder(plan).is_plan else None


def find_trained(run: str, root: str | Path | None = None) -> RunFolder:
    """As find_run; a method's folder stands for its ensemble."""
    folder = find_run(run, root)
    ensemble = RunFolder(folder.path / ENSEMBLE)
    return ensemble if ensemble.config_path.is_file() else folder
