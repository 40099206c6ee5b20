"""The one training loop."""

from __future__ import annotations

from typing import Literal


class Trainer:
    """Settings of the loop, and the loop.

    epochs: passes over the training split; max_steps, where set, counts optimizer steps instead.
    """

    def __init__(
        self,
        *,
        epochs: int = 30,
        max_steps: int | None = None,
        device: str = "auto",
        precision: Literal["fp32", "bf16", "fp16"] = "fp32",
        threads: int | None = None,
        accumulate: int = 1,
        clip_norm: float | None = None,
        ema: float | None = None,
        compile: bool = False,
        channels_last: bool | None = None,
        log_every: int = 50,
        validate_every: int | str = "1epoch",
        checkpoint_every: int | str = "5min",
        monitor: str | None = None,
    ) -> None:
        pass
