"""The folder of all runs: `output_root=`, `--root` and $DLX_OUTPUTS are one setting."""

from __future__ import annotations

import os
from pathlib import Path

ROOT_VARIABLE = "DLX_OUTPUTS"
ROOT = "outputs"


def default_root() -> str:
    """The root as it is written in a configuration that names none."""
    return os.environ.get(ROOT_VARIABLE) or ROOT


def runs_root(root: str | Path | None = None) -> Path:
    """The folder that `root` means; None is the default one."""
    return Path(root or default_root()).expanduser()
