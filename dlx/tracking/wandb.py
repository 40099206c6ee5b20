"""Weights & Biases."""

from __future__ import annotations

from typing import Literal

from dlx.tracking.tracker import Tracker


class Wandb(Tracker):
    def __init__(
        self,
        *,
        project: str = "dlx",
        entity: str | None = None,
        mode: Literal["auto", "online", "offline"] = "auto",
        group: str | None = None,
        tags: list[str] | None = None,
        notes: str | None = None,
    ) -> None:
        pass
