"""Deep Q-network (Mnih et al. 2013, arXiv:1312.5602; 2015, Nature 518): Q-learning with a network, replay and a target.

Q(s, a) is what action a in state s and the best actions after it are worth. It is fitted to r + discount * max Q-(s'),
where Q- is a copy of the network that follows slowly, on transitions that are drawn from a replay memory.
Shapes: B batch, A actions, F features, C frames, H height, W width.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.tasks.control import Control
from dlx.tasks.spec import Episodes, ImageEpisodes
from dlx.tasks.system import Batch, Objective

# Channels, kernel and stride of each convolution.
CONVOLUTIONS = {"nature": ((32, 8, 4), (64, 4, 2), (64, 3, 1)), "workshop": ((16, 8, 4), (32, 4, 2))}


class QNetwork(nn.Module):
    """Observations to the values of the actions, [B, A]: convolutions for images, then dense layers.

    dueling: the last hidden layer is there twice, for V(s) and for the advantages A(s, a); Q = V + A - mean of A (Wang
    et al. 2015, arXiv:1511.06581).
    """

    def __init__(
        self, shape: Sequence[int], actions: int, hidden: Sequence[int], convolutions: str, *, dueling: bool
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if len(shape) == 3:
            channels, height, width = shape
            for outputs, kernel, stride in CONVOLUTIONS[convolutions]:
                layers += [nn.Conv2d(channels, outputs, kernel, stride), nn.ReLU()]
                channels, height, width = outputs, (height - kernel) // stride + 1, (width - kernel) // stride + 1
            if min(height, width) < 1:
                raise ValueError(f"convolutions of {convolutions} need larger images than {shape[1]}x{shape[2]}")
            shape = (channels, height, width)
        widths = [math.prod(shape), *hidden]
        layers.append(nn.Flatten())
        for inputs, outputs in pairwise(widths[:-1]):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.advantage = _head(widths[-2:], actions)
        self.value = _head(widths[-2:], 1) if dueling else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        advantage_BA = self.advantage(x)
        if self.value is None:
            return advantage_BA
        return self.value(x) + advantage_BA - advantage_BA.mean(1, keepdim=True)


def _head(widths: Sequence[int], outputs: int) -> nn.Sequential:
    hidden = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(widths[-1], outputs))


class DQN(Control):
    """hidden: widths of the dense hidden layers; none: Q is linear, a table where observations are one-hot.
    convolutions: before them, for images: nature (2015) or workshop (2013).

    discount: gamma. sync_every, tau: after so many updates the target network moves by the share tau of the way to the
    network; tau=1 copies it. double: the network chooses the action that the target network values (van Hasselt et al.
    2015, arXiv:1509.06461). dueling: values and advantages apart. loss: huber clips the error's slope at 1, as in the
    paper; mse.
    """

    def __init__(
        self,
        *,
        spec: Episodes | ImageEpisodes,
        hidden: tuple[int, ...] = (512,),
        convolutions: Literal["nature", "workshop"] = "nature",
        discount: float = 0.99,
        sync_every: int = 10_000,
        tau: float = 1.0,
        double: bool = False,
        dueling: bool = False,
        loss: Literal["huber", "mse"] = "huber",
    ) -> None:
        super().__init__()
        if hidden and min(hidden) < 1:
            raise ValueError(f"hidden must hold widths of at least 1, got {list(hidden)}")
        checks.one_of(CONVOLUTIONS, convolutions=convolutions)
        checks.between("[0, 1]", discount=discount)
        checks.at_least(1, sync_every=sync_every)
        checks.between("(0, 1]", tau=tau)
        checks.one_of(("huber", "mse"), loss=loss)
        self.spec, self.discount, self.sync_every, self.tau = spec, discount, sync_every, tau
        self.is_double, self.loss = double, F.smooth_l1_loss if loss == "huber" else F.mse_loss
        shape, actions = spec.observation.shape, len(spec.action.classes)
        self.network = QNetwork(shape, actions, hidden, convolutions, dueling=dueling)
        self.target = copy.deepcopy(self.network).requires_grad_(False)

    def forward(self, observation: Tensor) -> Tensor:
        values_BA: Tensor = self.network(observation)
        return values_BA

    @torch.no_grad()
    def aim(self, batch: Batch) -> Tensor:
        """What Q(s, a) is fitted to, [B, 1], without gradient. An episode that a time limit cut off would have gone on,
        so that only `terminated` ends it (Pardo et al. 2018, arXiv:1712.00378)."""
        after_BA = self.target(batch["next_observation"])
        if self.is_double:
            best_B1 = self.network(batch["next_observation"]).argmax(1, keepdim=True)
            after_B1 = after_BA.gather(1, best_B1)
        else:
            after_B1 = after_BA.amax(1, keepdim=True)
        aim_B1: Tensor = batch["reward"] + self.discount * (1 - batch["terminated"]) * after_B1
        return aim_B1

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        value_B1 = self.network(batch["observation"]).gather(1, batch["action"].unsqueeze(1))
        return self.loss(value_B1, self.aim(batch)), {"value": value_B1.detach().mean()}

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        if (step + 1) % self.sync_every == 0:
            torch._foreach_lerp_(list(self.target.parameters()), list(self.network.parameters()), self.tau)
