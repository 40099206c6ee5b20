"""The one training loop, in reading order: set up, `run`, one step, validation, checkpoints, the end.

Nothing in a step waits for the device: scalars stay on it in `state.pending` until a row is logged.
"""

from __future__ import annotations

import math
import signal
import time
from bisect import bisect_right
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dlx.config.errors import UserError, reason_of
from dlx.config.screen import note
from dlx.data.dataset import Dataset
from dlx.data.loader import not_finite
from dlx.random import reseed
from dlx.runs.checkpoint import assign, load_state, load_weights, save_checkpoint, snapshot
from dlx.tasks.spec import Image
from dlx.training.clock import Clock
from dlx.training.ema import EMA
from dlx.training.evaluate import evaluate, show
from dlx.training.interval import Due, Interval
from dlx.training.signals import Signals, Stopped
from dlx.training.trainer import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from dlx.data.loader import Loader
    from dlx.regularization.regularizer import Regularizer
    from dlx.tasks.system import Batch, Objective, System
    from dlx.tracking.recorder import Recorder
    from dlx.training.clock import Times
    from dlx.training.distributed import Dist
    from dlx.training.loaders import Loaders
    from dlx.training.prepare import Prepared

BAD_SAMPLES = 8  # indices that a message about a bad step names
FILM_FRAMES = 20  # validations at which a film's pictures are made, about
ShouldPrune = Callable[[list[dict[str, float]]], bool]  # of the validations so far
HOOKS = ("around_loss", "penalty", "on_gradients", "after_step", "on_validation")


class Diverged(Exception):
    """A loss or a gradient is not finite. step: where it happened, counted from 1; 0 if no step was taken."""

    def __init__(self, message: str, step: int = 0) -> None:
        super().__init__(message)
        self.step = step

    def explained(self, train: Loader) -> Diverged:
        """The same error with its cause: samples of that step that are not finite, or else what often helps."""
        bad = not_finite(train, self.step - 1) if self.step else None
        why = f"the data are not finite: {bad}" if bad else "a smaller optim.lr or trainer.clip_norm=1 often helps"
        return Diverged(f"{self}; {why}", self.step)


