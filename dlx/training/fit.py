"""Fit: one training under way. Where it is, its best weights, its validations and checkpoints; the loop drives it."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from dlx.config.errors import UserError
from dlx.runs.checkpoint import assign, load_state, load_weights, save_checkpoint, snapshot
from dlx.training.average import Average
from dlx.training.evaluate import evaluate
from dlx.training.job import Diverged, Outcome, State
from dlx.training.step import Step

if TYPE_CHECKING:
    from torch import Tensor

    from dlx.training.clock import Times
    from dlx.training.job import Job
    from dlx.training.trainer import Trainer


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
        if trainer.compile:
            system.compile()
        self.state = State()
        self.best: dict[str, Tensor] | None = None
        self.pruned = False
        self.monitored = trainer.monitored_of(system, job.regularizers)
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
        # It begins with the weights as they are now.
        self.average = Average(system, trainer.ema) if trainer.ema else None
        step = self.step = Step(trainer, job, self.state)
        if saved:
            for optimizer, part in zip(step.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(part)
            if self.average:
                self.average.load_state(saved["average"])
            if step.scaler:
                step.scaler.load_state_dict(saved["scaler"])
        self.total = trainer.total_steps(system, job.data.train.steps_per_epoch)
        self.recorder.begin(self.state.step, self.total, job.data.train.steps_per_epoch)

    @property
    def epoch(self) -> float:
        return self.state.step / self.job.data.train.steps_per_epoch

    def averaged(self) -> AbstractContextManager[None]:
        """The system has the averaged weights inside, where an average is kept."""
        return self.average.applied() if self.average else nullcontext()

    def log(self, scalars: dict[str, float], lr: float, times: Times) -> None:
        """A row of what was noted since the last one, and of what the steps took."""
        samples = self.job.data.train.batch_size * self.world.size
        self.state.seconds += times.seconds
        timed = {"lr": lr, "time/step_ms": times.step_ms, "time/data_wait": times.data_wait}
        self.recorder.row(
            self.state.step, self.epoch, {**scalars, **timed, "train/throughput": 1e3 * samples / times.step_ms}
        )

    def validate(self) -> bool:
        """Evaluates the validation split, and of the training split as much; returns what `judge` says."""
        data, seed = self.job.data, self.job.seed
        with self.averaged():
            figures = evaluate(self.system, data.val, self.world, seed)
            fitted = evaluate(self.system, data.probe, self.world, seed) if data.probe is not None else None
            return self.judge(figures, fitted)

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
        for regularizer in self.step.hooks["on_validation"]:  # each is told, also when an earlier one ends the training
            ends |= regularizer.on_validation(state.history, self.monitored)
        if self.job.watch is not None and not ends and state.step < self.total:
            self.pruned = self.job.watch(state.history)
        return ends or self.pruned

    def save(self) -> None:
        """A checkpoint of now."""
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
            self.recorder.lose(f"checkpoint at step {self.state.step} not written: {error.strerror}")
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
        assign(self.system, self.best or last)
        started = time.perf_counter()
        self.system.fit(self.job.data)
        self.state.seconds += time.perf_counter() - started
        if not self.step.objectives:  # it is validated here, once it is fitted
            self.validate()
        self.best = snapshot(self.system)
        assign(self.system, last)
        self.save()
        assign(self.system, self.best)
        return Outcome(self.state, self.monitored)

    def _stateful(self) -> dict[str, Any]:
        named = {f"regularizer/{name}": part for name, part in self.job.regularizers.items()}
        return {"system": self.system, "dataset": self.job.data.dataset, "schedule": self.job.schedule, **named}
