import math

import pytest
import torch

from dlx.data.toy_density import SCALE, SHAPES, ToyDensity

every_shape = pytest.mark.parametrize("shape", SHAPES)


@every_shape
def test_coordinates_have_mean_zero_and_mean_square_one(shape):
    x_N2 = ToyDensity(shape=shape).draw(100_000, "train")
    assert x_N2.dtype == torch.float32
    assert x_N2.mean(0).abs().max() < 0.02
    assert x_N2.square().mean().item() == pytest.approx(1, abs=0.02)


@every_shape
@pytest.mark.parametrize("noise", [None, 0.4])
def test_the_density_integrates_to_one_and_is_that_of_the_points(shape, noise):
    data = ToyDensity(shape=shape, noise=noise)
    line = torch.linspace(-2.8, 2.8, 121)
    log_p_N = data.log_density(torch.cartesian_prod(line, line))
    p_N = log_p_N.exp() * (line[1] - line[0]) ** 2
    assert p_N.sum().item() == pytest.approx(1, abs=0.03)  # the board's edges lie between points
    entropy = -(p_N * log_p_N.clamp_min(-1e9)).sum().item()
    assert -data.log_density(data.draw(1000, "test")).mean().item() == pytest.approx(entropy, abs=0.1)


def test_rings_without_noise_are_circles_as_full_as_they_are_long():
    radius_N = ToyDensity(noise=0.0).draw(10_000, "train").norm(dim=1) * SCALE["rings"]
    numbers, counts = radius_N.round(decimals=3).unique(return_counts=True)
    assert numbers.tolist() == [1, 2, 3, 4]
    assert (counts / 1000 - torch.arange(1, 5)).abs().max() < 0.2


def test_a_square_of_the_board_is_filled_evenly():
    x_N2 = (ToyDensity(shape="checkerboard", samples=80_000).draw(80_000, "train") * SCALE["checkerboard"] + 4) / 2
    cell_N2 = x_N2.floor()
    assert (cell_N2.sum(1) % 2 == 0).all()
    _, counts = cell_N2.unique(dim=0, return_counts=True)
    assert len(counts) == 8
    assert (counts - 10_000).abs().max() < 5 * math.sqrt(10_000)


def test_splits_are_drawn_apart_and_by_the_data_seed():
    splits = ToyDensity(samples=100).splits()
    assert {name: len(part) for name, part in splits.items()} == {"train": 100, "val": 10, "test": 10}
    first = {name: part.tensors["features"][:10] for name, part in splits.items()}
    assert not torch.equal(first["val"], first["test"])
    assert torch.equal(ToyDensity(samples=100).splits()["val"].tensors["features"], first["val"])
    assert not torch.equal(ToyDensity(samples=100, data_seed=1).splits()["val"].tensors["features"], first["val"])


@pytest.mark.parametrize("given", [{"shape": "square"}, {"samples": 9}, {"noise": -1.0}])
def test_values_out_of_range_name_their_argument(given):
    with pytest.raises(ValueError, match=rf"^{next(iter(given))} "):
        ToyDensity(**given)


def test_a_line_has_no_density():
    with pytest.raises(ValueError, match=r"^noise must be above 0"):
        ToyDensity(noise=0.0).log_density(torch.zeros(1, 2))
