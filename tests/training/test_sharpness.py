"""Sharpness against its closed form on a quadratic, and what it leaves behind."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from dlx.tasks.system import System
from dlx.training.sharpness import Landscape, sharpness, slices


class Bowl(System):
    """f(z) = 1/2 sum h z^2."""

    def __init__(self, start, curvature):
        super().__init__()
        self.z = nn.Parameter(torch.tensor(start, dtype=torch.float64))
        self.curvature = torch.tensor(curvature, dtype=torch.float64)

    def training_loss(self, batch, objective):
        return 0.5 * (self.curvature * self.z.square()).sum(), {}


class One:
    """A loader of one batch."""

    def eval_batches(self):
        yield {"index": torch.arange(4)}


def bowl(start, curvature=(1.0, 10.0, 100.0)):
    return Landscape(Bowl(start, curvature), One())


@pytest.mark.parametrize("epsilon", [1e-3, 1e-2])
def test_at_the_minimum_of_a_quadratic(epsilon):
    """The box is |y| <= eps at z = 0, so the maximum is at its corners: 100 (1/2 eps^2 sum h)."""
    found = sharpness(bowl([0.0, 0.0, 0.0]), epsilon=epsilon)
    assert found == pytest.approx(100 * 0.5 * epsilon**2 * 111, rel=1e-6)


def test_away_from_the_minimum_the_box_is_wider():
    z, epsilon = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), 1e-2
    h = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    here = 0.5 * (h * z.square()).sum()
    most = 0.5 * (h * (z.abs() + epsilon * (z.abs() + 1)).square()).sum()
    assert sharpness(bowl(z.tolist()), epsilon=epsilon) == pytest.approx((100 * (most - here) / (1 + here)).item())


def test_a_flat_function_has_none_and_it_grows_with_the_box():
    assert sharpness(bowl([1.0, 2.0], (0.0, 0.0))) == 0
    values = [sharpness(bowl([0.3, -0.1, 0.2]), epsilon=epsilon) for epsilon in (1e-4, 1e-3, 1e-2)]
    assert values == sorted(values)
    assert values[0] > 0


def test_weights_are_restored_and_slices_pass_through_them():
    landscape = bowl([1.0, -2.0, 0.5])
    before = landscape.system.z.detach().clone()
    sharpness(landscape)
    found = slices(landscape, count=2, points=5)
    assert torch.equal(landscape.system.z, before)
    assert all(losses[2] == pytest.approx(landscape.loss()) for _, losses in found)


def test_eval_prints_it_and_draws_the_landscape(dlx_call, tiny, only_run):
    dlx_call("train", *tiny)
    found = json.loads(dlx_call("eval", "@last", "--sharpness", "--json").out)
    assert found["metrics"]["train/sharpness"] > 0
    picture = found["pictures"][-1]  # after those of every eval
    assert Path(picture).stat().st_size > 5000
    wider = json.loads(dlx_call("eval", "@last", "--sharpness", "--epsilon", "5e-3", "--json").out)
    assert wider["metrics"]["train/sharpness"] > found["metrics"]["train/sharpness"]
    again = json.loads(dlx_call("eval", "@last", "--json").out)["metrics"]
    assert again.items() <= found["metrics"].items()
