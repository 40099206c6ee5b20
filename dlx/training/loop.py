"""The one training loop, in reading order: set up, `run`, one step, validation, checkpoints, the end.

Nothing in a step waits for the device: scalars stay on it in `state.pending` until a row is logged.
"""

from __future__ import annotations

import math
import signal
import time
from bisect import bisect_right
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dlx.config.errors import UserError, reason_of
from dlx.data.dataset import Dataset
from dlx.random import reseed
from dlx.runs.checkpoint import assign, snapshot
from dlx.tasks.spec import Image
from dlx.training.clock import Clock
from dlx.training.diverged import BAD_SAMPLES, BadStep, Diverged
from dlx.training.ema import EMA
from dlx.training.evaluate import evaluate
from dlx.training.interval import Due, Interval
from dlx.training.pictures import pictures_due, write_pictures
from dlx.training.signals import Signals, Stopped
from dlx.training.state import State, load_loop, naming, save_loop
from dlx.training.trainer import DTYPES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dlx.regularization.regularizer import Regularizer
    from dlx.tasks.system import Batch, Objective, System
    from dlx.tracking.recorder import Recorder
    from dlx.training.clock import Times
    from dlx.training.distributed import Dist
    from dlx.training.loaders import Loaders
    from dlx.training.prepare import Prepared

ShouldPrune = Callable[[list[dict[str, float]]], bool]  # of the validations so far
HOOKS = ("around_loss", "penalty", "on_gradients", "after_step", "on_validation")


