"""Pruning: a running member reports its validations to the study, which may end it early."""

from __future__ import annotations

from pathlib import Path

from dlx.config.errors import UserError
from dlx.config.screen import note
from dlx.sweeps.plan import SEARCH
from dlx.sweeps.search.settings import Settings
from dlx.training.loop import ShouldPrune


def should_prune_of(path: Path, member: str) -> ShouldPrune | None:
    """A function that reports a member's validations and returns whether to prune it; None for a plan without a pruner.

    path: the plan's folder. If the storage fails, training goes on and the failure is printed once.
    """
    if not (path / SEARCH).is_file():
        return None
    settings = Settings.read(path)
    if settings.pruner == "none":
        return None
    from dlx.sweeps.search.study import Study

    opened: list[Study | None] = []

    def should_prune(history: list[dict[str, float]]) -> bool:
        name = settings.metric_name
        values = {number: row[name] for number, row in enumerate(history, 1) if name in row}
        try:
            if not opened:
                opened.append(Study.load(settings, settings.storage_url(path), path))
            return opened[0].report(member, values) if opened[0] else False
        except UserError as error:
            note(f"warning: {error}")
            opened[:] = [None]
            return False

    return should_prune
