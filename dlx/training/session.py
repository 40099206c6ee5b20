"""Session: a run folder while it is written to, and how what happens in it is said: status, summary, exit code."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dlx.config import Config, build_all
from dlx.config.errors import UserError, plain, reason_of
from dlx.runs.media import MAX_BYTES, Animation, files_in, grid
from dlx.tracking.recorder import Recorder, RunRecorder
from dlx.training.evaluate import evaluate, show
from dlx.training.job import Diverged
from dlx.training.progress import Progress
from dlx.training.signals import Signals, exit_code, signal_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlx.runs.folder import RunFolder
    from dlx.training.job import Job, Outcome
    from dlx.training.world import World


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


TEST = "test"
EARLY = "ended_early"  # the summary's key for what ended a training before its last step
LOST = 5  # exit code: done, but something was lost on the way


class Session:
    """A context: the folder is `running` until it is left, then what happened inside. Divergence and signals are
    endings and not raised; any other exception is, once it is written.

    What was trained is safe before anything else can fail: summary.json, then status.json, then the pictures, then the
    trackers. What fails of these is said in the status, and stops none of the others.
    """

    def __init__(self, config: Config, folder: RunFolder, world: World, quiet: bool) -> None:
        self.folder, self.world = folder, world
        self.recorder = Recorder()
        self.result = Result(folder.path, "failed", 1)
        self._summary: dict[str, Any] = {}
        self._commands: tuple[str, ...] = ()
        self._reason: str | None = None  # without what was lost
        self._written: tuple[Any, ...] = ()  # status and reason, as status.json has them
        if world.is_main:
            folder.write_status("running")
            told = {**config.values, "choices": config.choices}
            self.recorder = RunRecorder(folder, build_all(config, "tracker"), Progress(quiet), told)

    def __enter__(self) -> Session:
        return self

    def ended(self, job: Job, outcome: Outcome) -> None:
        """The training came to this outcome; its weights are judged on the test split if they are final."""
        self._summary = _best_figures(job, outcome)  # for who lists runs; no result of a run that goes on
        if outcome.signal:
            self._end("interrupted", exit_code(outcome.signal), f"signal {outcome.signal:d}")
        elif outcome.pruned:
            self._end("pruned", 0, f"at step {outcome.state.step}: others did better by then")
        else:
            self._summary |= self._test(job, outcome)
            has = job.system.defines
            self._commands = tuple(
                command for command, hook in (("predict", "answer"), ("sample", "sample")) if has(hook)
            )
            self._end("finished", 0)
            with Signals():
                self._write()
            if isinstance(job.recorder, RunRecorder):
                self._show(job, outcome, job.recorder)

    def _test(self, job: Job, outcome: Outcome) -> dict[str, Any]:
        """Judges the best weights on the test split, once. A mistake in it costs no training: `lacks` says that the
        evaluation is to be done again by `dlx resume`."""
        state, data = outcome.state, job.data
        finished = {"finished": round(time.time(), 3)}
        try:
            found = evaluate(job.system, data.test, job.world, job.seed, data.bank)
            test = {f"test/{name}": value for name, value in found.items()}
        except Exception as error:  # whatever it is
            self.recorder.lose(f"the test split is not evaluated: {_text(error)}")
            return {**finished, "lacks": [TEST]}
        if test:
            epoch = state.step / data.train.steps_per_epoch
            self._attempt("the row of the test split not written", lambda: job.recorder.row(state.step, epoch, test))
        return {**test, **finished}

    def _show(self, job: Job, outcome: Outcome, recorder: RunRecorder) -> None:
        """Draws what the system shows. A mistake in a picture costs nothing but the picture."""
        system, data = job.system, job.data
        with Signals(raises=True):
            try:
                held_out = data.val if system.film else data.test
                for name, medium in show(system, held_out, job.seed, data.train).items():
                    recorder.media(outcome.state.step, name, medium)
                if system.film:
                    make_films(recorder)
            except Exception as error:
                recorder.lose(f"pictures not made: {_text(error)}")

    def left(self, reason: str) -> None:
        """It ends here, and another goes on with it."""
        self._end("interrupted", 1, reason)

    def _end(self, status: str, code: int, reason: str | None = None) -> None:
        self._reason = reason
        self.result = Result(
            self.folder.path, status, code, judged(self._summary), reason, self._commands, self._summary.get(EARLY)
        )

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
                self._end("interrupted", exit_code(signals.received), f"signal {signals.received:d} ({_text(error)})")
            elif error is not None:
                assert isinstance(error, Exception)
                self._end("failed", 1, _text(error))
            if self.world.is_main:
                self._write()
                status, reason = self.result.status, self.result.reason
                self.recorder.close(status, self._summary, reason, lambda: signals.received)
                self._write()
                self._attempt("run.lock not released", self.folder.lock.release)
                self._settle()
        return known

    def _write(self) -> None:
        """The summary, then the status, unless it is written already. What was lost so far is said in it."""
        if not self.world.is_main:
            return
        if self._summary and not self._written:
            self._attempt("summary.json not written", lambda: self.folder.write_summary(self._summary))
        self._settle()
        told = self.result.status, self.result.reason
        if told != self._written and self._attempt("status.json not written", lambda: self.folder.write_status(*told)):
            self._written = told

    def _attempt(self, failure: str, do: Callable[[], None]) -> bool:
        """Whatever goes wrong with it is said, and does not stop what comes after it."""
        try:
            do()
        except Exception as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else _text(error)
            self.recorder.lose(f"{failure}: {reason}")
            return False
        return True

    def _settle(self) -> None:
        """What was lost is in the result; of a run that did what it was to do the code says so too."""
        if self.recorder.lost:
            parts = [*([self._reason] if self._reason else []), *self.recorder.lost]
            self.result = replace(self.result, code=self.result.code or LOST, reason=plain("; ".join(parts)))


def _text(error: Exception) -> str:
    return reason_of(error)


def judged(summary: dict[str, Any]) -> dict[str, float]:
    """The figures of the validation and test splits."""
    return {name: value for name, value in summary.items() if name.startswith(("test/", "val/"))}


def _best_figures(job: Job, outcome: Outcome) -> dict[str, Any]:
    """The validation figures of the best weights, and what the training cost."""
    state = outcome.state
    found = next((row for row in reversed(state.history) if row["step"] == state.best_step), {})
    return {
        **{name: value for name, value in found.items() if name != "step"},
        "best_step": state.best_step,
        "monitor": ":".join(outcome.monitored) if outcome.monitored else None,
        "steps": state.step,
        "parameters": sum(p.numel() for p in job.system.parameters()),
        "seconds": round(state.seconds, 3),
        **({EARLY: early} if (early := _ended_early(job, outcome)) else {}),
        **({"train/throughput": round(best, 1)} if (best := job.recorder.best_throughput) else {}),
    }


def _ended_early(job: Job, outcome: Outcome) -> str | None:
    """Which regularizers ended the training, and when; None of one that came to its last step."""
    state = outcome.state
    if outcome.signal or not state.step < state.stopped_of:
        return None
    may_end = {name: part for name, part in job.regularizers.items() if part.defines("on_validation")}
    asked = [name for name, part in may_end.items() if part.on_validation(state.history, outcome.monitored)]
    return f"{' and '.join(asked or may_end)} at step {state.step:,} of {state.stopped_of:,}"


FRAMES_OF_STRIP = 8
LEAST_FRAMES = 3


def make_films(recorder: RunRecorder) -> None:
    """Of each picture that was made at several steps a film strip and an animation, from the run's files."""
    import numpy as np
    from PIL import Image

    found: dict[str, dict[int, Path]] = {}
    for file in files_in(recorder.folder.media):
        if file.kind == "image" and file.step is not None and file.path.stat().st_size <= MAX_BYTES["image"]:
            found.setdefault(file.name, {})[file.step] = file.path
    for name, paths in found.items():
        step, *_ = sorted(paths, reverse=True)
        # Only as what dlx writes: the folder may come from elsewhere.
        frames = [np.asarray(Image.open(paths[at], formats=["PNG"]).convert("RGB")) for at in sorted(paths)]
        frames = [frame for frame in frames if frame.shape == frames[-1].shape]
        if len(frames) < LEAST_FRAMES:
            continue
        chosen = np.linspace(0, len(frames) - 1, min(len(frames), FRAMES_OF_STRIP)).round().astype(int)
        recorder.media(step, f"{name}-strip", grid(np.stack([frames[i] for i in chosen]), len(chosen), gap=24))
        recorder.media(step, f"{name}-film", Animation(np.stack(frames)))
