"""Control: agents that act in an environment. They are evaluated by episodes in which each action is the best known.

Shapes: N environments, A actions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from dlx.runs.media import Animation, Curve
from dlx.tasks.answer import Answer, Report
from dlx.tasks.system import Batch, Statistics, System

if TYPE_CHECKING:
    from dlx.tasks.environment import Environment
    from dlx.tasks.spec import Episodes, ImageEpisodes

LOOK_EVERY = 20  # steps between two looks at whether all episodes are over: each waits for the device
FRAMES = 250  # of an animation, at most


class Control(System):
    """Base of agents with values of actions. A subclass defines `forward`, [N, A] of observations, and a discount."""

    asked: ClassVar[str] = "observation"
    spec: Episodes | ImageEpisodes
    discount: float

    @torch.no_grad()
    def act(self, observation: Tensor) -> Tensor:
        """The best known actions, int64 [N]. observation: normalized, [N, ...]."""
        best: Tensor = self(observation).argmax(1)
        return best

    # Evaluation.

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/return", "max"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("return", "value", "discounted")

    def play(self, environment: Environment, look_every: int = LOOK_EVERY) -> Iterator[tuple[Tensor, Tensor]]:
        """Acts until all episodes are over: the values of the best actions before each step, and the rewards, [N]. What
        comes after an episode's end, until that is looked at, has no reward."""
        step = 0
        while step % look_every or not bool(environment.over.all()):
            value_N, action_N = self(self.spec.observation.normalize(environment.observation)).max(1)
            reward_N, *_ = environment.step(action_N)
            yield value_N, reward_N
            step += 1

    def evaluate(self, batch: Batch) -> Statistics:
        """Greedy episodes from the batch's seeds."""
        returned_N = discounted_N = torch.zeros(len(batch["episode"]), device=self.device)
        first_N, factor = returned_N, 1.0
        for step, (value_N, reward_N) in enumerate(self.play(self.spec.episode.begin(batch["episode"]))):
            first_N = first_N if step else value_N
            returned_N = returned_N + reward_N
            discounted_N = discounted_N + factor * reward_N
            factor *= self.discount
        sums = {"return": returned_N, "value": first_N, "discounted": discounted_N}
        count = torch.ones_like(returned_N).sum()
        return {**{name: sum_N.double().sum() for name, sum_N in sums.items()}, "count": count}

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        """return: mean sum of an episode's rewards. value: mean of what the agent expects of first states, discounted.
        discounted: mean of what it gets; a value far above it is overestimated."""
        return {name: float(statistics[name] / statistics["count"]) for name in self.metric_names}

    # What a person asks for.

    @property
    def analyses(self) -> Mapping[str, Callable[..., Report]]:
        """Its samples are films, which no judge of images reads."""
        return {name: analysis for name, analysis in super().analyses.items() if name != "judge"}

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """The values of the actions, [B, A]."""
        return {"value": self(batch["observation"])}

    def answer(self, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        names, found = self.spec.action.classes, []
        for row in predicted["value"].tolist():
            best = names[max(range(len(row)), key=row.__getitem__)]
            values = dict(zip(names, row, strict=True))
            each = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            found.append(Answer(f"{best} (expected return: {each})", {"action": best, "values": values}))
        return found

    def sample(self, count: int) -> Iterator[Batch]:
        """Episodes side by side, as pictures; `reward`, the return of each, comes with the last one."""
        environment = self.spec.episode.begin(torch.randint(1 << 31, (count,), device=self.device))
        total_N = torch.zeros(count, device=self.device)
        every = self.spec.episode.steps_per_frame
        yield {"episode": environment.draw()}
        for step, (_, reward_N) in enumerate(self.play(environment), 1):
            total_N = total_N + reward_N
            if step % every == 0 and step <= every * FRAMES:
                yield {"episode": environment.draw()}
        yield {"episode": environment.draw(), "reward": total_N.unsqueeze(1)}

    def showcase(self, batch: Batch) -> dict[str, Any]:
        """The first episode of the batch as an animation; what the agent expected in it, and what came."""
        environment, every = self.spec.episode.begin(batch["episode"][:1]), self.spec.episode.steps_per_frame
        frames, values, rewards = [environment.draw()[0]], [], []
        for step, (value_N, reward_N) in enumerate(self.play(environment, look_every=1), 1):
            values.append(value_N[0])
            rewards.append(reward_N[0])
            if step % every == 0 and step <= every * FRAMES:
                frames.append(environment.draw()[0])
        rest, came = torch.zeros(()), []
        for reward in reversed(torch.stack(rewards).tolist()):
            rest = reward + self.discount * rest
            came.append(float(rest))
        steps = list(range(len(came)))
        lines = {"expected (max Q)": (steps, torch.stack(values).tolist()), "what came": (steps, came[::-1])}
        film = Animation(torch.stack(frames), self.spec.episode.frame_seconds)
        return {"episode": film, "values": Curve(lines, "step", "discounted return from here")}
