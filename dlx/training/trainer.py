"""The one training loop: `Trainer.fit`, and under it one method for each thing that a step does."""

from __future__ import annotations

import math
import signal
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from dlx.data.dataset import Dataset
from dlx.random import reseed
from dlx.runs.checkpoint import assign, load_state, load_weights, save_checkpoint, snapshot
from dlx.training.average import Average
from dlx.training.evaluate import evaluate
from dlx.training.interval import Due, Interval
from dlx.training.signals import Signals

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dlx.data.loader import Loader
    from dlx.optim.schedules import Schedule
    from dlx.regularization.regularizer import Regularizer
    from dlx.tasks.system import Batch, Objective, System
    from dlx.tracking.recorder import Recorder
    from dlx.training.world import World

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Diverged(Exception):
    """A loss or a gradient is not finite any more."""


@dataclass
class Data:
    """A dataset and the loaders of its splits."""

    dataset: Dataset
    train: Loader
    val: Loader
    test: Loader


@dataclass
class Job:
    """All that one training needs, built."""

    system: System
    data: Data
    make_optimizers: Callable[[System, list[Objective]], list[torch.optim.Optimizer]]
    schedule: Schedule
    regularizers: dict[str, Regularizer]
    recorder: Recorder
    world: World
    seed: int
    checkpoints: Path
    resume: Path | None = None


@dataclass
class State:
    """Where a training is. All of it goes into a checkpoint."""

    step: int = 0
    best_value: float | None = None
    best_step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    pending: dict[str, list[Tensor]] = field(default_factory=dict)  # scalars since the last row
    seconds: float = 0.0  # trained, over all sessions


