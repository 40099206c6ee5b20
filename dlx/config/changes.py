"""What differs between a run's frozen configuration and the one it is to go on with."""

from __future__ import annotations

from typing import Any

from dlx.config.compose import Config
from dlx.config.errors import ConfigError, Problem

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
"""Keys that may change on resume: none affects what a step computes. Moved data are compared with the run's."""


def leaves(value: Any, key: str = "") -> dict[str, Any]:
    """A nested mapping by dotted keys; lists are values."""
    if isinstance(value, dict) and value:
        return {k: v for name, item in value.items() for k, v in leaves(item, f"{key}.{name}".lstrip(".")).items()}
    return {key: value}


def changes(before: Config, after: Config) -> dict[str, Any]:
    """Dotted keys whose values differ, with the value after (None: gone)."""
    old, new = leaves(before.values), leaves(after.values)
    return {key: new.get(key) for key in {**old, **new} if old.get(key) != new.get(key)}


def check_resumable(before: Config, after: Config) -> dict[str, Any]:
    """The changes, all of which may be made. Raises ConfigError listing those that would make it another run."""
    changed = changes(before, after)
    problems = [
        Problem(key, "cannot change in a resumed run; --fork starts a new run from its weights")
        for key in changed
        if not any(key == allowed or key.startswith(f"{allowed}.") for allowed in MAY_CHANGE)
    ]
    if problems:
        raise ConfigError(problems)
    return changed
