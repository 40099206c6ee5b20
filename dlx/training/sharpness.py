"""How flat the minimum is that a training ended in: Keskar's sharpness, and slices of the loss around the weights.

Keskar et al. 2016, arXiv:1609.04836, metric 2.1 in the full space. It is not invariant under reparametrization (Dinh et
al. 2017, arXiv:1703.04933): compare networks of one shape, trained to the same loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from dlx.config.errors import UserError
from dlx.random import generator
from dlx.runs.draw import subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlx.data.loader import Loader
    from dlx.tasks.system import System


class Landscape:
    """The loss of a system on all of a loader's samples, in evaluation mode, as a function of its weights [n]."""

    def __init__(self, system: System, loader: Loader) -> None:
        self.system = system.eval()
        self.batches = list(loader.eval_batches())
        objectives = system.objectives()
        if len(objectives) != 1:
            raise UserError(f"sharpness: is of one loss over weights; {type(system).__name__} has {len(objectives)}")
        (self.objective,) = objectives
        self.params: list[Tensor] = list(self.objective.params)
        self.origin = nn.utils.parameters_to_vector(self.params).detach().clone()

    def set(self, weights: Tensor) -> None:
        with torch.no_grad():
            nn.utils.vector_to_parameters(weights, self.params)

    def loss(self) -> float:
        sizes = [len(batch["index"]) for batch in self.batches]
        with torch.no_grad():
            losses = [self.system.training_loss(dict(batch), self.objective)[0].item() for batch in self.batches]
        return sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)

    def gradient(self) -> tuple[float, Tensor]:
        """The loss and its gradient [n]."""
        total, count = 0.0, sum(len(batch["index"]) for batch in self.batches)
        gradient = torch.zeros_like(self.origin)
        for batch in self.batches:
            share = len(batch["index"]) / count
            loss, _ = self.system.training_loss(dict(batch), self.objective)
            parts = torch.autograd.grad(loss, self.params, allow_unused=True)
            full = [torch.zeros_like(p) if g is None else g for p, g in zip(self.params, parts, strict=True)]
            gradient += share * torch.cat([part.flatten() for part in full])
            total += share * loss.item()
        return total, gradient


def sharpness(landscape: Landscape, *, epsilon: float = 1e-3, iterations: int = 10, seed: int = 0) -> float:
    """100 (max f(x + y) - f(x)) / (1 + f(x)) over the box |y_i| <= epsilon (|x_i| + 1), in percent.

    The maximum is looked for by `iterations` of L-BFGS-B from a random point of the box (at a minimum the gradient is
    zero); the weights are restored.
    """

    from scipy.optimize import minimize

    def negative(y: np.ndarray) -> tuple[float, np.ndarray]:
        landscape.set(landscape.origin + torch.from_numpy(y).to(landscape.origin))
        loss, gradient = landscape.gradient()
        return -loss, -gradient.double().cpu().numpy()

    box = (epsilon * (landscape.origin.abs() + 1)).double().cpu().numpy()
    start = torch.rand(len(box), generator=generator(seed, "sharpness"), dtype=torch.float64).numpy() * 2 - 1
    try:
        landscape.set(landscape.origin)
        here = landscape.loss()
        found = minimize(
            negative, start * box, jac=True, method="L-BFGS-B", bounds=list(zip(-box, box, strict=True)),
            options={"maxiter": iterations},
        )  # fmt: skip
    finally:
        landscape.set(landscape.origin)
    return 100 * max(-float(found.fun) - here, 0.0) / (1 + here)


Slice = tuple[list[float], list[float]]
"""Each t, and the loss at x + t d, d a random direction."""


def slices(landscape: Landscape, *, count: int = 3, points: int = 21, seed: int = 0) -> list[Slice]:
    """Along random directions whose part for each filter (row of a weight) is as long as that filter, and whose part
    for a vector is zero (Li et al. 2018, arXiv:1712.09913, section 4). The weights are restored."""
    at = torch.linspace(-1, 1, points).tolist()
    found = []
    try:
        for number in range(count):
            direction = _direction(landscape, generator(seed, "slice", number))
            losses = []
            for t in at:
                landscape.set(landscape.origin + t * direction)
                losses.append(landscape.loss())
            found.append((at, losses))
    finally:
        landscape.set(landscape.origin)
    return found


def _direction(landscape: Landscape, rng: torch.Generator) -> Tensor:
    parts = []
    for parameter in landscape.params:
        if parameter.dim() < 2:
            parts.append(torch.zeros_like(parameter).flatten())
            continue
        drawn = torch.randn(parameter.shape, generator=rng).to(parameter).flatten(1)
        lengths = parameter.detach().flatten(1).norm(dim=1, keepdim=True)
        parts.append((drawn / drawn.norm(dim=1, keepdim=True) * lengths).flatten())
    return torch.cat(parts)


def draw(found: list[Slice], title: str) -> Figure:
    figure, axes = subplots(size=(6, 4))
    for number, (at, losses) in enumerate(found, start=1):
        axes.plot(at, losses, marker=".", label=f"direction {number}")
    axes.set(xlabel="distance from the weights (1: as long as each filter)", ylabel="training loss", title=title)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)  # off the data
    return figure
