"""The MMD against its definition, and a test that is right as often as it says."""

import pytest
import torch

from dlx.tasks import two_sample
from dlx.tasks.two_sample import SCALES, mmd, permutation_test, sliced_wasserstein


def written_out(a_NZ, b_MZ):
    def kernel(x, y, bandwidth):
        return sum(float((-(x - y).square().sum() / (scale * bandwidth)).exp()) for scale in SCALES) / len(SCALES)

    pairs = [(x - y).square().sum() for i, x in enumerate(b_MZ) for j, y in enumerate(b_MZ) if i != j]
    bandwidth = torch.stack(pairs).mean()

    def within(points):
        values = [kernel(x, y, bandwidth) for i, x in enumerate(points) for j, y in enumerate(points) if i != j]
        return sum(values) / len(values)

    across = [kernel(x, y, bandwidth) for x in a_NZ for y in b_MZ]
    return within(a_NZ) + within(b_MZ) - 2 * sum(across) / len(across)


def test_the_mmd_is_the_sum_written_out(monkeypatch):
    torch.manual_seed(0)
    a_NZ, b_MZ = torch.randn(7, 3).double(), 2 * torch.randn(9, 3).double()
    assert mmd(a_NZ, b_MZ) == pytest.approx(written_out(a_NZ, b_MZ), abs=1e-12)
    monkeypatch.setattr(two_sample, "AT_A_TIME", 4)
    assert mmd(a_NZ, b_MZ) == pytest.approx(written_out(a_NZ, b_MZ), abs=1e-12)


def test_the_mmd_of_one_distribution_is_zero_on_average():
    torch.manual_seed(0)
    found = torch.tensor([mmd(torch.randn(100, 2), torch.randn(100, 2)) for _ in range(60)])
    assert abs(found.mean()) < 3 * found.std() / 60**0.5
    assert (found < 0).any()


def test_p_is_even_for_one_distribution_and_small_for_two():
    torch.manual_seed(0)
    same = torch.tensor([permutation_test(torch.randn(60, 2), torch.randn(60, 2)) for _ in range(60)])
    assert same.mean() == pytest.approx(0.5, abs=0.15)
    assert (same < 0.05).sum() <= 9
    assert permutation_test(torch.randn(100, 2), 1.6 * torch.randn(100, 2)) < 0.05
    ring = torch.nn.functional.normalize(torch.randn(100, 2)) * 2**0.5
    assert permutation_test(ring, torch.randn(100, 2)) < 0.01  # of the same mean and covariance


def test_a_shift_is_as_far_as_it_looks_from_random_directions():
    """Of a shift by d along one of Z axes, each direction sees d times its cosine: in the plane 2 d / pi on average."""
    torch.manual_seed(0)
    a_NZ = torch.randn(50, 2)
    shift = torch.tensor([3.0, 0.0])
    assert sliced_wasserstein(a_NZ, a_NZ[torch.randperm(50)]) == pytest.approx(0, abs=1e-12)
    assert sliced_wasserstein(a_NZ, a_NZ + shift, directions=4000) == pytest.approx(6 / torch.pi, rel=0.03)
    with pytest.raises(ValueError, match="b_NZ must have 50 points, got 49"):
        sliced_wasserstein(a_NZ, a_NZ[1:])
