"""Packages that only some features need: pyproject.toml groups them into extras."""

from __future__ import annotations

import importlib.util

from dlx.config.errors import UserError


def require(feature: str, extra: str, *packages: str) -> None:
    """Raises UserError naming the extra if one of the packages is not installed. Imports none of them."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{feature} needs {' and '.join(missing)}: pip install 'dlx[{extra}]'")