@dataclass(frozen=True)
class Outcome:
    """How a training ended. `signal` is 0 unless one interrupted it."""

    state: State
    signal: int = 0


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
        if precision not in ("fp32", *_DTYPES):
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
        total = self.total_steps(train.steps_per_epoch)
        self._start(total)
        state = self.state
        validation = Due(Interval.parse(self.validate_every, train.steps_per_epoch))
        saving = Due(Interval.parse(self.checkpoint_every, train.steps_per_epoch))
        prepares = type(job.data.dataset).prepare is not Dataset.prepare
        stop, received, waited, since, clock = False, 0, 0.0, state.step, time.perf_counter()
        system.train()
        with Signals() as self.signals:
            while state.step < total and not stop and not received:
                epoch, position = divmod(state.step, train.steps_per_epoch)
                batches = train.epoch(epoch, position)
                for _ in range(min(train.steps_per_epoch - position, total - state.step)):
                    if system.before_step(state.step, job.data):
                        self._make_optimizers()
                    if prepares:
                        job.data.dataset.prepare(state.step, system)
                    asked = time.perf_counter()
                    batch = next(batches)
                    waited += time.perf_counter() - asked
                    logging = (state.step + 1) % self.log_every == 0 or state.step + 1 == total
                    received = self._step(batch, total, logging)
                    state.step += 1
                    if logging:
                        scalars = self._read_pending()
                        elapsed, steps = time.perf_counter() - clock, state.step - since
                        state.seconds += elapsed
                        scalars |= {
                            "lr": self.optimizers[0].param_groups[0]["lr"] if self.optimizers else 0.0,
                            "time/step_ms": 1e3 * elapsed / steps,
                            "time/data_wait": waited / elapsed,
                        }
                        recorder.row(state.step, state.step / train.steps_per_epoch, scalars)
                        recorder.throughput(steps * train.batch_size * self.world.size / elapsed)
                        waited, since, clock = 0.0, state.step, time.perf_counter()
                    if self._agreed(validation, state.step) or state.step == total:
                        outside = time.perf_counter()
                        stop = self._validate()
                        clock += time.perf_counter() - outside
                    if saving.at(state.step) and state.step < total:
                        outside = time.perf_counter()
                        self._save()
                        clock += time.perf_counter() - outside
                    if stop or received:
                        break
            state.seconds += time.perf_counter() - clock
            if received and state.step < total:
                self._save()
                return Outcome(state, received)
            self._finish()
        return Outcome(state)

    # The pieces, in the order of their use.

    def _start(self, total: int) -> None:
        job, system = self.job, self.system
        self.state = State()
        self.monitored = self.monitor or system.monitor
        self.scaler = torch.amp.GradScaler(self.world.device.type) if self.precision == "fp16" else None
        self.best: dict[str, Tensor] | None = None
        self.average = Average(system, self.ema) if self.ema else None
        if job.resume is not None:
            saved = load_state(job.resume)
            for owner, part in self._stateful().items():
                if owner in saved["parts"]:
                    part.load_state(saved["parts"][owner])
            assign(system, load_weights(job.resume / "last.safetensors"))
            self.best = load_weights(job.resume / "best.safetensors")
        self._make_optimizers()
        if job.resume is not None:
            for optimizer, part in zip(self.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(part)
            if self.average:
                self.average.load_state(saved["average"])
            if self.scaler:
                self.scaler.load_state_dict(saved["scaler"])
            self.state = State(**saved["state"])
        hooked = sorted(job.regularizers.values(), key=lambda regularizer: regularizer.place)
        self.hooks = {
            hook: [regularizer for regularizer in hooked if regularizer.defines(hook)]
            for hook in ("on_batch", "around_loss", "penalty", "on_gradients", "after_step", "on_validation")
        }
        self.job.recorder.begin(self.state.step, total, job.data.train.steps_per_epoch)

    def _make_optimizers(self) -> None:
        self.objectives = self.system.objectives()
        self.optimizers = self.job.make_optimizers(self.system, self.objectives)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
        self.losses: list[Callable[..., tuple[Tensor, dict[str, Tensor]]]] = [
            self._wrap(objective) for objective in self.objectives
        ]

    def _wrap(self, objective: Objective) -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
        """The objective's loss; with several processes and one objective DDP averages gradients as they come."""
        if self.world.size == 1 or len(self.objectives) > 1:
            return lambda batch: self.system.training_loss(batch, objective)
        return nn.parallel.DistributedDataParallel(_Loss(self.system, objective))

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.world.device.type, _DTYPES[self.precision])

    def _step(self, batch: Batch, total: int, logging: bool) -> int:
        """One optimizer step. Returns the signal that ends the training, or 0: the same answer on all processes."""
        seed, step, device, rank = self.job.seed, self.state.step, self.world.device, self.world.rank
        factor = self.job.schedule.factor(step, total)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
        micros, told = self._split(batch), 0
        if self.hooks["on_batch"]:
            for number, micro in enumerate(micros):
                for regularizer in self.hooks["on_batch"]:
                    reseed(seed, f"batch/{type(regularizer).__name__}", step, number, rank, device=device)
                    micro = regularizer.on_batch(micro, self.system)
                micros[number] = micro
        for objective, optimizer, loss_of in zip(self.objectives, self.optimizers, self.losses, strict=True):
            if (step + 1) % objective.every:
                continue
            optimizer.zero_grad(set_to_none=True)
            losses: list[Tensor] = []
            for number, micro in enumerate(micros):
                reseed(seed, objective.name, step, number, rank, device=device)
                losses.append(self._backward(loss_of, objective, micro, last=number + 1 == len(micros)))
            loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
            if self.world.size > 1:
                told = self._share(loss) or told
                if len(self.objectives) > 1:
                    self.world.average_gradients(objective.params)
            name = "train/loss" if len(self.objectives) == 1 else f"train/{objective.name}/loss"
            self._note(name, loss)
            self._update(objective, optimizer, loss, batch, logging)
        if self.average:
            self.average.update(step)
        for regularizer in self.hooks["after_step"]:
            regularizer.after_step(self.system)
        self.system.after_step(step)
        return told if self.world.size > 1 else self.signals.received

    def _split(self, batch: Batch) -> list[Batch]:
        if self.to_channels_last and "image" in batch:
            batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
        if self.accumulate == 1:
            return [batch]
        chunks = {name: value.chunk(self.accumulate) for name, value in batch.items()}
        return [dict(zip(chunks, values, strict=True)) for values in zip(*chunks.values(), strict=True)]

    def _backward(self, loss_of: Any, objective: Objective, micro: Batch, last: bool) -> Tensor:
        with ExitStack() as around:
            for regularizer in self.hooks["around_loss"]:
                around.enter_context(regularizer.around_loss(self.system))
            if not last and isinstance(loss_of, nn.parallel.DistributedDataParallel):
                around.enter_context(loss_of.no_sync())
            with self._autocast():
                loss, logs = loss_of(micro)
                for regularizer in self.hooks["penalty"]:
                    loss = loss + regularizer.penalty(self.system)
            if self.accumulate > 1:
                loss = loss / self.accumulate
            scaled = self.scaler.scale(loss) if self.scaler else loss
            scaled.backward(inputs=objective.params if len(self.objectives) > 1 else None)
        for name, value in logs.items():
            self._note(f"train/{name}", value.detach())
        return loss.detach()

    def _share(self, loss: Tensor) -> int:
        """Averages the loss over the processes, so that all take the same branch, and tells them of a signal that any
        of them received (its own number where it did, else SIGTERM)."""
        mine = self.signals.received
        shared = self.world.sum_(torch.stack([loss / self.world.size, loss.new_tensor(float(mine > 0))]))
        loss.copy_(shared[0])
        return (mine or signal.SIGTERM) if shared[1].item() else 0

    def _note(self, name: str, value: Tensor) -> None:
        self.state.pending.setdefault(name, []).append(value)

    def _update(
        self, objective: Objective, optimizer: torch.optim.Optimizer, loss: Tensor, batch: Batch, logging: bool
    ) -> None:
        if self.scaler:
            self.scaler.unscale_(optimizer)
        for regularizer in self.hooks["on_gradients"]:
            regularizer.on_gradients(objective.params)
        norm = None
        if self.clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(objective.params, self.clip_norm)
        elif logging:
            norm = nn.utils.get_total_norm([p.grad for p in objective.params if p.grad is not None])
        if logging and norm is not None:
            self._note("train/grad_norm", norm)
        if loss.device.type == "cpu":
            # Reading a CPU scalar waits for nothing, so the step that would do harm is not taken.
            self._check_finite(loss.item(), None if norm is None or self.scaler else norm.item(), batch)
        else:
            # Elsewhere the flag stays on the device, gates fused updates, and is read with the next row.
            finite = torch.isfinite(loss) if norm is None else torch.isfinite(loss) & torch.isfinite(norm)
            self._note("_bad", (~finite).float())
            if getattr(optimizer, "_step_supports_amp_scaling", False) and not self.scaler:
                optimizer.found_inf = torch.stack(self.state.pending["_bad"]).max()  # type: ignore[attr-defined]
        if self.scaler:
            self.scaler.step(optimizer)
            self.scaler.update()
        else:
            optimizer.step()

    def _check_finite(self, loss: float, norm: float | None, batch: Batch) -> None:
        what = None
        if not math.isfinite(loss):
            what = f"the loss is {loss}"
        elif norm is not None and not math.isfinite(norm):
            what = f"the gradient's norm is {norm}"
        if what:
            lr = self.optimizers[0].param_groups[0]["lr"]
            indices = batch["index"].flatten()[:8].tolist()
            raise Diverged(f"{what} at step {self.state.step + 1} (lr {lr:g}, samples {indices}...)")

    def _read_pending(self) -> dict[str, float]:
        """Means of what was noted since the last row, in one transfer."""
        pending, self.state.pending = self.state.pending, {}
        values = torch.stack([torch.stack(noted).double().mean() for noted in pending.values()]).tolist()
        means = dict(zip(pending, values, strict=True))
        if means.pop("_bad", 0.0) > 0:
            raise Diverged(f"a loss or gradient is not finite in the {self.log_every} steps to {self.state.step}")
        return means

    def _agreed(self, due: Due, step: int) -> bool:
        now = due.at(step)
        return self.world.agree(now) if due.interval.seconds is not None else now

    def _validate(self) -> bool:
        """Evaluates the validation split, keeps the best weights. Returns whether a regularizer ends the training."""
        state = self.state
        with self.average.applied() if self.average else nullcontext():
            figures = evaluate(self.system, self.job.data.val, self.world, self.job.seed)
            scalars = {f"val/{name}": value for name, value in figures.items()}
            state.history.append({"step": float(state.step), **scalars})
            value = None
            if self.monitored:
                name, mode = self.monitored
                if name not in scalars:
                    raise ValueError(f"monitor {name} is not among {', '.join(scalars)}")
                value = scalars[name]
                self.job.schedule.on_validation(value, mode)
            if value is None or is_better(value, state.best_value, self.monitored[1] if self.monitored else "max"):
                state.best_value, state.best_step = value, state.step
                self.best = snapshot(self.system)
        self.job.recorder.row(state.step, state.step / self.job.data.train.steps_per_epoch, scalars)
        # Each is told, also when an earlier one already ends the training.
        ends = [regularizer.on_validation(state.history) for regularizer in self.hooks["on_validation"]]
        return any(ends)

    def _stateful(self) -> dict[str, Any]:
        named = {f"regularizer/{name}": part for name, part in self.job.regularizers.items()}
        return {"system": self.system, "dataset": self.job.data.dataset, "schedule": self.job.schedule, **named}

    def _save(self) -> None:
        if not self.world.is_main:
            return
        weights = self.system.state_dict()
        state = {
            "state": {**vars(self.state), "pending": {k: [t.cpu() for t in v] for k, v in self.state.pending.items()}},
            "parts": {owner: part.state() for owner, part in self._stateful().items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.average.state() if self.average else None,
            "scaler": self.scaler.state_dict() if self.scaler else None,
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


class _Loss(nn.Module):
    """A module whose forward is the loss, which is what DDP wraps."""

    def __init__(self, system: System, objective: Objective) -> None:
        super().__init__()
        self.system, self.objective = system, objective

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.system.training_loss(batch, self.objective)
