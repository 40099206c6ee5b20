"""Pictures of a training: when they are made, what of, and the films that come of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from dlx.config.errors import reason_of
from dlx.random import reseed
from dlx.runs.media import MAX_BYTES, Animation, files_in, grid
from dlx.training.evaluate import counters
from dlx.training.interval import Interval

if TYPE_CHECKING:
    from pathlib import Path

    from dlx.data.loader import Loader
    from dlx.runs.folder import RunFolder
    from dlx.tasks.system import Batch, System
    from dlx.tracking.recorder import Recorder
    from dlx.training.loop import Loop

SHOWN_NUMBERS = 1_000_000  # of a batch that is shown
FILM_FRAMES = 20  # validations at which a film's pictures are made, about
FRAMES_OF_STRIP = 8
LEAST_FRAMES = 3


def pictures_due(loop: Loop) -> bool:
    """True if pictures are made at this validation. (`Session` makes those of the end.)"""
    state, every = loop.state, loop.trainer.pictures_every
    if state.step >= loop.total or not loop.system.defines("showcase"):
        return False
    if every is not None:
        steps = Interval.parse(every, loop.loaders.train.steps_per_epoch).steps
        return steps is not None and state.step // steps > state.shown_step // steps

    def frame(step: int) -> int:  # evenly spaced in the logarithm
        return int(FILM_FRAMES * math.log(max(step, 1)) / math.log(max(loop.total, 2)))

    return loop.system.film and (state.shown_step == 0 or frame(state.step) > frame(state.shown_step))


def write_pictures(loop: Loop, what: str = "pictures", films_in: RunFolder | None = None) -> None:
    """Writes the system's pictures. A bug in them loses nothing but the picture.

    what: named in the message about a bug. films_in: at the end, the run's folder, where films are made too.
    """
    loader = loop.loaders.val if loop.system.film else loop.loaders.test
    try:
        for name, medium in show(loop.system, loader, loop.seed, loop.loaders.train).items():
            loop.recorder.media(loop.state.step, name, medium)
        if films_in is not None and loop.system.film:
            make_films(loop.recorder, films_in)
    except Exception as error:  # whatever it is
        loop.recorder.lose(f"{what} not made: {reason_of(error)}")


@torch.no_grad()
def show(system: System, loader: Loader, seed: int, train: Loader) -> dict[str, Any]:
    """The system's pictures of a split, always under the same random numbers; keeps its training mode.

    What it was trained on is in the batch too, as `training/<entry>`, where it is few: a fit is drawn over its points.
    """
    was_training = system.training
    system.eval()
    try:
        reseed(seed, "showcase", device=system.device)
        trained = first_batch(train) if _is_small(train) else {}
        own = {f"training/{name}": values for name, values in trained.items()}
        return system.showcase({**first_batch(loader), **own, **counters(system.device)})
    finally:
        system.train(was_training)


def first_batch(loader: Loader) -> Batch:
    """The batch for a showcase: all of a small split, the first samples of a large one."""
    return loader.first(len(loader.split) if _is_small(loader) else loader.batch_size)


def _is_small(loader: Loader) -> bool:
    return len(loader.split) * sum(math.prod(entry.shape) for entry in loader.entries.values()) <= SHOWN_NUMBERS


def make_films(recorder: Recorder, folder: RunFolder) -> None:
    """Makes a film strip and an animation of each picture that exists for several steps."""
    import numpy as np
    from PIL import Image

    found: dict[str, dict[int, Path]] = {}
    for file in files_in(folder.media):
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
