"""Points in the plane whose density is a known shape: what density models of real numbers are drawn on."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from dlx.config import checks
from dlx.data.dataset import Dataset, Source, TensorSource
from dlx.random import generator
from dlx.tasks.spec import Points, Reals


def rings(u_N: Tensor, v_N: Tensor) -> Tensor:
    """Four circles of radius 1 to 4, each with as many points as its length asks for."""
    number_N = torch.bucketize(u_N.contiguous(), torch.tensor([0.1, 0.3, 0.6]))  # shares 1, 2, 3, 4 of 10
    angle_N = 2 * math.pi * v_N
    return torch.stack([angle_N.cos(), angle_N.sin()], 1) * (number_N + 1).unsqueeze(1)


def moons(u_N: Tensor, v_N: Tensor) -> Tensor:
    """Two half circles of radius 2, the lower one shifted so that each reaches into the other."""
    angle_N = math.pi * v_N
    upper_N2 = 2 * torch.stack([angle_N.cos(), angle_N.sin()], 1)
    lower_N2 = 2 * torch.stack([1 - angle_N.cos(), 0.5 - angle_N.sin()], 1)
    return torch.where((u_N < 0.5).unsqueeze(1), upper_N2, lower_N2)


def spirals(u_N: Tensor, v_N: Tensor) -> Tensor:
    """Two arms of one and a half turns; the square root spreads the points evenly along them."""
    turn_N = 3 * math.pi * v_N.sqrt()
    arm_N2 = torch.stack([-turn_N.cos() * turn_N, turn_N.sin() * turn_N], 1) / 2
    return torch.where((u_N < 0.5).unsqueeze(1), arm_N2, -arm_N2)


def checkerboard(u_N: Tensor, v_N: Tensor) -> Tensor:
    """The eight black squares of a board of 4 x 4, each 2 wide, evenly filled."""
    x_N = 8 * u_N - 4
    row_N = 4 * v_N  # whole part: one of the two black squares of a column; the rest: the place in it
    column_N = (x_N / 2).floor()
    square_N = 2 * (row_N / 2).floor() + column_N % 2
    return torch.stack([x_N, 2 * square_N - 4 + row_N % 2], 1)


SHAPES = {"rings": rings, "moons": moons, "spirals": spirals, "checkerboard": checkerboard}
NOISE = {"rings": 0.1, "moons": 0.15, "spirals": 0.1, "checkerboard": 0.0}
SCALE = {
    "rings": 2.24,
    "moons": 1.42,
    "spirals": 2.36,
    "checkerboard": 2.31,
}  # root mean square of a coordinate, noise included


class ToyDensity(Dataset):
    """shape: rings, moons, spirals or checkerboard. noise: a standard deviation that is added to both coordinates, in
    the shape's own unit; None: what suits it. samples: to train on; a tenth of that validates and another tests.
    data_seed: draws them, whatever the run's seed.

    The points are centred and divided by the shape's size, the same number for both axes, so that circles stay round
    and nll compares between samples of any number.
    """

    spec: Points = Points(features=Reals(size=2, names=("x", "y")))

    def __init__(
        self,
        *,
        shape: Literal["rings", "moons", "spirals", "checkerboard"] = "rings",
        samples: int = 10_000,
        noise: float | None = None,
        data_seed: int = 0,
    ) -> None:
        checks.one_of(SHAPES, shape=shape)
        checks.at_least(10, samples=samples)
        checks.at_least(0, noise=noise)
        self.shape, self.samples, self.data_seed = shape, samples, data_seed
        self.noise = NOISE[shape] if noise is None else noise

    def scaled(self, point_N2: Tensor) -> Tensor:
        centre = torch.tensor([1.0, 0.5]) if self.shape == "moons" else torch.zeros(2)
        return (point_N2 - centre) / SCALE[self.shape]

    def draw(self, count: int, name: str) -> Tensor:
        """Points, float32 [count, 2]."""
        rng = generator(self.data_seed, f"toy density {name}")
        u_N, v_N = torch.rand(2, count, generator=rng)
        return self.scaled(SHAPES[self.shape](u_N, v_N) + self.noise * torch.randn(count, 2, generator=rng))

    def log_density(self, x_B2: Tensor) -> Tensor:
        """log p of points in nats, [B]: the mean of Gaussians that lie evenly over the shape; of the checkerboard
        without noise that of its squares. Raises ValueError for a line without noise, which has no density."""
        scale = SCALE[self.shape]
        if self.noise == 0:
            if self.shape != "checkerboard":
                raise ValueError(f"noise must be above 0, or {self.shape} have no density, got 0")
            cell_B2 = ((x_B2 * scale + 4) / 2).floor()
            is_black_B = (cell_B2.sum(1) % 2 == 0) & ((cell_B2 >= 0) & (cell_B2 < 4)).all(1)
            return torch.where(is_black_B, 2 * math.log(scale) - math.log(32), -torch.inf)
        # Half a standard deviation apart, along a line of up to 25 or on a board of 8.
        u, v = [math.ceil(16 / self.noise)] * 2 if self.shape == "checkerboard" else (10, math.ceil(50 / self.noise))
        u_G, v_G = torch.cartesian_prod((torch.arange(u) + 0.5) / u, (torch.arange(v) + 0.5) / v).unbind(1)
        centre_G2, std = self.scaled(SHAPES[self.shape](u_G, v_G)), self.noise / scale
        parts = []
        for part_B2 in x_B2.split(256):
            squares_BG = torch.cdist(part_B2, centre_G2).square()
            parts.append((-squares_BG / (2 * std**2)).logsumexp(1) - math.log(2 * math.pi * std**2 * u * v))
        return torch.cat(parts)

    def splits(self) -> dict[str, Source]:
        held = max(1, self.samples // 10)
        sizes = {"train": self.samples, "val": held, "test": held}
        return {name: TensorSource(features=self.draw(count, name)) for name, count in sizes.items()}