@dataclass
class State:
    """Where a training is. All of it goes into a checkpoint."""

    step: int = 0
    stage: int = 0
    stages: list[int] = field(default_factory=lambda: [0])  # first step of each
    stopped_of: int = 0  # total steps of a training that early stopping ended before them
    best_value: float | None = None
    best_step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)  # one row per validation of this stage
    shown_step: int = 0  # when pictures were last made
    pending: dict[str, list[Tensor]] = field(default_factory=dict)  # scalars since the last row
    seconds: float = 0.0  # of training, over all sessions


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
                saved = self._load(resume)
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
        zero = torch.zeros((), dtype=torch.int64, device=dist.device)
        self.bad_step, self.bad_index = zero.clone(), zero.clone()  # step counted from 1; 0: none
        # Filled anew at each step, without a copy from the host.
        self.counters = {"step": zero.clone(), "stage": zero.clone(), "progress": torch.zeros((), device=dist.device)}
        self._begin_stage()
        if resume is not None:
            with naming(resume):
                for optimizer, part in zip(self.optimizers, saved["optimizers"], strict=True):
                    optimizer.load_state_dict(part)
                if self.ema:
                    self.ema.load_state(saved["average"])
                if self.scaler:
                    self.scaler.load_state_dict(saved["scaler"])
        recorder.begin(self.state.step, self.total, loaders.train.steps_per_epoch, self.shown_metrics)

    # Set up.

    def _load(self, checkpoint: Path) -> dict[str, Any]:
        """Loads states, weights and position; returns the saved training state, with the optimizers' still to load."""
        saved = load_state(checkpoint)
        own = self._own_state(saved["parts"])
        for owner, part in self._stateful().items():
            if owner in own:
                part.load_state(_on_device(own[owner], self.dist.device))
        assign(self.system, load_weights(checkpoint / "last.safetensors"))
        self.best = load_weights(checkpoint / "best.safetensors") if self.evaluates else None
        self.state = State(**saved["state"])
        pending = self.state.pending.items()
        self.state.pending = {name: [value.to(self.dist.device) for value in values] for name, values in pending}
        return saved

    def _own_state(self, saved: Any) -> dict[str, Any]:
        """The states that this process saved. With another number of processes they are dealt anew, with a warning."""
        ranks = saved if isinstance(saved, list) else [saved]
        holds_any = any(own for rank in ranks for name, own in rank.items() if name != "schedule")
        if len(ranks) != self.dist.size and holds_any and self.dist.is_main:
            note(f"warning: the states of {len(ranks)} processes are dealt to {self.dist.size}")
        return ranks[self.dist.rank % len(ranks)]

    def _stateful(self) -> dict[str, Any]:
        named = {f"regularizer/{name}": part for name, part in self.regularizers.items()}
        return {"system": self.system, "dataset": self.loaders.dataset, "schedule": self.schedule, **named}

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

        def loss_of(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            return self.system.training_loss(batch, objective)

        loss = nn.parallel.DistributedDataParallel(_Loss(self.system, objective)) if self.uses_ddp else loss_of
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
        stop_signal = 0
        for objective, optimizer, loss_of in zip(self.objectives, self.optimizers, self.losses, strict=True):
            if (step + 1) % objective.every:
                continue
            optimizer.zero_grad(set_to_none=True)
            losses: list[Tensor] = []
            for number, micro in enumerate(micros):
                reseed(self.seed, objective.name, step, number, dist.rank, device=dist.device)
                # Micro-batches of a partial batch may differ in size: each counts as its share of the batch.
                share = 1.0 if len(micros) == 1 else len(micro["index"]) / len(batch["index"])
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

    def _backward(self, loss_of: Any, objective: Objective, micro: Batch, share: float, *, last: bool) -> Tensor:
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
            if share < 1:
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
            self._flag(loss, checked, batch["index"])
            if getattr(optimizer, "_step_supports_amp_scaling", False) and not self.scaler:
                optimizer.found_inf = (self.bad_step > 0).float()  # type: ignore[attr-defined]
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

    def _flag(self, loss: Tensor, norm: Tensor | None, index: Tensor) -> None:
        """Keeps the first bad step and its samples on the device, where they gate fused updates from then on."""
        finite = torch.isfinite(loss) if norm is None else torch.isfinite(loss) & torch.isfinite(norm)
        is_first = ~finite & (self.bad_step == 0)
        self.bad_step = torch.where(is_first, self.state.step + 1, self.bad_step)
        samples = index.flatten()[:BAD_SAMPLES]
        samples = nn.functional.pad(samples, (0, BAD_SAMPLES - len(samples)), value=-1)  # a last batch may be smaller
        self.bad_index = torch.where(is_first, samples, self.bad_index)

    # Rows.

    def _row_name(self, name: str, objective: Objective) -> str:
        return f"train/{objective.name}/{name}" if self.several else f"train/{name}"

    def _note(self, name: str, value: Tensor) -> None:
        self.state.pending.setdefault(name, []).append(value)

    def read_pending(self) -> dict[str, float]:
        """Means of the scalars since the last row, in one transfer. Raises Diverged if a step was flagged."""
        pending, self.state.pending = self.state.pending, {}
        means = [torch.stack(values).double().mean() for values in pending.values()]
        *values, bad_step = torch.stack([*means, self.bad_step.double()]).tolist()
        if bad_step:
            samples = [number for number in self.bad_index.tolist() if number >= 0]
            step = int(bad_step)
            raise Diverged(f"a loss or gradient is not finite at step {step} (samples {samples}...)", step)
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
            if self._shows():
                self._show()
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

    def _shows(self) -> bool:
        """True if pictures are made at this validation. (`Session` makes those of the end.)"""
        state, trainer = self.state, self.trainer
        if state.step >= self.total or not self.system.defines("showcase"):
            return False
        if trainer.pictures_every is not None:
            steps = Interval.parse(trainer.pictures_every, self.loaders.train.steps_per_epoch).steps
            return steps is not None and state.step // steps > state.shown_step // steps

        def frame(step: int) -> int:  # evenly spaced in the logarithm
            return int(FILM_FRAMES * math.log(max(step, 1)) / math.log(max(self.total, 2)))

        return self.system.film and (state.shown_step == 0 or frame(state.step) > frame(state.shown_step))

    def _show(self) -> None:
        """Writes the system's pictures, by process 0. A bug in them costs the training nothing."""
        self.state.shown_step = self.state.step
        if not self.dist.is_main:
            return
        loader = self.loaders.val if self.system.film else self.loaders.test
        try:
            media = show(self.system, loader, self.seed, self.loaders.train)
        except Exception as error:  # whatever it is
            self.recorder.lose(f"pictures at step {self.state.step} not made: {reason_of(error)}")
            return
        for name, medium in media.items():
            self.recorder.media(self.state.step, name, medium)

    # Checkpoints, and the end.

    def save(self) -> None:
        """Saves a checkpoint of the current step. All processes call it: each has states of its own."""
        parts = self.dist.all_gather([{owner: part.state() for owner, part in self._stateful().items()}])
        if not self.dist.is_main:
            return
        pending = {name: [value.cpu() for value in values] for name, values in self.state.pending.items()}
        saved = {
            "state": {**vars(self.state), "pending": pending},
            "parts": parts,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.ema.state() if self.ema else None,
            "scaler": self.scaler.state_dict() if self.scaler else None,
        }
        weights = self.system.state_dict()
        try:
            save_checkpoint(self.checkpoints, self.state.step, weights, self._best_weights(), saved)
        except OSError as error:
            # A full disk ends no training: the old checkpoint stands, and the run says what it lost.
            self.recorder.lose(f"checkpoint at step {self.state.step} not written: {error.strerror or error}")
        except ValueError as error:
            raise Diverged(f"at step {self.state.step} {error}") from None
        self.recorder.sync()

    def _best_weights(self) -> dict[str, Tensor]:
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
        assign(self.system, self._best_weights())
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
    """A module whose forward is the loss, for DDP."""

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


@contextmanager
def naming(checkpoint: Path) -> Iterator[None]:
    """Turns any error of a checkpoint that is whole, but of another run, into one line that names it."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{checkpoint}: does not fit this run ({type(error).__name__}: {reason[:200]})") from error


def _on_device(value: Any, device: torch.device) -> Any:
    """A state with its tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _on_device(item, device) for key, item in value.items()}
    return [_on_device(item, device) for item in value] if isinstance(value, list) else value
