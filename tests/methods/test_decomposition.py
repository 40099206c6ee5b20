"""The decompositions are identities: on random arrays, and by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlx.methods.decomposition import measure_error, squared, zero_one
from dlx.random import generator

LABELS = st.tuples(st.integers(2, 6), st.integers(2, 9), st.integers(1, 12), st.integers(0, 10**6))


@given(LABELS)
def test_bias_and_net_variance_are_the_error(sizes):
    classes, members, points, seed = sizes
    rng = np.random.default_rng(seed)
    label_MN, truth_N = rng.integers(classes, size=(members, points)), rng.integers(classes, size=points)
    parts = zero_one(torch.from_numpy(label_MN), torch.from_numpy(truth_N))
    error_N = (label_MN != truth_N).mean(0)
    np.testing.assert_allclose(parts["error"], error_N, atol=1e-12)
    total_N = parts["bias"] + parts["variance_unbiased"] - parts["variance_biased"]
    np.testing.assert_allclose(total_N, error_N, atol=1e-12)
    main_N = np.array([np.bincount(column, minlength=classes).argmax() for column in label_MN.T])
    np.testing.assert_array_equal(parts["bias"], main_N != truth_N)
    np.testing.assert_array_equal(parts["variance_unbiased"], np.where(main_N == truth_N, parts["variance"], 0))
    if classes == 2:  # who differs from a wrong prediction is right
        np.testing.assert_array_equal(parts["variance_biased"], np.where(main_N == truth_N, 0, parts["variance"]))


def test_zero_one_by_hand():
    """Main prediction 1. At the first point it is right; at the second it is not, and of those that differ half are."""
    label_MN = torch.tensor([[1, 1], [1, 1], [0, 2], [1, 0]])
    parts = zero_one(label_MN, torch.tensor([1, 2]))
    assert parts["bias"].tolist() == [0, 1]
    assert parts["variance"].tolist() == [0.25, 0.5]
    assert parts["variance_unbiased"].tolist() == [0.25, 0]
    assert parts["variance_biased"].tolist() == [0, 0.25]
    assert parts["error"].tolist() == [0.25, 0.75]


@given(LABELS)
def test_bias_and_variance_are_the_squared_error(sizes):
    dims, members, points, seed = sizes
    rng = np.random.default_rng(seed)
    output_MND, target_ND = rng.normal(size=(members, points, dims)), rng.normal(size=(points, dims))
    error_N, bias2_N, variance_N = squared(torch.from_numpy(output_MND), torch.from_numpy(target_ND))
    np.testing.assert_allclose(error_N, np.square(output_MND - target_ND).mean((0, 2)), rtol=1e-9)
    np.testing.assert_allclose(bias2_N + variance_N, error_N, rtol=1e-9)
    np.testing.assert_allclose(variance_N, output_MND.var(0, ddof=1).mean(-1), rtol=1e-9)


def test_the_estimates_are_unbiased():
    """Of predictors that are 0.5 off with a variance of 4, few at a time: on average 0.25 and 4."""
    output_MND = 0.5 + 2 * torch.randn(3, 200_000, 1, generator=generator(0, "test"), dtype=torch.float64)
    _, bias2_N, variance_N = squared(output_MND, torch.zeros(200_000, 1))
    assert float(bias2_N.mean()) == pytest.approx(0.25, abs=0.03)
    assert float(variance_N.mean()) == pytest.approx(4, abs=0.05)


def test_the_measured_error_is_the_sum_within_its_standard_error():
    output_MND, target_ND = torch.randn(20, 500, 1), torch.zeros(500, 1)
    _, bias2_N, variance_N = squared(output_MND, target_ND)
    total, off = float((bias2_N + variance_N).mean()) + 0.25, []
    for seed in range(60):
        error, rest, standard_error = measure_error(output_MND, target_ND, 0.5, generator(seed, "test"))
        assert error - total == pytest.approx(rest, abs=1e-9)
        off.append(rest / standard_error)
    assert abs(np.mean(off)) < 3 / math.sqrt(60)
    assert 0.75 < np.std(off) < 1.3
