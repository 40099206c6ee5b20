"""Writing files that are whole or absent."""

from __future__ import annotations

import io
import json
import math
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def sync_directory(path: Path) -> None:
    """Makes a rename in `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes beside its place, syncs, renames. Never through $TMPDIR: a rename across file systems is a copy."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with beside.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_picture(path: Path, figure: Figure) -> None:
    """A matplotlib figure as PNG."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    write_atomic(path, image.getvalue())


def strict(value: Any) -> Any:
    """The value with non-finite numbers as "NaN", "Infinity", "-Infinity", which strict JSON readers take."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    return value


NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def loosened(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures as `strict` wrote them, with the three texts as numbers again."""
    return {name: NON_FINITE.get(value, value) if isinstance(value, str) else value for name, value in figures.items()}


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, json.dumps(strict(value), indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
