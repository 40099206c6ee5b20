"""The transposed convolution against its matrix, counts of terms by hand, and what the verdict needs."""

import pytest
import torch

from dlx.claims.deconvolution import Deconvolution, counts, distance, matrix, terms, transposed
from dlx.config import compose


@pytest.fixture(scope="module")
def measured():
    return Deconvolution().measure(compose([]), {})


def test_it_holds(measured):
    verdict = Deconvolution().verdict(measured)
    assert verdict.held, verdict.line
    assert "25 pairs of kernel and stride: each gives 24 pixels back" in verdict.line


@pytest.mark.parametrize(("kernel", "stride", "steps"), [(3, 2, 9), (4, 2, 10), (3, 1, 5), (2, 3, 8)])
def test_the_transposed_convolution_is_the_transposed_matrix(kernel, stride, steps):
    torch.manual_seed(0)
    weight = torch.randn(kernel, dtype=torch.float64)
    written = matrix(weight, stride, steps)
    assert written.shape == ((steps - kernel) // stride + 1, steps)
    assert written[0].tolist() == [*weight.tolist(), *[0.0] * (steps - kernel)]
    y = torch.randn(1, 1, 1, len(written), dtype=torch.float64)
    square = torch.zeros(1, 1, kernel, kernel, dtype=torch.float64)
    square[0, 0, 0] = weight
    found = transposed(y.expand(1, 1, len(written), -1), square, stride, steps)
    torch.testing.assert_close(found[0, 0, 0], written.T @ y.flatten())
    assert found.shape[-2:] == (steps, steps)


def test_the_counts_of_a_kernel_of_3_at_stride_2_are_a_checkerboard():
    line = torch.tensor([1.0, 1, 2, 1, 2, 1, 1])
    assert torch.equal(counts(3, 2, 3), line.unsqueeze(1) * line)
    assert torch.equal(counts(4, 2, 3)[2:-2, 2:-2], torch.full((4, 4), 4.0))


@pytest.mark.parametrize(
    ("kernel", "stride", "expected"), [(3, 2, [1, 4]), (4, 2, [4, 4]), (5, 2, [4, 9]), (3, 1, [9, 9])]
)
def test_terms_away_from_the_border(kernel, stride, expected):
    assert terms(kernel, stride) == expected


def test_a_factor_is_no_distance():
    x = torch.randn(4, 4)
    assert distance(3 * x, x) < 1e-6
    assert distance(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])) == 1.0


@pytest.mark.parametrize("changed", [{"up": 23}, {"adjoint": 1e-3}, {"inverse": 0.01}, {"terms": [1, 2]}])
def test_it_does_not_hold_where_one_pair_differs(changed, measured):
    first, *others = measured["pairs"]
    assert not Deconvolution().verdict({**measured, "pairs": [{**first, **changed}, *others]}).held


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"kernels": ()}, "kernels must be at least 1"), ({"strides": (0,)}, "strides must be at least 1"),
        ({"side": 5}, "side must be at least 8"), ({"kernels": (2,), "strides": (3, 4)}, "strides must not all be"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_named(arguments, text):
    with pytest.raises(ValueError, match=text):
        Deconvolution(**arguments)
