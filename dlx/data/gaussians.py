"""Mixtures of Gaussians with many modes: what adversarial networks are tried on for the modes that they miss."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from dlx.config import checks
from dlx.data.dataset import Dataset, Source, TensorSource
from dlx.random import generator
from dlx.tasks.spec import Label, LabeledReals, Reals

SIDE = 5  # modes along a side of the grid
ON_RING = 8
STD = {"ring": 0.01, "grid": 0.025}


def ring() -> Tensor:
    """Eight centres on a circle of radius 1, [8, 2]."""
    angle = 2 * math.pi * torch.arange(ON_RING) / ON_RING
    return torch.stack([angle.cos(), angle.sin()], 1)


def grid() -> Tensor:
    """25 centres, 1 apart, [25, 2]."""
    line = torch.arange(SIDE) - (SIDE - 1) / 2
    return torch.cartesian_prod(line, line)


SHAPES = {"ring": ring, "grid": grid}


class Gaussians(Dataset):
    """shape: ring, 8 Gaussians on a circle; grid, 25 on a board of 5 x 5. std: of each. samples: to train on; a tenth
    of that validates and another tests. data_seed: draws them, whatever the run's seed.

    The classic settings (a ring of radius 2 with std 0.02, a grid 2 apart with std 0.05: Srivastava et al. 2017,
    arXiv:1705.07761) at half their size, so that coordinates are near 1. The label is the Gaussian that a point is of.
    """

    spec: LabeledReals

    def __init__(
        self,
        *,
        shape: Literal["ring", "grid"] = "ring",
        std: float | None = None,
        samples: int = 25_000,
        data_seed: int = 0,
    ) -> None:
        checks.one_of(SHAPES, shape=shape)
        checks.above(0, std=std)
        checks.at_least(10, samples=samples)
        self.shape, self.samples, self.data_seed = shape, samples, data_seed
        self.std = STD[shape] if std is None else std
        self.centres = SHAPES[shape]()
        modes = tuple(tuple(row) for row in self.centres.tolist())
        self.spec = LabeledReals(
            features=Reals(size=2, names=("x", "y"), modes=modes, mode_std=self.std),
            label=Label(classes=tuple(f"({x:.2g}, {y:.2g})" for x, y in modes)),
        )

    def draw(self, count: int, name: str) -> tuple[Tensor, Tensor]:
        """Points, float32 [count, 2], and the Gaussian of each, int64 [count]."""
        rng = generator(self.data_seed, f"gaussians {name}")
        label_N = torch.randint(len(self.centres), (count,), generator=rng)
        return self.centres[label_N] + self.std * torch.randn(count, 2, generator=rng), label_N

    def splits(self) -> dict[str, Source]:
        held = max(1, self.samples // 10)
        found: dict[str, Source] = {}
        for name, count in {"train": self.samples, "val": held, "test": held}.items():
            features, label = self.draw(count, name)
            found[name] = TensorSource(features=features, label=label)
        return found