class Loop:
    """A training, ready to run: from its start, from given weights, or from a checkpoint.

    resume: a checkpoint to continue from, to the same bits. start: weights to begin with.
    should_prune: called with all validations of the stage after each; True ends the training (a search prunes it).

    After `run`, `signal` is the one that ended it or came with its last step, else 0; `pruned` says if it was pruned.
    """

    def __init__(
        self,
        prepared: Prepared,
        system: System,
        loaders: Loaders,
        dist: Dist,
        recorder: Recorder,
        checkpoints: Path,
        *,
        resume: Path | None = None,
        start: dict[str, Tensor] | None = None,
        should_prune: ShouldPrune | None = None,
    ) -> None:
        trainer = self.trainer = prepared.trainer
        self.prepared, self.loaders, self.dist, self.recorder = prepared, loaders, dist, recorder
        self.checkpoints, self.should_prune, self.seed = checkpoints, should_prune, prepared.config["seed"]
        self.regularizers, self.schedule = prepared.regularizers, prepared.schedule
        self.signal, self.pruned = 0, False
        self.system = trainer.to_device(system, dist.device)
        self.total = trainer.total_steps(system, loaders.train.steps_per_epoch)
        self.monitored = trainer.monitored_of(system, self.regularizers)
        self.evaluates = system.defines("evaluate")
        self.best: dict[str, Tensor] | None = None
        self.state, saved = State(), {}
        if resume is not None:
            with naming(resume):
                saved = load_loop(self, resume)
        elif start is not None:
            assign(system, start)
        self.fresh_schedule = dict(self.schedule.state())
        self.state.stages = system.stage_starts(self.total)
        parts = self.regularizers.values()
        self.hooks = {hook: [part for part in parts if part.defines(hook)] for hook in HOOKS}
        self.batch_hooks = batch_hooks(parts)
        self.images = list(system.spec.of_kind(Image)) if trainer.uses_channels_last(system) else []
        self.scaler = torch.amp.GradScaler(dist.device.type) if trainer.precision == "fp16" else None
        # Reading a scalar on the CPU waits for nothing. On a GPU it stays there and is read with the next row.
        self.sync_on_cpu = dist.device.type == "cpu"
        self.bad = BadStep(dist.device)
        zero = torch.zeros((), dtype=torch.int64, device=dist.device)
        # Filled anew at each step, without a copy from the host.
        self.counters = {"step": zero.clone(), "stage": zero.clone(), "progress": torch.zeros((), device=dist.device)}
        self._begin_stage()
        if resume is not None:
            with naming(resume):
                for optimizer, part in zip(self.optimizers, saved["optimizers"], strict=True):
                    optimizer.load_state_dict(part)
                if self.ema:
                    torch._foreach_copy_(self.ema.shadow, saved["average"])
                if self.scaler:
                    self.scaler.load_state_dict(saved["scaler"])
        recorder.begin(self.state.step, self.total, loaders.train.steps_per_epoch, self.shown_metrics)

    # Set up.

    def _begin_stage(self) -> None:
        """Makes the objectives, optimizers and EMA of the current stage. The EMA begins with the current weights."""
        state, system = self.state, self.system
        self.stage_start = state.stages[state.stage]
        self.stage_end = self.total if self.in_last_stage else state.stages[state.stage + 1]
        self.counters["stage"].fill_(state.stage)
        self.objectives = system.objectives(state.stage)
        self.several = len(self.objectives) > 1
        # DDP takes one loss over all parameters that train, without gradients inside it.
        trained = {p for p in system.parameters() if p.requires_grad}
        whole = not self.several and self.objectives and trained == set(self.objectives[0].params)
        self.uses_ddp = self.dist.size > 1 and bool(whole) and system.compiles
        self.optimizers = self.prepared.make_optimizers(system, self.objectives)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
        self.losses = [self._loss_of(objective) for objective in self.objectives]
        self.ema = EMA(system.averaged(), self.trainer.ema) if self.trainer.ema else None

    def _loss_of(self, objective: Objective) -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
        """The objective's loss as a function of a batch; under DDP it averages gradients as they come."""
        loss: nn.Module = _Loss(self.system, objective)
        if self.uses_ddp:
            loss = nn.parallel.DistributedDataParallel(loss)
        return torch.compile(loss) if self.trainer.compile else loss

    @property
    def in_last_stage(self) -> bool:
        return self.state.stage + 1 == len(self.state.stages)

    @property
    def epoch(self) -> float:
        return self.state.step / self.loaders.train.steps_per_epoch

    @property
    def lr(self) -> float:
        """The learning rate of this step (the first optimizer's)."""
        return self.optimizers[0].param_groups[0]["lr"] if self.optimizers else 0.0

    @property
    def rates(self) -> dict[str, float]:
        """The learning rates of this step: `lr`, or `lr/PLAYER` of each player."""
        if not self.several:
            return {"lr": self.lr}
        pairs = zip(self.objectives, self.optimizers, strict=True)
        return {f"lr/{objective.name}": optimizer.param_groups[0]["lr"] for objective, optimizer in pairs}

    @property
    def shown_metrics(self) -> list[str]:
        """What a screen shows of a validation: the first two metrics, and the monitored one."""
        names = self.system.metric_names[:2]
        monitored = self.monitored.name.removeprefix("val/") if self.monitored else None
        return list(dict.fromkeys([*names, *([monitored] if monitored and names else [])]))

    # The loop.

    def run(self) -> None:
        """Trains to the end, or to a signal; leaves the best weights in the system, and a checkpoint.

        Raises Diverged where a loss or gradient is not finite; the last good checkpoint is then untouched.
        """
        trainer, state, train, system, dist = self.trainer, self.state, self.loaders.train, self.system, self.dist
        validation = Due(Interval.parse(trainer.validate_every, train.steps_per_epoch))
        saving = Due(Interval.parse(trainer.checkpoint_every, train.steps_per_epoch))
        dataset = self.loaders.dataset
        acts = type(dataset).prepare is not Dataset.prepare
        has_before_step = system.defines("before_step")
        stop, received = state.stopped_of == self.total > state.step, 0
        system.train()
        with Signals() as signals:
            clock = Clock(state.step)
            while state.step < self.total and not stop and not received:
                epoch, position = divmod(state.step, train.steps_per_epoch)
                batches = train.epoch(epoch, position)
                for _ in range(min(train.steps_per_epoch - position, self.total - state.step)):
                    if state.step >= self.stage_end:
                        self._next_stage()
                    if has_before_step:
                        reseed(self.seed, "before_step", state.step, dist.rank, device=dist.device)
                        system.before_step(state.step, self.loaders)
                    if acts:
                        reseed(self.seed, "act", state.step, dist.rank, device=dist.device)
                        for name, value in (dataset.prepare(state.step, system) or {}).items():
                            self._note(f"train/{name}", torch.as_tensor(value, device=dist.device))
                    try:
                        batch = clock.next(batches)
                    except Stopped as late:  # the data do not come, and the weights are those of the last step
                        if dist.size > 1:
                            raise
                        received = late.signum
                        break
                    logging = (state.step + 1) % trainer.log_every == 0 or state.step + 1 == self.total
                    stop_signal = self.step(batch, logging, signals)
                    if self.ema:
                        self.ema.update(state.step - self.stage_start)
                    for regularizer in self.hooks["after_step"]:
                        regularizer.after_step(system, self.lr)
                    system.after_step(state.step)
                    received = stop_signal if dist.size > 1 else signals.received
                    state.step += 1
                    if logging:
                        self.log(self.read_pending(), clock.read(state.step))
                    with clock.stopped():
                        at_end = state.step == self.total or state.step in state.stages
                        if validation.due_on_all_ranks(state.step, dist) or at_end:
                            stop = self.validate()
                        if saving.due_on_all_ranks(state.step, dist) and state.step < self.total:
                            self.save()
                    if stop or received:
                        break
            state.seconds += clock.read(state.step).seconds
            if stop and not self.pruned:
                state.stopped_of = self.total
            self.finish(received if state.step < self.total and not stop else 0)
            if not self.pruned:  # a signal with the last step: what is trained is saved, `dlx resume` does the rest
                self.signal = received

    def _next_stage(self) -> None:
        """Begins the stage of the next step: optimizers, schedule, history and "best" begin anew."""
        state = self.state
        state.stage, state.history = bisect_right(state.stages, state.step) - 1, []
        state.best_value, state.best_step, self.best = None, 0, None
        self.schedule.load_state(self.fresh_schedule)
        self._begin_stage()

    # One step.

    def step(self, batch: Batch, logging: bool, signals: Signals) -> int:
        """One optimizer step of each objective that is due.

        With several processes it returns the signal that any of them received, or 0: the same answer on all.
        """
        step, dist = self.state.step, self.dist
        self.set_lr()
        batch = self.to_memory_format(batch)
        micros = self._split(batch)
        if self.batch_hooks or self.system.views:
            micros = [self.regularized(micro, number) for number, micro in enumerate(micros)]
        for micro in micros:
            micro.update(self.counters)
        shares = self._shares(batch, micros)
        stop_signal = 0
        for objective, optimizer, loss_of in zip(self.objectives, self.optimizers, self.losses, strict=True):
            if (step + 1) % objective.every:
                continue
            optimizer.zero_grad(set_to_none=True)
            losses: list[Tensor] = []
            for number, (micro, share) in enumerate(zip(micros, shares, strict=True)):
                reseed(self.seed, objective.name, step, number, dist.rank, device=dist.device)
                losses.append(self._backward(loss_of, objective, micro, share, last=number + 1 == len(micros)))
            loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
            if dist.size > 1:
                stop_signal = self._share(loss, signals.received) or stop_signal
                if not self.uses_ddp:
                    dist.average_gradients(objective.params)
            self._note(self._row_name("loss", objective), loss)
            self._update(objective, optimizer, loss, batch, logging)
        if self.scaler and any((step + 1) % objective.every == 0 for objective in self.objectives):
            self.scaler.update()
        return stop_signal

    def set_lr(self) -> None:
        """Sets this step's learning rates, and the counters that batches carry."""
        position, length = self.state.step - self.stage_start, self.stage_end - self.stage_start
        self.counters["step"].fill_(self.state.step)
        self.counters["progress"].fill_(position / max(1, length))
        factor = self.schedule.factor(position, length)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor

    def to_memory_format(self, batch: Batch) -> Batch:
        """The batch with its images in channels_last where the system is."""
        for name in self.images:
            if name in batch:
                batch[name] = batch[name].contiguous(memory_format=torch.channels_last)
        return batch

    def _split(self, batch: Batch) -> list[Batch]:
        if self.trainer.accumulate == 1:
            return [batch]
        chunks = {name: value.chunk(self.trainer.accumulate) for name, value in batch.items()}
        return [dict(zip(chunks, values, strict=True)) for values in zip(*chunks.values(), strict=True)]

    def _shares(self, batch: Batch, micros: list[Batch]) -> list[float | Tensor]:
        """What the loss of each micro-batch is multiplied by, so that their sum, averaged over the processes, is the
        mean over the whole batch."""
        if len(micros) == 1 and self.dist.size == 1:
            return [1.0]
        counts = [self.system.counted(micro) for micro in micros]
        if counts[0] is None:  # the samples; the micro-batches of a partial batch may differ in size
            return [len(micro["index"]) / len(batch["index"]) for micro in micros]
        count = torch.stack([count for count in counts if count is not None]).float()
        total = self.dist.all_reduce(count.sum()).clamp_min(1)
        return list(count * self.dist.size / total)

    def regularized(self, micro: Batch, number: int = 0) -> Batch:
        """Micro-batch `number` after the system's views and the regularizers' `on_batch`."""
        at, device = (self.state.step, number, self.dist.rank), self.dist.device
        if self.system.views:
            augmentation: Any = self.system.augmentation
            drawn: Batch = {}
            for view in self.system.views:
                reseed(self.seed, f"view/{view}", *at, device=device)
                drawn[view] = augmentation.on_batch(micro, self.system)[self.system.views[0]]
            micro = {**micro, **drawn}
        for regularizers in self.batch_hooks:
            regularizer = regularizers[0]
            if len(regularizers) > 1:
                reseed(self.seed, "batch/choice", *at)
                regularizer = regularizers[int(torch.randint(len(regularizers), ()))]
            reseed(self.seed, f"batch/{type(regularizer).__name__}", *at, device=device)
            micro = regularizer.on_batch(micro, self.system)
        return micro

    def _backward(
        self, loss_of: Any, objective: Objective, micro: Batch, share: float | Tensor, *, last: bool
    ) -> Tensor:
        """Forward and backward of one micro-batch; returns its share of the loss, detached."""
        precision = self.trainer.precision
        with ExitStack() as around:
            for regularizer in self.hooks["around_loss"]:
                around.enter_context(regularizer.around_loss(self.system))
            if not last and isinstance(loss_of, nn.parallel.DistributedDataParallel):
                around.enter_context(loss_of.no_sync())
            autocast: AbstractContextManager[Any] = nullcontext()
            if precision != "fp32":
                autocast = torch.autocast(self.dist.device.type, DTYPES[precision])
            with autocast:
                loss, logs = loss_of(micro)
                for regularizer in self.hooks["penalty"]:
                    loss = loss + regularizer.penalty(self.system)
            if isinstance(share, Tensor) or share < 1:
                loss = loss * share
            scaled = self.scaler.scale(loss) if self.scaler else loss
            scaled.backward(inputs=objective.params if self.several else None)
        for name, value in logs.items():
            self._note(f"train/{name}", value.detach())
        return loss.detach()

    def _share(self, loss: Tensor, mine: int) -> int:
        """Averages the loss over the processes, so that all take the same branch, and shares received signals: returns
        this process's own, SIGTERM where only another received one, or 0."""
        shared = self.dist.all_reduce(torch.stack([loss / self.dist.size, loss.new_tensor(float(mine > 0))]))
        loss.copy_(shared[0])
        return (mine or signal.SIGTERM) if shared[1].item() else 0

    def _update(
        self, objective: Objective, optimizer: torch.optim.Optimizer, loss: Tensor, batch: Batch, logging: bool
    ) -> None:
        """Regularizes, clips and checks the gradients, then takes the optimizer's step."""
        if self.scaler:
            self.scaler.unscale_(optimizer)
        for regularizer in self.hooks["on_gradients"]:
            regularizer.on_gradients(objective.params)
        norm = None
        clip_norm = self.prepared.grouping.clip_norms.get(objective.name, self.trainer.clip_norm)
        if clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(objective.params, clip_norm)
        elif logging:
            norm = nn.utils.get_total_norm([p.grad for p in objective.params if p.grad is not None])
        if logging and norm is not None:
            self._note(self._row_name("grad_norm", objective), norm)
        checked = None if self.scaler else norm  # the scaler itself skips steps whose gradients are infinite
        if self.sync_on_cpu:
            player = objective.name if self.several else ""
            self.check_finite(loss.item(), None if checked is None else checked.item(), batch["index"], player)
        else:
            self.bad.flag(self.state.step + 1, loss, checked, batch["index"])
            if getattr(optimizer, "_step_supports_amp_scaling", False) and not self.scaler:
                optimizer.found_inf = (self.bad.step > 0).float()  # type: ignore[attr-defined]
        if self.scaler:
            self.scaler.step(optimizer)
        else:
            optimizer.step()

    def check_finite(self, loss: float, norm: float | None, index: Tensor, player: str = "") -> None:
        """Raises Diverged before the update, so that the harmful step is not taken."""
        if math.isfinite(loss) and (norm is None or math.isfinite(norm)):
            return
        what = f"the gradient's norm is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
        samples, step = index.flatten()[:BAD_SAMPLES].tolist(), self.state.step + 1
        who = f"{player}: " if player else ""
        raise Diverged(f"{who}{what} at step {step} (lr {self.lr:g}, samples {samples}...)", step)

    # Rows.

    def _row_name(self, name: str, objective: Objective) -> str:
        return f"train/{objective.name}/{name}" if self.several else f"train/{name}"

    def _note(self, name: str, value: Tensor) -> None:
        self.state.pending.setdefault(name, []).append(value)

    def read_pending(self) -> dict[str, float]:
        """Means of the scalars since the last row, in one transfer. Raises Diverged if a step was flagged."""
        pending, self.state.pending = self.state.pending, {}
        means = [torch.stack(values).double().mean() for values in pending.values()]
        *values, bad_step = torch.stack([*means, self.bad.step.double()]).tolist()
        if bad_step:
            raise self.bad.error()
        return dict(zip(pending, values, strict=True))

    def log(self, scalars: dict[str, float], times: Times) -> None:
        """Writes a row: the scalars, the learning rates, and what the steps took."""
        samples = self.loaders.train.batch_size * self.dist.size
        self.state.seconds += times.seconds
        timed = {
            "time/step_ms": times.step_ms, "time/data_wait": times.data_wait,
            "train/throughput": 1e3 * samples / times.step_ms,
        }  # fmt: skip
        self.recorder.row(self.state.step, self.epoch, {**scalars, **self.rates, **timed})

    # Validation.

    def averaged(self) -> AbstractContextManager[None]:
        """The system has the averaged weights inside, where an EMA is kept."""
        return self.ema.applied() if self.ema else nullcontext()

    def validate(self) -> bool:
        """Evaluates the validation split, and as much of the training split. Returns True if the training ends."""
        loaders, ends = self.loaders, False
        with self.averaged():
            if self.evaluates:
                metrics, probe = evaluate(self.system, loaders.val, self.dist, self.seed, loaders.bank), None
                if loaders.probe is not None:
                    probe = evaluate(self.system, loaders.probe, self.dist, self.seed)
                ends = self.on_validation(metrics, probe)
            else:  # the last weights are the best
                self.best, self.state.best_step = None, self.state.step
            if pictures_due(self):
                state = self.state
                state.shown_step = state.step
                if self.dist.is_main:
                    write_pictures(self, f"pictures at step {state.step}")
        return ends

    def on_validation(self, metrics: dict[str, float], probe: dict[str, float] | None) -> bool:
        """Keeps the weights if they are the best so far, and writes a row. Returns True if the training ends.

        metrics: of the validation split. probe: of the same weights on training samples.
        """
        state = self.state
        scalars = {f"val/{name}": value for name, value in metrics.items()}
        if probe is not None:  # a positive gap is overfitting
            scalars |= {f"probe/{k}": probe[k] for k in self.system.gaps}
            scalars |= {f"gap/{k}": sign * (probe[k] - metrics[k]) for k, sign in self.system.gaps.items()}
        state.history.append({"step": float(state.step), **scalars})
        value = None
        if self.monitored:
            name, goal = self.monitored
            if name not in scalars:
                raise UserError(f"trainer.monitor: {name} is not among {', '.join(scalars)}")
            value = scalars[name]
            self.schedule.on_validation(value, goal)
        if value is None or is_better(value, state.best_value, self.monitored.goal if self.monitored else "max"):
            state.best_value, state.best_step = value, state.step
            self.best = snapshot(self.system)
        self.recorder.row(state.step, self.epoch, scalars)
        ends = False
        for regularizer in self.hooks["on_validation"] if self.in_last_stage else ():  # all of them, whoever ends it
            ends |= regularizer.on_validation(state.history, self.monitored)
        if self.should_prune is not None and not ends and state.step < self.total:
            self.pruned = self.should_prune(state.history)
        return ends or self.pruned

    # Checkpoints, and the end.

    def save(self) -> None:
        """Saves a checkpoint of the current step. All processes call it: each has states of its own."""
        save_loop(self)

    def best_weights(self) -> dict[str, Tensor]:
        """Those of the best validation; without an evaluation the newest, averaged if an EMA is kept."""
        if self.best is not None:
            return self.best
        self.state.best_step = self.state.step
        with self.averaged():
            return snapshot(self.system) if self.ema else self.system.state_dict()

    def finish(self, received: int = 0) -> None:
        """Saves the last checkpoint. At the training's own end the closed-form stage is done, and the best weights are
        left in the system. received: the signal that cuts the training off, or 0."""
        if received or self.pruned:
            self.save()
            self.signal = 0 if self.pruned else received
            return
        last = snapshot(self.system)
        if self.system.defines("fit") and self.objectives:
            self.save()  # so that a failure of the closed-form stage does not lose what was trained
        assign(self.system, self.best_weights())
        if self.system.defines("fit"):
            with Signals(raises=self.dist.size == 1):  # several processes would have to leave together
                self._fit()
        elif not self.objectives:
            self.validate()
        self.best = snapshot(self.system)
        assign(self.system, last)
        try:
            self.save()
        except Diverged:
            raise
        except Exception as error:  # such as a bug in a `state()`: the trained weights are evaluated all the same
            self.recorder.lose(f"checkpoint at step {self.state.step} not written: {reason_of(error)}")
        assign(self.system, self.best)

    def _fit(self) -> None:
        """The closed-form stage: process 0 fits on all of the training split, and the others get its buffers. Its
        result is the best, whatever was before."""
        started, loaders = time.perf_counter(), self.loaders
        self.system.eval()
        if self.dist.is_main:
            with torch.no_grad():
                reseed(self.seed, "fit", device=self.dist.device)
                self.system.fit(replace(loaders, train=loaders.whole or loaders.train))
        self.dist.broadcast_buffers(self.system)
        self.system.train()
        self.state.seconds += time.perf_counter() - started
        self.state.best_value = None
        ema, self.ema = self.ema, None  # the weights that it was fitted to are averaged already
        self.validate()
        self.ema = ema


class _Loss(nn.Module):
    """An objective's loss as a function of a batch, in the form that DDP takes."""

    def __init__(self, system: System, objective: Objective) -> None:
        super().__init__()
        self.system, self.objective = system, objective

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.system.training_loss(batch, self.objective)


def batch_hooks(regularizers: Iterable[Regularizer]) -> list[list[Regularizer]]:
    """The regularizers that change batches, in their order; alternatives (of one order, except 9) are in one list."""
    hooked = sorted((part for part in regularizers if part.defines("on_batch")), key=lambda part: part.order)
    grouped = groupby(enumerate(hooked), key=lambda item: (item[1].order, item[0] if item[1].order == 9 else 0))
    return [[part for _, part in group] for _, group in grouped]


def is_better(value: float, best: float | None, goal: str) -> bool:
    """Ties go to the later weights: on a small validation split they are common, and those were trained longer."""
    if best is None or math.isnan(best):
        return True
    return value <= best if goal == "min" else value >= best
