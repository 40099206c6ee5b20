"""Acting: an environment as a dataset. What is learned from is what an agent did, and acting is the loading.

How transitions come about is set here: how many environments, when they act, how the agent explores, what is kept. What
is made of them (discount, target network) is the agent's. So an agent says which action is best, `act`, and knows no
exploration, and one environment serves several agents. Shapes: N environments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.data.dataset import Dataset, TensorSource
from dlx.data.replay import FrameReplay, Replay
from dlx.tasks.spec import ImageEpisodes

if TYPE_CHECKING:
    from dlx.tasks.environment import Environment
    from dlx.tasks.system import System

SEEDS = 1 << 31  # of episodes to learn from; those of evaluations come after them
VAL, TEST = SEEDS, SEEDS + (1 << 20)


class Acting(Dataset):
    """Base of environments. A subclass has a `spec` of Episodes or ImageEpisodes, whose `episode` makes environments.

    replay: transitions that are kept. environments: that act in step. warmup: transitions of a random policy before the
    first update. update_every: transitions for one update of the agent; with more environments than that, they act at
    each so many updates that it comes out.

    epsilon_start, epsilon_end: how often an action is random, at first and in the long run; between them it falls
    exponentially, by a factor e in epsilon_steps transitions, or linearly over so many. clip_reward: what is learned
    from are rewards of -1, 0 and 1.

    episodes, val_episodes: of a test and of a validation, always the same ones. samples: transitions that are drawn in
    an epoch.
    """

    acts = True

    def __init__(
        self,
        *,
        replay: int = 50_000,
        environments: int = 1,
        warmup: int = 1000,
        update_every: int = 1,
        epsilon_start: float = 0.9,
        epsilon_end: float = 0.01,
        epsilon_steps: int = 2500,
        epsilon_schedule: Literal["exponential", "linear"] = "exponential",
        clip_reward: bool = False,
        episodes: int = 100,
        val_episodes: int = 20,
        samples: int = 128_000,
    ) -> None:
        checks.at_least(1, environments=environments, warmup=warmup, update_every=update_every)
        checks.at_least(1, epsilon_steps=epsilon_steps, episodes=episodes, val_episodes=val_episodes, samples=samples)
        checks.at_least(environments, replay=replay)
        checks.between("[0, 1]", epsilon_start=epsilon_start, epsilon_end=epsilon_end)
        checks.one_of(("exponential", "linear"), epsilon_schedule=epsilon_schedule)
        self.size, self.environments, self.warmup, self.update_every = replay, environments, warmup, update_every
        self.epsilon_start, self.epsilon_end = epsilon_start, epsilon_end
        self.epsilon_steps, self.epsilon_schedule, self.clip_reward = epsilon_steps, epsilon_schedule, clip_reward
        self.episodes, self.val_episodes, self.samples = episodes, val_episodes, samples
        self.played = 0  # transitions so far
        self.environment: Environment | None = None
        self.running_N = self.last_N = torch.zeros(environments)  # returns: of the episodes that run, of those before

    @property
    def replay(self) -> Replay:
        memory: Replay = self.sources["train"]
        return memory

    def splits(self) -> dict[str, Any]:
        counts = {"val": (VAL, self.val_episodes), "test": (TEST, self.episodes)}
        seeds = {name: TensorSource(episode=first + torch.arange(count)) for name, (first, count) in counts.items()}
        return {"train": self._memory(), **seeds}

    def _memory(self) -> Replay:
        if not isinstance(self.spec, ImageEpisodes):
            return Replay(self.size, self.samples, self.spec)
        least = self.environments * self.spec.observation.channels
        if self.size < least:
            raise UserError(f"dataset.replay: must be at least {least}, a stack of frames of each, got {self.size}")
        return FrameReplay(self.size, self.samples, self.spec)

    def fingerprint(self) -> dict[str, Any]:
        """What the environment is, which an evaluation cannot change: the agent brings the one that it learned in."""
        episode: Any = self.spec.entries["episode"]
        return {field.name: getattr(episode, field.name) for field in fields(episode)}

    @property
    def epsilon(self) -> float:
        """How often the next action is random."""
        if self.played < self.warmup:
            return 1.0
        passed = self.played / self.epsilon_steps
        left = math.exp(-passed) if self.epsilon_schedule == "exponential" else max(0.0, 1 - passed)
        return self.epsilon_end + (self.epsilon_start - self.epsilon_end) * left

    def prepare(self, step: int, system: System) -> dict[str, Tensor]:
        """Acts until there are as many transitions as this update asks for. Nothing of it waits for the device, but
        for an environment that is no tensor program."""
        if self.environment is None:
            self.environment = self._begin(system.device)
        epsilon = self.epsilon
        while self.played < self.warmup + self.update_every * step:
            self._act(self.environment, system)
        # Before its first episode is over, that of an environment so far.
        shown_N = torch.where(self.last_N.isnan(), self.running_N, self.last_N)
        return {"return": shown_N.mean(), "epsilon": torch.full((), epsilon, device=system.device)}

    def _begin(self, device: torch.device) -> Environment:
        self.running_N = torch.zeros(self.environments, device=device)
        self.last_N = torch.full_like(self.running_N, math.nan)
        return self.begin(self._seeds(device))

    def begin(self, seed_N: Tensor) -> Environment:
        """The environments to learn from, each at the start of its episode."""
        episode: Any = self.spec.entries["episode"]
        begun: Environment = episode.begin(seed_N)
        return begun

    def _seeds(self, device: torch.device) -> Tensor:
        return torch.randint(SEEDS, (self.environments,), device=device)

    @torch.no_grad()
    def _act(self, environment: Environment, agent: Any) -> None:
        """One action in each environment."""
        observation, device = environment.observation, self.running_N.device
        epsilon, count = self.epsilon, self.environments
        action_N = torch.randint(len(agent.spec.action.classes), (count,), device=device)
        if epsilon < 1:
            best_N = agent.act(agent.spec.observation.normalize(observation))
            action_N = torch.where(torch.rand(count, device=device) < epsilon, action_N, best_N)
        reward_N, terminated_N, truncated_N = environment.step(action_N)
        self.replay.add(
            observation=observation, action=action_N,
            reward=(reward_N.sign() if self.clip_reward else reward_N).unsqueeze(1),
            # The last observation of an episode, not the first of the next; only where it terminated, and not where a
            # time limit cut it off, does nothing follow.
            next_observation=environment.observation, terminated=terminated_N.float().unsqueeze(1),
        )  # fmt: skip
        self.played += count
        self.running_N = self.running_N + reward_N
        ended_N = terminated_N | truncated_N
        self.last_N = torch.where(ended_N, self.running_N, self.last_N)
        self.running_N = torch.where(ended_N, 0.0, self.running_N)
        environment.restart(self._seeds(device))

    def state(self) -> dict[str, Any]:
        if self.environment is None:
            return {}
        return {
            "replay": self.replay.state(), "environment": self.environment.state(), "played": self.played,
            "running": self.running_N, "last": self.last_N,
        }  # fmt: skip

    def load_state(self, state: Mapping[str, Any]) -> None:
        if not state:
            return
        self.replay.load_state(state["replay"])
        self.environment = self._begin(state["running"].device)
        self.environment.load_state(state["environment"])
        self.played, self.running_N, self.last_N = state["played"], state["running"], state["last"]
