"""Session: owns the run folder during a run; turns the outcome into status, summary and exit code."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dlx.config.errors import LOST, UserError, cause_of, plain, reason_of
from dlx.tracking.recorder import Recorder, RunRecorder
from dlx.training.diverged import Diverged
from dlx.training.evaluate import evaluate
from dlx.training.pictures import write_pictures
from dlx.training.progress import Progress
from dlx.training.signals import Signals, exit_code, signal_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlx.runs.folder import RunFolder
    from dlx.training.distributed import Dist
    from dlx.training.loop import Loop
    from dlx.training.prepare import Prepared


@dataclass(frozen=True)
class Result:
    """How a run ended; `code` is the exit code (0, 1, 3, 5, 130 or 143)."""

    run: Path
    status: str
    code: int
    metrics: dict[str, float] = field(default_factory=dict)
    reason: str | None = None
    commands: tuple[str, ...] = ()  # what the trained system has: predict, sample
    early: str | None = None  # what ended it before its last step, such as `early_stopping at step 40 of 120`


EARLY = "ended_early"  # the summary's key for what ended a training before its last step


class Session:
    """A context. The folder's status is `running` inside; at exit it becomes the outcome. Divergence and signals are
    outcomes and not raised; any other exception is written, then raised.

    What was trained is safe before anything else can fail: summary.json, then status.json, then the pictures, then the
    trackers. A failure of one is written into the status and stops none of the others.
    """

    def __init__(self, prepared: Prepared, folder: RunFolder, dist: Dist, quiet: bool) -> None:
        self.folder, self.dist = folder, dist
        self.recorder = Recorder()
        self.result = Result(folder.path, "failed", 1)
        self._summary: dict[str, Any] = {}
        self._commands: tuple[str, ...] = ()
        self._reason: str | None = None  # without what was lost
        self._written: tuple[Any, ...] = ()  # status and reason, as status.json has them
        if dist.is_main:
            folder.write_status("running")
            config = {**prepared.config.values, "choices": prepared.config.choices}
            self.recorder = RunRecorder(folder, prepared.trackers, Progress(quiet), config)

    def __enter__(self) -> Session:
        return self

    def ended(self, loop: Loop) -> None:
        """The training ended; if its weights are final they are evaluated on the test split."""
        self._summary = _best_metrics(loop)  # for lists of runs; no result of a run that goes on
        if loop.signal:
            self._end("interrupted", exit_code(loop.signal), f"signal {loop.signal:d}")
        elif loop.pruned:
            self._end("pruned", 0, f"at step {loop.state.step} by the search's pruner")
        else:
            self._summary |= self._test(loop)
            hooks = {"predict": "answer", "sample": "sample"}
            self._commands = tuple(command for command, hook in hooks.items() if loop.system.defines(hook))
            self._end("finished", 0)
            with Signals():
                self._write()
            if self.dist.is_main:
                with Signals(raises=True):
                    write_pictures(loop, films_in=self.folder)

    def _test(self, loop: Loop) -> dict[str, Any]:
        """Evaluates the best weights on the test split, once. A bug in it loses no training: `lacks` says that
        `dlx resume` is to evaluate again."""
        loaders = loop.loaders
        finished = {"finished": round(time.time(), 3)}
        try:
            metrics = evaluate(loop.system, loaders.test, loop.dist, loop.seed, loaders.bank)
            test = {f"test/{name}": value for name, value in metrics.items()}
            for line in loop.system.remarks(metrics) if self.dist.is_main else ():
                self.recorder.warn(line)
        except Exception as error:  # whatever it is
            self.recorder.lose(f"the test split is not evaluated: {reason_of(error)}")
            return {**finished, "lacks": ["test"]}
        if test:
            row = partial(loop.recorder.row, loop.state.step, loop.epoch, test)
            self._attempt("the row of the test split not written", row)
        return {**test, **finished}

    def abandon(self, reason: str) -> None:
        """Leaves the run to another process, which goes on with it."""
        self._end("interrupted", 1, reason)

    def _end(self, status: str, code: int, reason: str | None = None) -> None:
        self._reason = reason
        metrics, early = val_and_test(self._summary), self._summary.get(EARLY)
        self.result = Result(self.folder.path, status, code, metrics, reason, self._commands, early)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        with Signals() as signals:
            known = isinstance(error, Diverged | KeyboardInterrupt)
            if isinstance(error, Diverged):
                self._end("diverged", 3, str(error))
            elif isinstance(error, KeyboardInterrupt):  # outside the step loop, where a signal sets a flag
                self._end("interrupted", exit_code(signal_of(error)), f"signal {signal_of(error):d}")
            elif isinstance(error, Exception) and signals.received and not isinstance(error, UserError):
                # Another process, or a worker, that the same signal ended; nobody knows better.
                known = True
                self._end(
                    "interrupted", exit_code(signals.received), f"signal {signals.received:d} ({reason_of(error)})"
                )
            elif error is not None:
                assert isinstance(error, Exception)
                self._end("failed", 1, reason_of(error))
            if self.dist.is_main:
                self._write()
                status, reason = self.result.status, self.result.reason
                self.recorder.close(status, self._summary, reason, lambda: signals.received)
                self._write()
                self._attempt("run.lock not released", self.folder.lock.release)
                self._settle()
        return known

    def _write(self) -> None:
        """Writes the summary, then the status with what was lost so far; skips what is already written."""
        if not self.dist.is_main:
            return
        if self._summary and not self._written:
            self._attempt("summary.json not written", lambda: self.folder.write_summary(self._summary))
        self._settle()
        outcome = self.result.status, self.result.reason
        if outcome != self._written and self._attempt(
            "status.json not written", lambda: self.folder.write_status(*outcome)
        ):
            self._written = outcome

    def _attempt(self, failure: str, do: Callable[[], None]) -> bool:
        """Runs `do`; an error is recorded as lost. Returns True if it worked."""
        try:
            do()
        except Exception as error:
            self.recorder.lose(f"{failure}: {cause_of(error)}")
            return False
        return True

    def _settle(self) -> None:
        """Puts what was lost into the result's reason, and exit code 5 in place of 0."""
        if self.recorder.lost:
            parts = [*([self._reason] if self._reason else []), *self.recorder.lost]
            self.result = replace(self.result, code=self.result.code or LOST, reason=plain("; ".join(parts)))


