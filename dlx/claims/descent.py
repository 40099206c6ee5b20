"""Optimizers on functions of a few variables, where closed forms of the path are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from dlx.config import Config, class_block, instantiate


def make_optimizer(config: Config, params: Sequence[Tensor], lr: float) -> Optimizer:
    """The optimizer of a configuration, with another learning rate."""
    block = {**class_block(config, "optimizer"), "lr": lr}
    return instantiate(block, base=Optimizer, trust=config.trust, key="optimizer", params=list(params))


def optimizer_path(
    make: Callable[[Sequence[Tensor]], Optimizer],
    gradient: Callable[[Tensor], Tensor],
    start: Sequence[float],
    steps: int,
) -> np.ndarray:
    """The points [steps + 1, n] that an optimizer visits, in float64."""
    point = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = make([point])
    visited = [point.detach().clone()]
    for _ in range(steps):
        point.grad = gradient(point.detach())
        optimizer.step()
        visited.append(point.detach().clone())
    return torch.stack(visited).numpy()


def descent_path(start: Sequence[float], curvature: Sequence[float], lr: float, steps: int) -> np.ndarray:
    """Gradient descent on 1/2 sum h x^2: x_t = (1 - lr h)^t x_0."""
    t = np.arange(steps + 1)[:, None]
    return (1 - lr * np.array(curvature)) ** t * np.array(start)


def momentum_path(
    start: Sequence[float], curvature: Sequence[float], lr: float, momentum: float, steps: int
) -> np.ndarray:
    """Descent with momentum, a = mu a + h x, x = x - lr a: powers of a 2 by 2 matrix on (x, a), by variable."""
    points = []
    for x, h in zip(start, curvature, strict=True):
        matrix = np.array([[1 - lr * h, -lr * momentum], [h, momentum]])
        points.append([(np.linalg.matrix_power(matrix, t) @ [x, 0.0])[0] for t in range(steps + 1)])
    return np.array(points).T
