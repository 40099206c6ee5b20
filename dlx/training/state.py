"""State: where a training is; how all of a `Loop` goes into a checkpoint, and back."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlx.config.errors import UserError
from dlx.config.screen import note
from dlx.runs.checkpoint import assign, load_state, load_weights, save_checkpoint
from dlx.training.diverged import Diverged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dlx.training.loop import Loop


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


def save_loop(loop: Loop) -> None:
    """Saves a checkpoint of the current step. All processes call it: each has states of its own."""
    parts = loop.dist.all_gather([{owner: part.state() for owner, part in _stateful(loop).items()}])
    if not loop.dist.is_main:
        return
    state, weights = loop.state, loop.system.state_dict()
    best = loop.best_weights()  # before the state: it may set the best step
    saved = {
        "state": {**vars(state), "pending": _on_device(state.pending, torch.device("cpu"))},
        "parts": parts,
        "optimizers": [optimizer.state_dict() for optimizer in loop.optimizers],
        "average": loop.ema.shadow if loop.ema else None,
        "scaler": loop.scaler.state_dict() if loop.scaler else None,
    }
    try:
        save_checkpoint(loop.checkpoints, state.step, weights, best, saved)
    except OSError as error:
        # A full disk ends no training: the old checkpoint stands, and the run says what it lost.
        loop.recorder.lose(f"checkpoint at step {state.step} not written: {error.strerror or error}")
    except ValueError as error:
        raise Diverged(f"at step {state.step} {error}") from None
    loop.recorder.sync()


def load_loop(loop: Loop, checkpoint: Path) -> dict[str, Any]:
    """Loads states, weights and position; returns the saved training state, with the optimizers' still to load."""
    saved = load_state(checkpoint)
    own = _own_state(loop, saved["parts"])
    for owner, part in _stateful(loop).items():
        if owner in own:
            part.load_state(_on_device(own[owner], loop.dist.device))
    assign(loop.system, load_weights(checkpoint / "last.safetensors"))
    loop.best = load_weights(checkpoint / "best.safetensors") if loop.evaluates else None
    loop.state = State(**saved["state"])
    loop.state.pending = _on_device(loop.state.pending, loop.dist.device)
    return saved


def _own_state(loop: Loop, saved: Any) -> dict[str, Any]:
    """The states that this process saved. With another number of processes they are dealt anew, with a warning."""
    dist, ranks = loop.dist, saved if isinstance(saved, list) else [saved]
    holds_any = any(own for rank in ranks for name, own in rank.items() if name != "schedule")
    if len(ranks) != dist.size and holds_any and dist.is_main:
        note(f"warning: the states of {len(ranks)} processes are dealt to {dist.size}")
    return ranks[dist.rank % len(ranks)]


def _stateful(loop: Loop) -> dict[str, Any]:
    named = {f"regularizer/{name}": part for name, part in loop.regularizers.items()}
    return {"system": loop.system, "dataset": loop.loaders.dataset, "schedule": loop.schedule, **named}


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
