"""Deletes runs by moving them to ROOT/.trash/KEY, with a manifest of their places, and restores them."""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from pathlib import Path

from dlx.dashboard.answers import Problem
from dlx.runs.catalog import Entry
from dlx.runs.files import is_folder, read_json, write_json
from dlx.runs.find import plan_of
from dlx.runs.lock import owner_is_alive

TRASH = ".trash"
MANIFEST = "manifest.json"


class Refused(Problem):
    """Nothing was moved, for a reason of one line."""

    def __init__(self, text: str) -> None:
        super().__init__(409, text)


def throw_away(root: Path, entries: dict[str, Entry], ids: list[str]) -> tuple[str, list[str]]:
    """Moves runs with all that is inside them; a plan all of whose runs are chosen goes too, and no empty one is left.
    Returns the key that restores them, and the ids that are gone.

    Raises Refused where one of them, or of their members, is alive.
    """
    ids = [*ids, *_emptied(entries, set(ids))]
    chosen = [name for name in dict.fromkeys(ids) if not any(name.startswith(f"{other}/") for other in ids)]
    gone = [name for name in entries if any(name == one or name.startswith(f"{one}/") for one in chosen)]
    for name in gone:
        if owner_is_alive(entries[name].path):
            raise Refused(f"{entries[name].name} is running: stop it first, then delete it")
    trash = root / TRASH
    if trash.is_symlink():
        raise Refused(f"{trash} is a link: nothing is moved through it")
    key = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(8)}"
    folder = trash / key
    try:
        folder.mkdir(parents=True)
        # First of all, so that what a crash leaves half moved can still be restored.
        write_json(folder / MANIFEST, {"moved": dict(enumerate(chosen)), "time": time.time()})
        for number, name in enumerate(chosen):
            entries[name].path.rename(folder / str(number))
    except OSError as error:
        with contextlib.suppress(Refused):
            restore(root, key)
        raise Refused(f"not deleted: {error.strerror}") from error
    return key, gone


def _emptied(entries: dict[str, Entry], ids: set[str]) -> list[str]:
    """The plans that have runs, at whatever depth, and of those none that stays."""
    runs: dict[str, list[str]] = {}
    for name, entry in entries.items():
        plan = entry.plan if not entry.is_plan else None
        while plan is not None:
            runs.setdefault(plan, []).append(name)
            plan = plan_of(plan)
    goes = {name for name in entries if any(name == one or name.startswith(f"{one}/") for one in ids)}
    return [plan for plan, members in runs.items() if plan in entries and goes.issuperset(members)]


def restore(root: Path, key: str) -> list[str]:
    """The ids that are back. Raises Refused where there is no such key, or something else is in a run's place."""
    trash = root / TRASH
    if not is_folder(trash) or key not in [item.name for item in trash.iterdir()] or not is_folder(trash / key):
        raise Refused("nothing to restore: it is not in the trash any more")
    folder = trash / key
    try:
        moved = {str(number): str(name) for number, name in read_json(folder / MANIFEST)["moved"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{folder / MANIFEST} cannot be read") from error
    # The trash may come from anywhere, as any folder: neither side may lead out of it.
    for number in moved:
        if not re.fullmatch(r"[0-9]{1,9}", number, re.ASCII) or (folder / number).is_symlink():
            raise Refused(f"{folder / MANIFEST} cannot be read: {number[:40]!r} is none of its folders")
    back = []
    try:
        for number, name in moved.items():
            target = root / name
            if not (folder / number).exists():
                continue
            parts = Path(name).parts
            is_inside = parts and ".." not in parts and parts[0] != TRASH
            if not is_inside or not target.resolve().is_relative_to(root.resolve()) or target.exists():
                raise Refused(f"not restored: something is at {target} already")
            target.parent.mkdir(parents=True, exist_ok=True)
            (folder / number).rename(target)
            back.append(name)
        (folder / MANIFEST).unlink()
        folder.rmdir()
    except OSError as error:
        raise Refused(f"not restored: {error.strerror}") from error
    return back
