"""Settings of the training loop (dlx/training/loop.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from dlx.config import checks
from dlx.config.groups import nearest
from dlx.config.monitor import Monitor
from dlx.training.interval import Interval

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlx.regularization.regularizer import Regularizer
    from dlx.tasks.system import System

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer:
    """Settings of the loop.

    epochs: passes over the training split; max_steps, where set, counts optimizer steps instead.
    accumulate: micro-batches per step, into which the (effective) batch is split; the loss is the whole batch's mean.
    clip_norm: gradients of an objective are scaled down to this norm.
    ema: decay of an average of the weights, which is then what is evaluated and kept as best.
    log_every: steps; validate_every, checkpoint_every: steps, or such as 5min, 2epochs.
    pictures_every: how often pictures are made, as validate_every, at validations; None: at the end, and of systems
    whose pictures show how they change at about 20 validations, the first ones closer together.
    monitor: what "best" means, such as val/loss:min; None leaves it to the system.
    init_from: weights to begin with, by name: a .safetensors or .pth file, a run, or a part of its system (RUN:part).
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
        pictures_every: int | str | None = None,
        monitor: str | None = None,
        init_from: str | None = None,
    ) -> None:
        checks.at_least(
            1, epochs=epochs, max_steps=max_steps, threads=threads, accumulate=accumulate, log_every=log_every
        )
        checks.above(0, clip_norm=clip_norm)
        checks.between("(0, 1)", ema=ema)
        checks.one_of(("fp32", *DTYPES), precision=precision)
        intervals = {
            "validate_every": validate_every, "checkpoint_every": checkpoint_every, "pictures_every": pictures_every,
        }  # fmt: skip
        for name, every in intervals.items():
            try:
                interval = Interval.parse(1 if every is None else every, steps_per_epoch=1)
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None
            if name == "pictures_every" and interval.steps is None:
                raise ValueError(f"{name} must be steps or epochs, such as 500 or 1epoch, got {every!r}")
        self.epochs, self.max_steps, self.device, self.precision = epochs, max_steps, device, precision
        self.threads, self.accumulate, self.clip_norm, self.ema = threads, accumulate, clip_norm, ema
        self.compile, self.channels_last, self.log_every = compile, channels_last, log_every
        self.validate_every, self.checkpoint_every = validate_every, checkpoint_every
        self.pictures_every, self.init_from = pictures_every, init_from
        self.monitor = Monitor.parse(monitor) if monitor else None

    def monitored_of(self, system: System, regularizers: Mapping[str, Regularizer]) -> Monitor | None:
        """What "best" means: as the trainer or a regularizer sets it, else the system's own.

        Raises ValueError if they differ, if no validation has the metric, or if a regularizer needs one and there is
        none.
        """
        given = {name: part.monitor for name, part in regularizers.items() if part.monitor}
        given |= {"trainer": str(self.monitor)} if self.monitor else {}
        if len(set(given.values())) > 1:
            each = ", ".join(f"{name} {text}" for name, text in given.items())
            raise ValueError(f"monitor must be one: what is best is said in several ways: {each}")
        text = next(iter(given.values())) if given else ":".join(system.monitor or ())
        monitored = Monitor.parse(text) if text else None
        known = [f"val/{name}" for name in system.metric_names]  # empty if the names are not known before
        known += [f"{kind}/{name}" for kind in ("probe", "gap") for name in system.gaps] if known else []
        if monitored and known and (name := monitored.name) not in known:
            raise ValueError(
                f"monitor {name}: no such metric{nearest(name, known) or ';'} {', '.join(known)} are there"
            )
        if monitored and not system.defines("evaluate"):
            raise ValueError(f"monitor {monitored.name}: {type(system).__name__} is not evaluated")
        for name, part in regularizers.items():
            if part.needs_monitor and monitored is None:
                raise ValueError(f"monitor must be given for {name}: this system monitors nothing")
        return monitored

    def total_steps(self, system: System, steps_per_epoch: int) -> int:
        """0 for a closed-form system."""
        return (self.max_steps or self.epochs * steps_per_epoch) if system.objectives() else 0

    def uses_channels_last(self, system: System) -> bool:
        """By default convolutional systems do (1.3 times a plain loop on a CPU)."""
        is_convolutional = any(p.dim() == 4 for p in system.parameters())
        return is_convolutional if self.channels_last is None else self.channels_last

    def to_device(self, system: System, device: torch.device) -> System:
        """Moves a system to a device, in its memory format."""
        system.to(device)
        return system.to(memory_format=torch.channels_last) if self.uses_channels_last(system) else system