def val_and_test(summary: dict[str, Any]) -> dict[str, float]:
    """The metrics of the validation and test splits."""
    return {name: value for name, value in summary.items() if name.startswith(("test/", "val/"))}


def _best_metrics(loop: Loop) -> dict[str, Any]:
    """The validation metrics of the best weights, and what the training cost."""
    state = loop.state
    found = next((row for row in reversed(state.history) if row["step"] == state.best_step), {})
    return {
        **{name: value for name, value in found.items() if name != "step"},
        "best_step": state.best_step,
        "monitor": str(loop.monitored) if loop.monitored else None,
        "steps": state.step,
        "parameters": sum(p.numel() for p in loop.system.parameters()),
        "seconds": round(state.seconds, 3),
        **({EARLY: early} if (early := _ended_early(loop)) else {}),
        **({"train/throughput": round(best, 1)} if (best := loop.recorder.best_throughput) else {}),
    }


def _ended_early(loop: Loop) -> str | None:
    """Which regularizers ended the training, and when; None for a training that came to its last step."""
    state = loop.state
    if loop.signal or not state.step < state.stopped_of:
        return None
    may_end = {name: part for name, part in loop.regularizers.items() if part.defines("on_validation")}
    asked = [name for name, part in may_end.items() if part.on_validation(state.history, loop.monitored)]
    return f"{' and '.join(asked or may_end)} at step {state.step:,} of {state.stopped_of:,}"
