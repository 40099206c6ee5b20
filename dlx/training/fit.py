"""Fit: one training under way. Where it is, its best weights, its validations and checkpoints; the loop drives it."""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from dlx.config.errors import UserError, reason_of
from dlx.config.screen import note
from dlx.random import reseed
from dlx.runs.checkpoint import assign, load_state, load_weights, save_checkpoint, snapshot
from dlx.training.average import Average
from dlx.training.evaluate import evaluate, show
from dlx.training.job import Diverged, Outcome, State
from dlx.training.signals import Signals
from dlx.training.step import Step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from dlx.training.clock import Times
    from dlx.training.job import Job
    from dlx.training.trainer import Trainer


def _on_device(value: Any, device: torch.device) -> Any:
    """A state with its tensors on a device."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _on_device(item, device) for key, item in value.items()}
    return [_on_device(item, device) for item in value] if isinstance(value, list) else value


@contextmanager
def naming(checkpoint: Path) -> Iterator[None]:
    """A checkpoint that is whole, and yet none of this run, is one line that names it: it may come from anywhere."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{checkpoint}: does not fit this run ({type(error).__name__}: {reason[:200]})") from error


def is_better(value: float, best: float | None, mode: str) -> bool:
    """Ties go to the later weights: on a small validation split they are common, and those were trained longer."""
    if best is None or math.isnan(best):
        return True
    return value <= best if mode == "min" else value >= best


