"""What a system tells a person: answers to single samples, and the report of a split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlx.runs.media import LabelImage


@dataclass(frozen=True)
class Answer:
    """A prediction for one sample: a line for a person, plain values for scripts, and what makes a picture of it
    (dlx/runs/media.py) with a title. labels: what makes the classes of its pixels, for programs."""

    line: str
    json: dict[str, Any]
    picture: Callable[[str], Any] | None = None
    labels: Callable[[], LabelImage] | None = None


@dataclass(frozen=True)
class Report:
    """What `dlx eval` shows. tables: rows by name, each a mapping of columns; media: pictures by name
    (dlx/runs/media.py); data: plain values for scripts; metrics: by name, with the split's prefix (of `System.report`
    none: `System.metrics` has them)."""

    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    media: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
