"""Session: a run folder while it is written to, and how what happens in it is said: status, summary, exit code."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dlx.config import Config, build_all
from dlx.config.errors import UserError
from dlx.runs.media import Animation, grid
from dlx.tracking.recorder import Recorder, RunRecorder
from dlx.training.evaluate import evaluate, show
from dlx.training.job import Diverged
from dlx.training.progress import Progress
from dlx.training.signals import exit_code

if TYPE_CHECKING:
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


class Session:
    """A context: the folder is `running` until it is left, then what happened inside. Divergence and Ctrl-C are endings
    and not raised; any other exception is, once it is written."""

    def __init__(self, config: Config, folder: RunFolder, world: World, quiet: bool) -> None:
        self.folder, self.world = folder, world
        self.recorder = Recorder()
        self.result = Result(folder.path, "failed", 1)
        self._summary: dict[str, Any] = {}
        self._commands: tuple[str, ...] = ()
        if world.is_main:
            folder.write_status("running")
            told = {**config.values, "choices": config.choices}
            self.recorder = RunRecorder(folder, build_all(config, "tracker"), Progress(quiet), told)

    def __enter__(self) -> Session:
        return self

    def ended(self, job: Job, outcome: Outcome) -> None:
        """The training came to this outcome; its weights are judged on the test split if they are final."""
        if outcome.signal:
            self._end("interrupted", exit_code(outcome.signal), f"signal {outcome.signal}")
            self._summary = _best_figures(job, outcome)  # for who lists runs; no result of a run that goes on
        elif outcome.pruned:
            self._summary = _best_figures(job, outcome)
            self._end("pruned", 0, f"at step {outcome.state.step}: others did better by then")
        else:
            self._summary = _summarize(job, outcome)
            has = job.system.defines
            self._commands = tuple(
                command for command, hook in (("predict", "answer"), ("sample", "sample")) if has(hook)
            )
            self._end("finished", 0)

    def left(self, reason: str) -> None:
        """It ends here, and another goes on with it."""
        self._end("interrupted", 1, reason)

    def _end(self, status: str, code: int, reason: str | None = None) -> None:
        self.result = Result(self.folder.path, status, code, judged(self._summary), reason, self._commands)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        known = isinstance(error, Diverged | KeyboardInterrupt)
        if isinstance(error, Diverged):
            self._end("diverged", 3, str(error))
        elif isinstance(error, KeyboardInterrupt):  # outside the step loop, which catches signals itself
            self._end("interrupted", 130, "signal 2")
        elif error is not None:
            self._end("failed", 1, str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
        if self.world.is_main:
            self.recorder.close(self.result.status, self._summary, self.result.reason)
            if self.result.code == 0 and self.recorder.lost:
                self._end(self.result.status, 5, "; ".join(self.recorder.lost))
            if self._summary:
                self.folder.write_summary(self._summary)
            self.folder.write_status(self.result.status, self.result.reason)
            self.folder.lock.release()
        return known


def judged(summary: dict[str, Any]) -> dict[str, float]:
    """The figures of the validation and test splits."""
    return {name: value for name, value in summary.items() if name.startswith(("test/", "val/"))}


def _summarize(job: Job, outcome: Outcome) -> dict[str, Any]:
    """Judges the best weights on the test split, once, and draws what the system shows."""
    system, state, data = job.system, outcome.state, job.data
    found = evaluate(system, data.test, job.world, job.seed, data.bank)
    test = {f"test/{name}": value for name, value in found.items()}
    if test:
        job.recorder.row(state.step, state.step / data.train.steps_per_epoch, test)
    if isinstance(job.recorder, RunRecorder):
        try:
            for name, medium in show(system, data.val if system.film else data.test, job.seed).items():
                job.recorder.media(state.step, name, medium)
            if system.film:
                make_films(job.recorder)
        except Exception as error:  # a mistake in a picture must not lose the training
            job.recorder.lose(f"pictures not made: {type(error).__name__}: {error}")
    return {**_best_figures(job, outcome), **test, "finished": round(time.time(), 3)}


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
        **({"train/throughput": round(best, 1)} if (best := job.recorder.best_throughput) else {}),
    }


FRAMES_OF_STRIP = 8
LEAST_FRAMES = 3


def make_films(recorder: RunRecorder) -> None:
    """Of each picture that was made at several steps a film strip and an animation, from the run's files."""
    import numpy as np
    from PIL import Image

    found: dict[str, list[Path]] = {}
    for path in sorted(recorder.folder.media.glob("*-*.png")):
        found.setdefault(path.stem.rpartition("-")[0], []).append(path)
    for name, paths in found.items():
        frames = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
        frames = [frame for frame in frames if frame.shape == frames[-1].shape]
        if len(frames) < LEAST_FRAMES:
            continue
        step = int(paths[-1].stem.rpartition("-")[2])
        chosen = np.linspace(0, len(frames) - 1, min(len(frames), FRAMES_OF_STRIP)).round().astype(int)
        recorder.media(step, f"{name}-strip", grid(np.stack([frames[i] for i in chosen]), len(chosen), gap=24))
        recorder.media(step, f"{name}-film", Animation(np.stack(frames)))
