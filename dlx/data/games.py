"""Games: environments of gymnasium in step, with what DQN does to Atari's pictures (Mnih et al. 2015, Nature 518).

Each acts in this process, one after another; what they show goes to the agent's device. Shapes: N environments.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlx.config.errors import UserError, first_line
from dlx.config.extras import require
from dlx.config.screen import note
from dlx.tasks.environment import Environment
from dlx.tasks.spec import Episode

LIMIT = 10_000  # steps of an episode, where an environment knows none
NO_PICTURE = (256, 64)  # width and height
FPS = 20.0  # of what says nothing of it


@dataclass(frozen=True, kw_only=True)
class GymnasiumEpisode(Episode):
    """How an environment is made, and what is done to what it shows. options: as JSON. discrete: how many different
    observations there are, where they are numbers. fps: steps a second. The others are of dlx/data/gymnasium_.py."""

    id: str
    options: str = "{}"
    limit: int | None = None
    frame_skip: int = 1
    stack: int = 1
    size: int | None = None
    noops: int = 0
    life_loss: bool = False
    discrete: int = 0
    fps: float = FPS

    @property
    def step_seconds(self) -> float:
        return self.frame_skip / self.fps

    def begin(self, seed_N: Tensor) -> Games:
        return Games(self, seed_N)

    def make(self) -> Any:
        """One environment. Raises UserError that names what is wrong with its id or options."""
        require(f"dataset.id: {self.id}", "rl", "gymnasium")
        if ":" in self.id:  # gymnasium would import what stands before it
            raise UserError(f"dataset.id: {self.id}: an id that names a module is not taken; register it before")
        import gymnasium

        if self.id.startswith("ALE/"):
            require(f"dataset.id: {self.id}", "atari", "ale_py")
            import ale_py

            gymnasium.register_envs(ale_py)
        try:
            known = gymnasium.spec(self.id)
            limit = self.limit or (None if known.max_episode_steps else LIMIT)
            drawn: dict[str, Any] = {"render_mode": "rgb_array"} if _draws(known) else {}
            made = gymnasium.make(self.id, max_episode_steps=limit, **drawn, **json.loads(self.options))
        except (gymnasium.error.Error, ImportError) as error:
            raise UserError(f"dataset.id: {self.id}: {first_line(error)}") from None
        except (TypeError, ValueError) as error:
            raise UserError(f"dataset.options: {self.id} does not take {self.options} ({first_line(error)})") from None
        return made


def _draws(known: Any) -> bool:
    """Whether environments of this kind can draw themselves."""
    from gymnasium.envs.registration import load_env_creator

    entry = known.entry_point
    kind = entry if callable(entry) else load_env_creator(entry)
    return "rgb_array" in getattr(kind, "metadata", {}).get("render_modes", ())


class _Game:
    """One environment, in an episode that is a function of its seed and the actions since."""

    def __init__(self, episode: GymnasiumEpisode, seed: int) -> None:
        self.episode, self.made = episode, episode.make()
        self.first = int(self.made.action_space.start)
        self.begin(seed)

    def begin(self, seed: int) -> None:
        self.seed, self.actions, self.over, self.is_lost = seed, list[int](), False, False
        seen, _ = self.made.reset(seed=seed)
        if self.episode.noops:  # a game begins alike each time: up to so many times nothing is done
            for _ in range(int(np.random.default_rng(seed).integers(1, self.episode.noops + 1))):
                seen, _, terminated, truncated, _ = self.made.step(self.first)
                if terminated or truncated:
                    seen, _ = self.made.reset()
        self.frames = deque([self._prepared([seen])] * self.episode.stack, maxlen=self.episode.stack)

    def restart(self, seed: int) -> None:
        """A game goes on where only a life is lost."""
        if self.is_lost:
            self.over = False
        else:
            self.begin(seed)

    def step(self, action: int) -> tuple[float, bool, bool]:
        self.actions.append(action)
        total, terminated, truncated, seen, lives = 0.0, False, False, [], self._lives()
        for _ in range(self.episode.frame_skip):
            shown, reward, terminated, truncated, _ = self.made.step(self.first + action)
            seen.append(shown)
            total += float(reward)
            if terminated or truncated:
                break
        self.frames.append(self._prepared(seen[-2:]))
        self.is_lost = not (terminated or truncated) and self._lives() < lives
        terminated = bool(terminated or self.is_lost)
        self.over = terminated or bool(truncated)
        return total, terminated, bool(truncated) and not terminated

    def _lives(self) -> int:
        ale = getattr(self.made.unwrapped, "ale", None) if self.episode.life_loss else None
        return 0 if ale is None else int(ale.lives())

    def _prepared(self, seen: list[Any]) -> Any:
        """What is kept of the last frames: numbers as they are; of pictures, gray and scaled, the brighter of two,
        since old games draw some things on each second frame only."""
        if (size := self.episode.size) is not None:
            from PIL import Image as Picture

            brightest = np.maximum.reduce([np.asarray(frame) for frame in seen])
            gray = Picture.fromarray(brightest).convert("L").resize((size, size), Picture.Resampling.BOX)
            return np.asarray(gray)
        last = np.asarray(seen[-1])
        if self.episode.discrete:
            return np.eye(self.episode.discrete, dtype=np.float32)[int(last)]
        return last.astype(np.float32).ravel()

    @property
    def observation(self) -> Any:
        return np.concatenate(self.frames) if self.episode.size is None else np.stack(self.frames)

    def draw(self) -> Any:
        """Pixels, or a picture of why there are none: a package that draws is missing, and a training needs it not."""
        from gymnasium.error import DependencyNotInstalled

        if self.made.render_mode != "rgb_array":
            return _words(f"{self.episode.id} draws no pictures")
        try:
            return np.array(self.made.render(), dtype=np.uint8)
        except DependencyNotInstalled as error:
            return _words(str(error).partition(",")[0])


def _words(text: str) -> Any:
    from PIL import Image as Picture
    from PIL import ImageDraw

    picture = Picture.new("RGB", NO_PICTURE, "white")
    ImageDraw.Draw(picture).text((8, 24), text, fill="black")
    return np.array(picture)


class Games(Environment):
    """N environments of gymnasium."""

    def __init__(self, episode: GymnasiumEpisode, seed_N: Tensor) -> None:
        self.device = seed_N.device
        self.each = [_Game(episode, seed) for seed in seed_N.tolist()]
        self._show()

    def _show(self) -> None:
        self.observation = torch.from_numpy(np.stack([game.observation for game in self.each])).to(self.device)
        self.over = torch.tensor([game.over for game in self.each], device=self.device)

    def step(self, action_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        actions = action_N.tolist()  # waits for the device: a game takes numbers
        rows = [(0.0, False, False) if game.over else game.step(a) for game, a in zip(self.each, actions, strict=True)]
        self._show()
        reward, terminated, truncated = zip(*rows, strict=True)
        return (
            torch.tensor(reward, device=self.device),
            torch.tensor(terminated, device=self.device),
            torch.tensor(truncated, device=self.device),
        )

    def restart(self, seed_N: Tensor) -> None:
        if not any(game.over for game in self.each):
            return
        for game, seed in zip(self.each, seed_N.tolist(), strict=True):
            if game.over:
                game.restart(seed)
        self._show()

    def draw(self) -> Tensor:
        return torch.stack([torch.from_numpy(game.draw()) for game in self.each])

    def state(self) -> dict[str, Any]:
        """The seed and the actions of each game: what is inside one cannot be read, but it comes about again from
        these."""
        games = [{"seed": game.seed, "actions": torch.tensor(game.actions)} for game in self.each]
        return {"observation": self.observation, "games": games}

    def load_state(self, state: Mapping[str, Any]) -> None:
        for game, saved in zip(self.each, state["games"], strict=True):
            game.begin(saved["seed"])
            for action in saved["actions"].tolist():
                game.step(action)
                if game.is_lost:
                    game.restart(saved["seed"])
        self._show()
        if not torch.equal(self.observation, state["observation"]):
            note(
                "warning: what the environment shows is not what it showed when the run was saved: it draws what no "
                "seed sets, and its state cannot be read; the episodes that ran are others now"
            )
