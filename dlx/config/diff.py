"""The difference between a run's frozen configuration and the one that it resumes with."""

from __future__ import annotations

from typing import Any

from dlx.config.compose import Config
from dlx.config.errors import ConfigError, Problem
from dlx.config.keys import flatten

MAY_CHANGE = (
    "trainer.epochs",
    "trainer.max_steps",
    "trainer.device",
    "trainer.checkpoint_every",
    "trainer.log_every",
    "dataset.path",
    "dataset.root",
    "dataset.timeout",
    "dataset.workers",
    "tracker",
)
"""Keys that may change on resume: none affects what a step computes. Data that moved are compared with the run's."""


def changes(before: Config, after: Config) -> dict[str, Any]:
    """Dotted keys whose values differ, each with its new value (None for a key that is gone)."""
    old, new = dict(flatten(before.values)), dict(flatten(after.values))
    return {key: new.get(key) for key in {**old, **new} if old.get(key) != new.get(key)}


def check_resumable(before: Config, after: Config) -> dict[str, Any]:
    """The changes. Raises ConfigError that lists those which a resumed run may not make."""
    changed = changes(before, after)
    problems = [
        Problem(key, "cannot change in a resumed run; --fork starts a new run from its weights")
        for key in changed
        if not any(key == allowed or key.startswith(f"{allowed}.") for allowed in MAY_CHANGE)
    ]
    if problems:
        raise ConfigError(problems)
    return changed
