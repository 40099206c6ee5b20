"""Where runs lie: `output_root=`, `--root` and $DLX_OUTPUTS are one setting."""

from __future__ import annotations

import os

ROOT_VARIABLE = "DLX_OUTPUTS"
ROOT = "outputs"


def default_root() -> str:
    """Where nothing else is said."""
    return os.environ.get(ROOT_VARIABLE) or ROOT
