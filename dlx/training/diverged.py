"""Losses and gradients that are not finite: the error, and the flag that keeps the first of them on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dlx.data.loader import not_finite

if TYPE_CHECKING:
    from dlx.data.loader import Loader

BAD_SAMPLES = 8  # indices that a message about a bad step names


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


class BadStep:
    """The first step whose loss or gradient is not finite, on the device, so that no step waits for it.

    step: counted from 1; 0: none. It gates fused updates.
    """

    def __init__(self, device: torch.device) -> None:
        self.step, self.index = torch.zeros(2, dtype=torch.int64, device=device).unbind()

    def flag(self, step: int, loss: Tensor, norm: Tensor | None, index: Tensor) -> None:
        """Keeps `step` and its first samples if its loss or gradient norm is the first that is not finite."""
        finite = torch.isfinite(loss) if norm is None else torch.isfinite(loss) & torch.isfinite(norm)
        is_first = ~finite & (self.step == 0)
        self.step = torch.where(is_first, step, self.step)
        samples = index.flatten()[:BAD_SAMPLES]
        samples = nn.functional.pad(samples, (0, BAD_SAMPLES - len(samples)), value=-1)  # a last batch may be smaller
        self.index = torch.where(is_first, samples, self.index)

    def error(self) -> Diverged:
        """The error of the step that was kept."""
        samples, step = [number for number in self.index.tolist() if number >= 0], int(self.step)
        return Diverged(f"a loss or gradient is not finite at step {step} (samples {samples}...)", step)
