"""Environment: several environments in step, as tensors. An agent acts on all of them at once.

Shapes: N environments.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class Environment(ABC):
    """N environments, each in an episode of its own. An episode that is over stands still until it is begun anew.

    observation: what they show, raw, [N, ...] on the device; `step` and `restart` put a new tensor there. over: bool
    [N], the episodes that are over.
    """

    observation: Tensor
    over: Tensor

    @abstractmethod
    def step(self, action_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Takes an action in each: rewards, float32 [N]; where the episode terminated, and where a time limit cut it
        off, bool [N]. `observation` is then what follows, the last one of an episode too."""

    @abstractmethod
    def restart(self, seed_N: Tensor) -> None:
        """Begins a new episode where one is over. An episode is a function of its seed, int64, and the actions."""

    @abstractmethod
    def draw(self) -> Tensor:
        """A picture of each, uint8 [N, H, W, 3] on the CPU."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What a resume needs: tensors, numbers and strings."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores the output of `state`, tensors on the device."""
