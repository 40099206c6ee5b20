"""A chain of states: the smallest problem in which a reward that comes late must be learned backwards from its end.

Right leads to the next state, and from the last one to the end with reward 1; left leads one back, with a small reward
from the first. Shapes: N environments, S states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlx.config import checks
from dlx.data.acting import Acting
from dlx.tasks.environment import Environment
from dlx.tasks.spec import Episode, Episodes, Label, Reals

CELL = 20  # pixels


class Chains(Environment):
    """N chains of `states` states; an episode begins in a state of its seed's. `observation` is one-hot, [N, S]."""

    def __init__(self, seed_N: Tensor, states: int, lure: float, limit: int) -> None:
        self.states, self.lure, self.limit = states, lure, limit
        self.place_N, self.steps_N = seed_N % states, torch.zeros_like(seed_N)
        self.over = torch.zeros_like(seed_N, dtype=torch.bool)

    @property
    def observation(self) -> Tensor:  # type: ignore[override]
        return F.one_hot(self.place_N, self.states).float()

    def step(self, action_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        runs_N, last = ~self.over, self.states - 1
        wins_N = (self.place_N == last) & (action_N == 1)
        reward_N = wins_N + self.lure * ((self.place_N == 0) & (action_N == 0))
        self.place_N = torch.where(runs_N, (self.place_N + 2 * action_N - 1).clamp(0, last), self.place_N)
        self.steps_N = self.steps_N + runs_N
        terminated_N, truncated_N = wins_N & runs_N, (self.steps_N >= self.limit) & runs_N & ~wins_N
        self.over = self.over | terminated_N | truncated_N
        return torch.where(runs_N, reward_N, 0.0), terminated_N, truncated_N

    def restart(self, seed_N: Tensor) -> None:
        self.place_N = torch.where(self.over, seed_N % self.states, self.place_N)
        self.steps_N = torch.where(self.over, 0, self.steps_N)
        self.over = torch.zeros_like(self.over)

    def draw(self) -> Tensor:
        pictures = torch.full((len(self.place_N), CELL, self.states * CELL, 3), 255, dtype=torch.uint8)
        pictures[:, :, ::CELL] = 200
        for picture, place in zip(pictures, self.place_N.tolist(), strict=True):
            picture[4:-4, place * CELL + 4 : (place + 1) * CELL - 3] = torch.tensor([29, 130, 190], dtype=torch.uint8)
        return pictures

    def state(self) -> dict[str, Any]:
        return {"place": self.place_N, "steps": self.steps_N, "over": self.over}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.place_N, self.steps_N, self.over = state["place"], state["steps"], state["over"]


@dataclass(frozen=True, kw_only=True)
class ChainEpisode(Episode):
    states: int = 10
    lure: float = 0.005
    limit: int = 100

    def begin(self, seed_N: Tensor) -> Chains:
        return Chains(seed_N, self.states, self.lure, self.limit)


class Chain(Acting):
    """states: of the chain. lure: the reward for left in the first state. limit: steps of an episode."""

    spec: Episodes

    def __init__(self, *, states: int = 10, lure: float = 0.005, limit: int = 100, **acting: Any) -> None:
        super().__init__(**acting)
        checks.at_least(2, states=states)
        checks.at_least(1, limit=limit)
        self.spec = Episodes(
            observation=Reals(size=states), action=Label(classes=("left", "right")), reward=Reals(),
            next_observation=Reals(size=states), terminated=Reals(),
            episode=ChainEpisode(states=states, lure=lure, limit=limit),
        )  # fmt: skip
