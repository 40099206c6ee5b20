"""The one training loop: `Trainer.fit`, and under it one method for each thing that a step does."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from dlx.config.errors import UserError
from dlx.data.dataset import Dataset
from dlx.runs.checkpoint import assign, load_state, load_weights, save_checkpoint, snapshot
from dlx.training.average import Average
from dlx.training.clock import Clock
from dlx.training.evaluate import evaluate
from dlx.training.interval import Due, Interval
from dlx.training.job import Diverged, Job, Outcome, State
from dlx.training.signals import Signals
from dlx.training.step import DTYPES, Step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlx.regularization.regularizer import Regularizer
    from dlx.tasks.system import System


def is_better(value: float, best: float | None, mode: str) -> bool:
    """Ties go to the later weights: on a small validation split they are common, and those were trained longer."""
    if best is None or math.isnan(best):
        return True
    return value <= best if mode == "min" else value >= best


def parse_monitor(text: str) -> tuple[str, str]:
    """`val/loss:min` -> ("val/loss", "min")."""
    name, _, mode = text.rpartition(":")
    if not name or mode not in ("min", "max"):
        raise ValueError(f"monitor must be such as val/loss:min or val/accuracy:max, got {text!r}")
    return name, mode


class Trainer:
    """Settings of the loop, and the loop.

    epochs: passes over the training split; max_steps, where set, counts optimizer steps instead.
    accumulate: micro-batches per step, into which the (effective) batch is split.
    clip_norm: gradients of an objective are scaled down to this norm.
    ema: decay of an average of the weights, which is then what is evaluated and kept as best.
    log_every: steps; validate_every, checkpoint_every: steps, or such as 5min, 2epochs.
    monitor: what "best" means, such as val/loss:min; None leaves it to the system.
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
        at_least_one = {"epochs": epochs, "max_steps": max_steps, "threads": threads}
        for name, value in {**at_least_one, "accumulate": accumulate, "log_every": log_every}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if clip_norm is not None and clip_norm <= 0:
            raise ValueError(f"clip_norm must be above 0, got {clip_norm}")
        if ema is not None and not 0 < ema < 1:
            raise ValueError(f"ema must be in (0, 1), got {ema}")
        if precision not in ("fp32", *DTYPES):
            raise ValueError(f"precision must be fp32, bf16 or fp16, got {precision!r}")
        for name, every in {"validate_every": validate_every, "checkpoint_every": checkpoint_every}.items():
            try:
                Interval.parse(every, steps_per_epoch=1)
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None
        self.epochs, self.max_steps, self.device, self.precision = epochs, max_steps, device, precision
        self.threads, self.accumulate, self.clip_norm, self.ema = threads, accumulate, clip_norm, ema
        self.compile, self.channels_last, self.log_every = compile, channels_last, log_every
        self.validate_every, self.checkpoint_every = validate_every, checkpoint_every
        self.monitor = parse_monitor(monitor) if monitor else None

    def monitored_of(self, system: System, regularizers: Mapping[str, Regularizer]) -> tuple[str, str] | None:
        """What "best" means: what the trainer or a regularizer says, else the system.

        Raises ValueError where they say different things, or a regularizer needs a figure and nobody names one.
        """
        said = {name: part.monitor for name, part in regularizers.items() if part.monitor}
        if self.monitor:
            said["trainer"] = ":".join(self.monitor)
        if len(set(said.values())) > 1:
            each = ", ".join(f"{name} {text}" for name, text in said.items())
            raise ValueError(f"monitor must be one: what is best is said in several ways: {each}")
        monitored = parse_monitor(next(iter(said.values()))) if said else system.monitor
        for name, part in regularizers.items():
            if part.needs_monitor and monitored is None:
                raise ValueError(f"monitor must be given for {name}: this system monitors nothing")
        return monitored

    def total_steps(self, steps_per_epoch: int) -> int:
        return self.max_steps or self.epochs * steps_per_epoch

    def place(self, system: System, device: torch.device) -> System:
        """Moves a system to its device, convolutional ones in channels_last (1.3 times a plain loop on a CPU)."""
        system.to(device)
        convolutional = any(p.dim() == 4 for p in system.parameters())
        self.to_channels_last = convolutional if self.channels_last is None else self.channels_last
        if self.to_channels_last:
            system.to(memory_format=torch.channels_last)
        return system

    def fit(self, job: Job) -> Outcome:
        """Trains to the end, or to a signal; leaves the best weights in the system and a checkpoint behind.

        Raises Diverged when a loss or gradient is not finite; the last good checkpoint is then untouched.
        """
        self.job, self.world = job, job.world
        system = self.system = self.place(job.system, job.world.device)
        if self.compile:
            system.compile()
        train, recorder = job.data.train, job.recorder
        step = self._start()
        state = self.state
        total = self.total = self.total_steps(train.steps_per_epoch) if step.objectives else 0
        recorder.begin(state.step, total, train.steps_per_epoch)
        validation = Due(Interval.parse(self.validate_every, train.steps_per_epoch))
        saving = Due(Interval.parse(self.checkpoint_every, train.steps_per_epoch))
        prepares = type(job.data.dataset).prepare is not Dataset.prepare
        stop, received = False, 0
        system.train()
        with Signals() as signals:
            clock = Clock(state.step)
            while state.step < total and not stop and not received:
                epoch, position = divmod(state.step, train.steps_per_epoch)
                batches = train.epoch(epoch, position)
                for _ in range(min(train.steps_per_epoch - position, total - state.step)):
                    if system.before_step(state.step, job.data):
                        step.make_optimizers()
                    if prepares:
                        job.data.dataset.prepare(state.step, system)
                    batch = clock.next(batches)
                    logging = (state.step + 1) % self.log_every == 0 or state.step + 1 == total
                    told = step(batch, total, logging, signals)
                    if self.average:
                        self.average.update(state.step)
                    for regularizer in step.hooks["after_step"]:
                        regularizer.after_step(system, step.lr)
                    system.after_step(state.step)
                    received = told if self.world.size > 1 else signals.received
                    state.step += 1
                    if logging:
                        scalars = step.read_pending()
                        times, samples = clock.read(state.step), train.batch_size * self.world.size
                        state.seconds += times.seconds
                        scalars |= {
                            "lr": step.lr,
                            "time/step_ms": times.step_ms,
                            "time/data_wait": times.data_wait,
                            "train/throughput": 1e3 * samples / times.step_ms,
                        }
                        recorder.row(state.step, state.step / train.steps_per_epoch, scalars)
                    with clock.stopped():
                        if self._agreed(validation, state.step) or state.step == total:
                            stop = self._validate()
                        if saving.at(state.step) and state.step < total:
                            self._save()
                    if stop or received:
                        break
            state.seconds += clock.read(state.step).seconds
            if (received and state.step < total) or self.pruned:
                self._save()
                return Outcome(state, self.monitored, 0 if self.pruned else received, self.pruned)
            self._finish()
        return Outcome(state, self.monitored)

    # The pieces, in the order of their use.

    def _start(self) -> Step:
        job, system = self.job, self.system
        self.state = State()
        self.best: dict[str, Tensor] | None = None
        self.pruned = False
        self.monitored = self.monitored_of(system, job.regularizers)
        saved: dict[str, Any] = {}
        if job.resume is not None:
            saved = load_state(job.resume)
            for owner, part in self._stateful().items():
                if owner in saved["parts"]:
                    part.load_state(saved["parts"][owner])
            assign(system, load_weights(job.resume / "last.safetensors"))
            self.best = load_weights(job.resume / "best.safetensors")
            self.state = State(**saved["state"])
            pending = self.state.pending.items()
            self.state.pending = {name: [t.to(self.world.device) for t in noted] for name, noted in pending}
        elif job.start is not None:
            assign(system, job.start)
        self.average = Average(system, self.ema) if self.ema else None  # which begins with the weights as they are now
        step = self.step = Step(self, job, self.state)
        if saved:
            for optimizer, part in zip(step.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(part)
            if self.average:
                self.average.load_state(saved["average"])
            if step.scaler:
                step.scaler.load_state_dict(saved["scaler"])
        return step

    def _agreed(self, due: Due, step: int) -> bool:
        now = due.at(step)
        return self.world.agree(now) if due.interval.seconds is not None else now

    def _validate(self) -> bool:
        """Evaluates the validation split, keeps the best weights. Returns whether a regularizer ends the training."""
        state, data, seed = self.state, self.job.data, self.job.seed
        with self.average.applied() if self.average else nullcontext():
            figures = evaluate(self.system, data.val, self.world, seed)
            scalars = {f"val/{name}": value for name, value in figures.items()}
            if data.probe is not None:
                # The same weights on what they were fitted to: positive is overfitting.
                fitted = evaluate(self.system, data.probe, self.world, seed)
                scalars |= {f"probe/{k}": fitted[k] for k in self.system.gaps}
                scalars |= {f"gap/{k}": sign * (fitted[k] - figures[k]) for k, sign in self.system.gaps.items()}
            state.history.append({"step": float(state.step), **scalars})
            value = None
            if self.monitored:
                name, mode = self.monitored
                if name not in scalars:
                    raise UserError(f"trainer.monitor: {name} is not among {', '.join(scalars)}")
                value = scalars[name]
                self.job.schedule.on_validation(value, mode)
            if value is None or is_better(value, state.best_value, self.monitored[1] if self.monitored else "max"):
                state.best_value, state.best_step = value, state.step
                self.best = snapshot(self.system)
        self.job.recorder.row(state.step, state.step / data.train.steps_per_epoch, scalars)
        ends = False
        for regularizer in self.step.hooks["on_validation"]:  # each is told, also when an earlier one ends the training
            ends |= regularizer.on_validation(state.history, self.monitored)
        if self.job.watch is not None and not ends and state.step < self.total:
            self.pruned = self.job.watch(state.history)
        return ends or self.pruned

    def _stateful(self) -> dict[str, Any]:
        named = {f"regularizer/{name}": part for name, part in self.job.regularizers.items()}
        return {"system": self.system, "dataset": self.job.data.dataset, "schedule": self.job.schedule, **named}

    def _save(self) -> None:
        if not self.world.is_main:
            return
        weights, step = self.system.state_dict(), self.step
        state = {
            "state": {**vars(self.state), "pending": {k: [t.cpu() for t in v] for k, v in self.state.pending.items()}},
            "parts": {owner: part.state() for owner, part in self._stateful().items()},
            "optimizers": [optimizer.state_dict() for optimizer in step.optimizers],
            "average": self.average.state() if self.average else None,
            "scaler": step.scaler.state_dict() if step.scaler else None,
        }
        try:
            save_checkpoint(self.job.checkpoints, self.state.step, weights, self.best or weights, state)
        except OSError as error:
            # A full disk ends no training: the old checkpoint stands, and the run says what it lost.
            self.job.recorder.lose(f"checkpoint at step {self.state.step} not written: {error.strerror}")
        except ValueError as error:
            raise Diverged(f"at step {self.state.step} {error}") from None
        self.job.recorder.sync()

    def _finish(self) -> None:
        """The end: the best weights, the closed-form stage on them, and the last checkpoint."""
        last = snapshot(self.system)
        assign(self.system, self.best or last)
        self.system.fit(self.job.data)
        self.best = snapshot(self.system)
        assign(self.system, last)
        self._save()
        assign(self.system, self.best)
