"""CartPole-v1 (Barto, Sutton and Anderson 1983): a pole on a cart is kept upright by pushing left or right.

The dynamics are those of gymnasium's CartPole-v1, for many carts at once. Shapes: N environments; a state is position
(m), velocity, angle (rad, 0 upright), angular velocity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlx.data.acting import Acting
from dlx.random import uniform_rows
from dlx.tasks.environment import Environment
from dlx.tasks.spec import Episode, Episodes, Label, Reals

GRAVITY, CART, POLE, HALF_LENGTH, FORCE, SECONDS = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
TOTAL = CART + POLE
SHARE = POLE * HALF_LENGTH / TOTAL  # m l / M
FARTHEST, STEEPEST = 2.4, 12 * 2 * math.pi / 360  # of an episode that goes on
LIMIT = 500  # steps
WIDTH, HEIGHT = 150, 100  # of a picture, in pixels; twice that where it is the only one
FINER = 3  # pictures are drawn larger and scaled down, so that edges are smooth
NAMES = ("position", "velocity", "angle", "angular_velocity")


def move(state_N4: Tensor, action_N: Tensor) -> Tensor:
    """The state after one step of 0.02 s; action 0 pushes left, 1 right. An explicit Euler step: positions move by the
    velocities before it."""
    _, v_N, angle_N, turn_N = state_N4.unbind(-1)
    sin_N, cos_N = angle_N.sin(), angle_N.cos()
    # (force + m l turn^2 sin) / M, for an action of 0 or 1. Few operations: for few carts each costs its call.
    force_N = 2 * FORCE * action_N - FORCE
    push_N = torch.addcmul(force_N, turn_N * turn_N, sin_N, value=POLE * HALF_LENGTH) / TOTAL
    # (g sin - push cos) / (l (4/3 - m cos^2 / M))
    slope_N = torch.rsub(cos_N * cos_N, HALF_LENGTH * 4 / 3, alpha=SHARE)
    bend_N = torch.addcmul(GRAVITY * sin_N, push_N, cos_N, value=-1) / slope_N
    speed_up_N = torch.addcmul(push_N, bend_N, cos_N, value=-SHARE)
    return torch.add(state_N4, torch.stack([v_N, speed_up_N, turn_N, bend_N], -1), alpha=SECONDS)


def has_fallen(state_N4: Tensor) -> Tensor:
    return (state_N4[..., 0].abs() > FARTHEST) | (state_N4[..., 2].abs() > STEEPEST)


class CartPoles(Environment):
    """N carts. Each step gives 1, also the last."""

    def __init__(self, seed_N: Tensor) -> None:
        self.observation = self._start(seed_N)
        self.steps_N = torch.zeros_like(seed_N)
        self.over = torch.zeros_like(seed_N, dtype=torch.bool)

    @staticmethod
    def _start(seed_N: Tensor) -> Tensor:
        return uniform_rows("cartpole", seed_N, 4) * 0.1 - 0.05

    def step(self, action_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        runs_N = ~self.over
        self.observation = torch.where(runs_N.unsqueeze(1), move(self.observation, action_N), self.observation)
        self.steps_N = self.steps_N + runs_N
        terminated_N = has_fallen(self.observation) & runs_N
        truncated_N = (self.steps_N >= LIMIT) & runs_N & ~terminated_N
        self.over = self.over | terminated_N | truncated_N
        return runs_N.float(), terminated_N, truncated_N

    def restart(self, seed_N: Tensor) -> None:
        if self.over.device.type == "cpu" and not bool(self.over.any()):  # elsewhere to look is to wait
            return
        self.observation = torch.where(self.over.unsqueeze(1), self._start(seed_N), self.observation)
        self.steps_N = torch.where(self.over, 0, self.steps_N)
        self.over = torch.zeros_like(self.over)

    def draw(self) -> Tensor:
        scale = 2 if len(self.observation) == 1 else 1
        return torch.stack([picture(state, scale) for state in self.observation.tolist()])

    def state(self) -> dict[str, Any]:
        return {"observation": self.observation, "steps": self.steps_N, "over": self.over}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.observation, self.steps_N, self.over = state["observation"], state["steps"], state["over"]


def picture(state: list[float], size: int = 1) -> Tensor:
    """A cart with its pole on a track, uint8 [H, W, 3]; the track ends where an episode does. size: in times 150 x 100
    pixels."""
    import numpy as np
    from PIL import Image, ImageDraw

    x, _, angle, _ = state
    pixel = FINER * size
    scale = pixel * WIDTH / (2.2 * FARTHEST)
    image = Image.new("RGB", (pixel * WIDTH, pixel * HEIGHT), (250, 250, 248))
    draw = ImageDraw.Draw(image)
    ground, middle = pixel * HEIGHT * 0.8, pixel * WIDTH / 2
    left, right = (middle + side * FARTHEST * scale for side in (-1, 1))
    draw.line((left, ground, right, ground), fill=(150, 150, 150), width=pixel)
    for end in (left, right):
        draw.line((end, ground - 4 * pixel, end, ground + 4 * pixel), fill=(150, 150, 150), width=pixel)
    center, top = middle + x * scale, ground - 12 * pixel
    draw.rectangle((center - 14 * pixel, top, center + 14 * pixel, ground - 2 * pixel), fill=(45, 55, 72))
    reach = 2 * HALF_LENGTH * scale * 1.6  # longer than it is, to be seen
    tip = (center + reach * math.sin(angle), top - reach * math.cos(angle))
    color = (230, 57, 70) if abs(angle) > STEEPEST or abs(x) > FARTHEST else (233, 150, 40)
    draw.line((center, top, *tip), fill=color, width=5 * pixel)
    draw.ellipse((center - 3 * pixel, top - 3 * pixel, center + 3 * pixel, top + 3 * pixel), fill=(120, 160, 200))
    small = image.resize((size * WIDTH, size * HEIGHT), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(small))


@dataclass(frozen=True, kw_only=True)
class CartPoleEpisode(Episode):
    @property
    def step_seconds(self) -> float:
        return SECONDS

    def begin(self, seed_N: Tensor) -> CartPoles:
        return CartPoles(seed_N)


class CartPole(Acting):
    """The return of an episode is the number of its steps, at most 500; 475 on average counts as solved."""

    spec: Episodes = Episodes(
        observation=Reals(size=4, names=NAMES), action=Label(classes=("left", "right")), reward=Reals(),
        next_observation=Reals(size=4, names=NAMES), terminated=Reals(), episode=CartPoleEpisode(),
    )  # fmt: skip