class Fit:
    """Made ready to go on: from nothing, from weights, or from a checkpoint."""

    def __init__(self, trainer: Trainer, job: Job) -> None:
        self.job, self.world, self.recorder = job, job.world, job.recorder
        system = self.system = trainer.place(job.system, job.world.device)
        self.trainer, self.state = trainer, State()
        self.total = trainer.total_steps(system, job.data.train.steps_per_epoch)
        self.evaluates = system.defines("evaluate")
        self.best: dict[str, Tensor] | None = None
        self.pruned = False
        self.monitored = trainer.monitored_of(system, job.regularizers)
        saved: dict[str, Any] = {}
        if job.resume is not None:
            with naming(job.resume):
                saved = load_state(job.resume)
                own = self._own_state(saved["parts"])
                for owner, part in self._stateful().items():
                    if owner in own:
                        part.load_state(_on_device(own[owner], self.world.device))
                assign(system, load_weights(job.resume / "last.safetensors"))
                self.best = load_weights(job.resume / "best.safetensors") if self.evaluates else None
                self.state = State(**saved["state"])
                self.state.stages = system.stage_starts(self.total)
                pending = self.state.pending.items()
                self.state.pending = {name: [t.to(self.world.device) for t in noted] for name, noted in pending}
        elif job.start is not None:
            assign(system, job.start)
        self.fresh_schedule = dict(job.schedule.state())
        self.state.stages = system.stage_starts(self.total)
        step = self.step = Step(trainer, job, self.state)
        self._set_stage()
        if saved and job.resume is not None:
            with naming(job.resume):
                for optimizer, part in zip(step.optimizers, saved["optimizers"], strict=True):
                    optimizer.load_state_dict(part)
                if self.average:
                    self.average.load_state(saved["average"])
                if step.scaler:
                    step.scaler.load_state_dict(saved["scaler"])
        self.recorder.begin(self.state.step, self.total, job.data.train.steps_per_epoch, self.shown_metrics)

    def _own_state(self, saved: Any) -> dict[str, Any]:
        """What this process saved. Of another number of processes they are dealt anew, and it is said."""
        every = saved if isinstance(saved, list) else [saved]
        holds = any(own for rank in every for name, own in rank.items() if name != "schedule")
        if len(every) != self.world.size and holds and self.world.is_main:
            note(f"warning: the states of {len(every)} processes are dealt to {self.world.size}")
        return every[self.world.rank % len(every)]

    def _set_stage(self) -> None:
        """The step's objectives, optimizers and average, for the stage that it is in. The average begins with the
        weights as they are now."""
        state, trainer = self.state, self.trainer
        start = state.stages[state.stage]
        self.stage_end = self.total if self.in_last_stage else state.stages[state.stage + 1]
        self.step.begin_stage(state.stage, start, self.stage_end - start)
        self.average = Average(self.system.averaged(), trainer.ema) if trainer.ema else None

    def advance(self) -> None:
        """Begins the stage that the next step is in: optimizers, schedule, history and "best" begin anew."""
        state = self.state
        stage = bisect_right(state.stages, state.step) - 1
        state.stage, state.history, state.best_value, state.best_step = stage, [], None, 0
        self.best = None
        self.job.schedule.load_state(self.fresh_schedule)
        self._set_stage()

    @property
    def in_last_stage(self) -> bool:
        return self.state.stage + 1 == len(self.state.stages)

    @property
    def epoch(self) -> float:
        return self.state.step / self.job.data.train.steps_per_epoch

    @property
    def shown_metrics(self) -> list[str]:
        """What a screen shows of a validation: the first metrics, and the monitored one."""
        names = self.system.metric_names[:2]
        monitored = self.monitored[0].removeprefix("val/") if self.monitored else None
        return list(dict.fromkeys([*names, *([monitored] if monitored and names else [])]))

    def averaged(self) -> AbstractContextManager[None]:
        """The system has the averaged weights inside, where an average is kept."""
        return self.average.applied() if self.average else nullcontext()

    def log(self, scalars: dict[str, float], rates: dict[str, float], times: Times) -> None:
        """A row of what was noted since the last one, and of what the steps took."""
        samples = self.job.data.train.batch_size * self.world.size
        self.state.seconds += times.seconds
        timed = {**rates, "time/step_ms": times.step_ms, "time/data_wait": times.data_wait}
        self.recorder.row(
            self.state.step, self.epoch, {**scalars, **timed, "train/throughput": 1e3 * samples / times.step_ms}
        )

    def validate(self) -> bool:
        """Evaluates the validation split, and of the training split as much; returns what `judge` says."""
        data, seed = self.job.data, self.job.seed
        with self.averaged():
            ends = False
            if self.evaluates:
                figures = evaluate(self.system, data.val, self.world, seed, data.bank)
                fitted = evaluate(self.system, data.probe, self.world, seed) if data.probe is not None else None
                ends = self.judge(figures, fitted)
            else:  # the last weights are the best
                self.best, self.state.best_step = None, self.state.step
            if self.trainer.is_shown(self.system, self.state, self.total, data.train.steps_per_epoch):
                self.show()
            return ends

    def show(self) -> None:
        """Pictures of now, of process 0. A mistake in them costs the training nothing, and is said."""
        self.state.shown_step = self.state.step
        if not self.world.is_main:
            return
        loader = self.job.data.val if self.system.film else self.job.data.test
        try:
            shown = show(self.system, loader, self.job.seed, self.job.data.train)
        except Exception as error:  # whatever it is
            self.recorder.lose(f"pictures at step {self.state.step} not made: {reason_of(error)}")
            return
        for name, medium in shown.items():
            self.recorder.media(self.state.step, name, medium)

    def judge(self, figures: dict[str, float], fitted: dict[str, float] | None) -> bool:
        """Keeps the system's weights if they are the best so far. Returns whether the training ends here.

        figures: of the validation split; fitted: the same weights' on what they were fitted to.
        """
        state = self.state
        scalars = {f"val/{name}": value for name, value in figures.items()}
        if fitted is not None:  # positive is overfitting
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
        self.recorder.row(state.step, self.epoch, scalars)
        ends = False
        # Each is told, also when an earlier one ends the training.
        for regularizer in self.step.hooks["on_validation"] if self.in_last_stage else ():
            ends |= regularizer.on_validation(state.history, self.monitored)
        if self.job.watch is not None and not ends and state.step < self.total:
            self.pruned = self.job.watch(state.history)
        return ends or self.pruned

    def _best_weights(self) -> dict[str, Tensor]:
        """Those of the best validation; where nothing was evaluated the newest, averaged if they are."""
        if self.best is not None:
            return self.best
        self.state.best_step = self.state.step
        with self.averaged():
            return snapshot(self.system) if self.average else self.system.state_dict()

    def save(self) -> None:
        """Saves a checkpoint of the current step. Called by all processes: each has states of its own."""
        parts = self.world.gather([{owner: part.state() for owner, part in self._stateful().items()}])
        if not self.world.is_main:
            return
        weights, step = self.system.state_dict(), self.step
        state = {
            "state": {**vars(self.state), "pending": {k: [t.cpu() for t in v] for k, v in self.state.pending.items()}},
            "parts": parts,
            "optimizers": [optimizer.state_dict() for optimizer in step.optimizers],
            "average": self.average.state() if self.average else None,
            "scaler": step.scaler.state_dict() if step.scaler else None,
        }
        try:
            save_checkpoint(self.job.checkpoints, self.state.step, weights, self._best_weights(), state)
        except OSError as error:
            # A full disk ends no training: the old checkpoint stands, and the run says what it lost.
            self.recorder.lose(f"checkpoint at step {self.state.step} not written: {error.strerror or error}")
        except ValueError as error:
            raise Diverged(f"at step {self.state.step} {error}") from None
        self.recorder.sync()

    def end(self, received: int = 0) -> Outcome:
        """The outcome, with a last checkpoint. A training that came to its end has its best weights in the system, and
        the closed-form stage was done on them. received: the signal that cuts it off, or 0."""
        if received or self.pruned:
            self.save()
            return Outcome(self.state, self.monitored, 0 if self.pruned else received, self.pruned)
        last = snapshot(self.system)
        if self.system.defines("fit") and self.step.objectives:
            self.save()  # what was trained is safe, should the stage after it fail or be cut off
        assign(self.system, self._best_weights())
        if self.system.defines("fit"):
            with Signals(raises=self.world.size == 1):  # of several processes all would have to leave together
                self._fit()
        elif not self.step.objectives:
            self.validate()
        self.best = snapshot(self.system)
        assign(self.system, last)
        try:
            self.save()
        except Diverged:
            raise
        except Exception as error:  # such as a mistake in a `state()`: what was trained is judged all the same
            self.recorder.lose(f"checkpoint at step {self.state.step} not written: {reason_of(error)}")
        assign(self.system, self.best)
        return Outcome(self.state, self.monitored)

    def _fit(self) -> None:
        """The closed-form stage, by process 0 on all of the training split; the others get its buffers. What it made is
        the best there is, whatever was before."""
        started, data = time.perf_counter(), self.job.data
        self.system.eval()
        if self.world.is_main:
            with torch.no_grad():
                reseed(self.job.seed, "fit", device=self.world.device)
                self.system.fit(replace(data, train=data.whole or data.train))
        self.world.same_buffers(self.system)
        self.system.train()
        self.state.seconds += time.perf_counter() - started
        self.state.best_value = None
        average, self.average = self.average, None  # it is in the weights that this was fitted to
        self.validate()
        self.average = average

    def _stateful(self) -> dict[str, Any]:
        named = {f"regularizer/{name}": part for name, part in self.job.regularizers.items()}
        return {"system": self.system, "dataset": self.job.data.dataset, "schedule": self.job.schedule, **named}
