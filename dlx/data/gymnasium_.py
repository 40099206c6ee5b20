"""Environments of the package gymnasium, by id (https://gymnasium.farama.org)."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.data.acting import Acting
from dlx.data.games import FPS, GymnasiumEpisode
from dlx.tasks.environment import Environment
from dlx.tasks.spec import Entry, Episodes, Image, ImageEpisodes, Label, Reals


class Gymnasium(Acting):
    """id: of the environment, with discrete actions. options: what gymnasium.make takes beside it. limit: steps of an
    episode; None: the environment's own, else 10,000.

    For Atari's pictures: frame_skip: an action is repeated so many times. stack: frames that are an observation. size:
    height and width that they are scaled to, in gray. noops: most actions at the start that do nothing. life_loss: a
    lost life ends an episode in training.
    """

    def __init__(
        self,
        *,
        id: str = "CartPole-v1",
        options: dict[str, Any] | None = None,
        limit: int | None = None,
        frame_skip: int = 1,
        stack: int = 1,
        size: int | None = None,
        noops: int = 0,
        life_loss: bool = False,
        **acting: Any,
    ) -> None:
        super().__init__(**acting)
        checks.at_least(1, limit=limit, frame_skip=frame_skip, stack=stack, size=size)
        checks.at_least(0, noops=noops)
        self.life_loss = life_loss
        self.episode = GymnasiumEpisode(
            id=id, options=json.dumps(options or {}), limit=limit, frame_skip=frame_skip, stack=stack, size=size,
            noops=noops,
        )  # fmt: skip

    @cached_property
    def spec(self) -> Episodes | ImageEpisodes:  # type: ignore[override]
        """Raises UserError for an environment that no agent of dlx acts in."""
        episode, made = self.episode, self.episode.make()
        import gymnasium

        seen, acts = made.observation_space, made.action_space
        shape = tuple(seen.shape or ())
        if not isinstance(acts, gymnasium.spaces.Discrete):
            raise UserError(f"dataset.id: {episode.id}: its actions are {acts}, and only discrete ones are learned")
        if not isinstance(seen, gymnasium.spaces.Box | gymnasium.spaces.Discrete):
            raise UserError(
                f"dataset.id: {episode.id}: it shows {type(seen).__name__}, and only numbers are learned from"
            )
        discrete = int(seen.n) if isinstance(seen, gymnasium.spaces.Discrete) else 0
        shows_pictures = not discrete and seen.dtype == np.uint8 and len(shape) in (2, 3)
        if shows_pictures and episode.size is None:
            raise UserError(f"dataset.size: must be set, such as 84: {episode.id} shows pictures {list(shape)}")
        if not shows_pictures and episode.size is not None:
            raise UserError(f"dataset.size: must not be set, got {episode.size}: {episode.id} shows no pictures")
        fps = float(made.metadata.get("render_fps") or FPS)
        episode = replace(episode, discrete=discrete, fps=fps)
        named = getattr(made.unwrapped, "get_action_meanings", None)
        names = [name.lower() for name in named()] if named else [str(number) for number in range(int(acts.n))]
        common: dict[str, Any] = {
            "action": Label(classes=tuple(names)), "reward": Reals(), "terminated": Reals(), "episode": episode,
        }  # fmt: skip
        made.close()
        shown: Entry
        if episode.size is None:
            shown = Reals(size=(discrete or math.prod(shape)) * episode.stack)
            return Episodes(observation=shown, next_observation=shown, **common)
        shown = Image(
            channels=episode.stack, height=episode.size, width=episode.size, mean=(0.0,) * episode.stack,
            std=(1.0,) * episode.stack,
        )  # fmt: skip
        return ImageEpisodes(observation=shown, next_observation=shown, **common)

    def begin(self, seed_N: Tensor) -> Environment:
        """As an evaluation's, but that a lost life may end an episode."""
        episode: Any = self.spec.episode
        begun: Environment = replace(episode, life_loss=self.life_loss).begin(seed_N)
        return begun
