"""Q-learning on a walk of nine places: the environment is a dataset, and acting is its loading."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.data.dataset import Dataset, TensorSource
from dlx.random import uniform_rows
from dlx.tasks.spec import Episode, Episodes, Label, Reals
from dlx.tasks.system import Batch, Objective, Statistics, System

PLACES, GOAL, LIMIT = 9, 8, 20


def observe(place: Tensor) -> Tensor:
    return F.one_hot(place, PLACES).float()


def move(place: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The next place, the reward and whether the goal is reached."""
    after = (place + 2 * action - 1).clamp(0, GOAL)
    return after, (after == GOAL).float(), (after == GOAL).float()


class Memory:
    """What was seen last. What a position gives is drawn anew in each epoch."""

    def __init__(self, size: int, samples: int) -> None:
        self.samples, self.filled, self.place = samples, 0, 0
        self.tensors = {
            "observation": torch.zeros(size, PLACES), "action": torch.zeros(size, dtype=torch.int64),
            "reward": torch.zeros(size, 1), "next_observation": torch.zeros(size, PLACES),
            "terminated": torch.zeros(size, 1),
        }  # fmt: skip

    def __len__(self) -> int:
        return self.samples

    def add(self, **row: Tensor) -> None:
        for name, value in row.items():
            self.tensors[name][self.place] = value
        self.place = (self.place + 1) % len(self.tensors["action"])
        self.filled = max(self.filled, self.place)

    def take(self, index: Tensor, draw: int = 0) -> Batch:
        share = uniform_rows("memory", index + draw % (1 << 40))
        row = (share * max(1, self.filled)).long()
        return {name: tensor[row] for name, tensor in self.tensors.items()}


class WalkEpisode(Episode):
    """A film of it takes half a second for each step."""

    @property
    def frame_seconds(self) -> float:
        return 0.5


class Walk(Dataset):
    """samples: transitions that are an epoch."""

    acts = True
    spec: Episodes = Episodes(
        observation=Reals(size=PLACES), action=Label(classes=("left", "right")), reward=Reals(),
        next_observation=Reals(size=PLACES), terminated=Reals(), episode=WalkEpisode(),
    )  # fmt: skip

    def __init__(self, *, samples: int = 64) -> None:
        self.memory = Memory(100, samples)
        self.at, self.moves = torch.tensor(0), 0

    def splits(self) -> dict[str, Any]:
        seeds = {name: TensorSource(episode=torch.arange(8) + start) for name, start in (("val", 0), ("test", 100))}
        return {"train": self.memory, **seeds}

    def prepare(self, step: int, system: System) -> dict[str, Tensor]:
        for _ in range(4):
            action = system.act(self.at, torch.rand(()))  # type: ignore[operator]
            after, reward, ended = move(self.at, action)
            self.memory.add(
                observation=observe(self.at), action=action, reward=reward, next_observation=observe(after),
                terminated=ended,
            )  # fmt: skip
            self.moves += 1
            over = bool(ended) or self.moves >= LIMIT
            self.at, self.moves = (torch.tensor(0), 0) if over else (after, self.moves)
        return {"memory": torch.tensor(float(self.memory.filled))}

    def state(self) -> dict[str, Any]:
        memory = self.memory
        return {
            "memory": memory.tensors, "filled": memory.filled, "place": memory.place, "at": self.at,
            "moves": self.moves,
        }  # fmt: skip

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.memory.tensors, self.memory.filled = dict(state["memory"]), state["filled"]
        self.memory.place, self.at, self.moves = state["place"], state["at"], state["moves"]


class QLearning(System):
    """explore: how often it moves at random. sync: steps after which the target network follows."""

    def __init__(self, *, spec: Episodes, explore: float = 0.3, discount: float = 0.9, sync: int = 5) -> None:
        super().__init__()
        self.spec, self.explore, self.discount, self.sync = spec, explore, discount, sync
        self.values = nn.Linear(spec.observation.size, len(spec.action.classes))
        self.target = copy.deepcopy(self.values).requires_grad_(False)

    def act(self, place: Tensor, coin: Tensor) -> Tensor:
        if coin < self.explore:
            return torch.randint(2, ())
        with torch.no_grad():
            return self.values(observe(place).to(self.device)).argmax(-1).cpu()

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        value = self.values(batch["observation"]).gather(1, batch["action"].unsqueeze(1))
        with torch.no_grad():
            after = self.target(batch["next_observation"]).amax(1, keepdim=True)
            aim = batch["reward"] + self.discount * (1 - batch["terminated"]) * after
        return F.smooth_l1_loss(value, aim), {}

    def after_step(self, step: int) -> None:
        if (step + 1) % self.sync == 0:
            self.target.load_state_dict(self.values.state_dict())

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/return", "max"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("return",)

    def evaluate(self, batch: Batch) -> Statistics:
        """Greedy; an episode's seed says where it begins."""
        place = batch["episode"] % GOAL
        total, alive = torch.zeros(len(place)), torch.ones(len(place))
        for number in range(LIMIT):
            place, reward, ended = move(place, self.values(observe(place)).argmax(-1))
            total += alive * self.discount**number * reward
            alive *= 1 - ended
        return {"return": total.double().sum(), "count": torch.tensor(float(len(total)))}

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        return {"return": float(statistics["return"] / statistics["count"])}

    def sample(self, count: int) -> Iterator[Batch]:
        """A film of greedy episodes: pixels of where each is."""
        place = torch.zeros(count, dtype=torch.int64)
        for _ in range(LIMIT):
            yield {"episode": (255 * observe(place)).byte().view(count, 1, PLACES, 1).repeat(1, 1, 1, 3)}
            place, *_ = move(place, self.values(observe(place)).argmax(-1))
