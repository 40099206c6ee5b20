"""The numbers behind the claims: counts, receptive fields, sums written out, interpolants, products of layers."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dlx.claims.activations import Activations, gradient_norms
from dlx.claims.bottleneck import Bottleneck, bottleneck, conv_3x3, cost, even_width, rank
from dlx.claims.convolution import KERNELS, Convolution, convolved
from dlx.claims.degradation import Degradation
from dlx.claims.linear_stays_linear import LinearStaysLinear, affine_error, affine_map, best_line
from dlx.claims.receptive_field import SIDE, ReceptiveField, gradient_map, stack
from dlx.claims.universal_approximation import CURVATURE, UniversalApproximation, interpolate
from dlx.config import compose
from dlx.data.function1d import FUNCTIONS


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("kernels", "parameters"),
    [((5,), 409_600), ((3, 3), 294_912), ((7,), 802_816), ((3, 3, 3), 442_368)],
)
def test_stacks_have_the_counts_of_the_lecture(kernels, parameters):
    with torch.device("meta"):
        assert count(stack(kernels, 128)) == parameters


@pytest.mark.parametrize(("kernels", "field"), [((5,), 5), ((3, 3), 5), ((7,), 7), ((3, 3, 3), 7), ((3,), 3)])
def test_the_receptive_field_is_a_full_square_in_the_middle(kernels, field):
    torch.manual_seed(0)
    seen_HW = gradient_map(stack(kernels, 8), 8) > 0
    expected_HW = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    first = (SIDE - field) // 2
    expected_HW[first : first + field, first : first + field] = True
    assert torch.equal(seen_HW, expected_HW)


def test_receptive_fields_that_differ_are_said():
    experiment = ReceptiveField(channels=4)
    measured = experiment.measure(compose([]), {})
    assert experiment.verdict(measured).held
    measured["two 3x3"]["field"] = [5, 4]
    assert not experiment.verdict(measured).held


def test_the_bottleneck_has_the_counts_of_the_lecture():
    squeezing = bottleneck(128, 32)
    assert [layer.weight.numel() for layer in squeezing] == [4_096, 36_864]
    direct = cost(conv_3x3(128), 128, 28)
    assert direct == {"parameters": 147_456, "flops": 2 * 147_456 * 28 * 28}
    assert cost(squeezing, 128, 28) == {"parameters": 40_960, "flops": 2 * 40_960 * 28 * 28}


def test_the_bottleneck_saves_up_to_the_even_width():
    assert even_width(20) == 18
    assert count(bottleneck(20, 18)) == count(conv_3x3(20))
    assert count(bottleneck(20, 17)) < count(conv_3x3(20))
    experiment = Bottleneck(channels=20, squeezed=18, side=4)
    assert not experiment.verdict(experiment.measure(compose([]), {})).held


def test_the_rank_of_a_kernel_is_that_of_its_matrix():
    torch.manual_seed(0)
    assert rank(torch.randn(3, 8, 3, 3)) == 8
    assert rank(torch.einsum("omhw,mi->oihw", torch.randn(3, 2, 3, 3), torch.randn(2, 8))) == 2


def test_the_bottleneck_is_one_convolution_of_low_rank():
    measured = Bottleneck(channels=12, squeezed=5, side=4).measure(compose([]), {})
    assert measured["joined_error"] < 1e-12
    assert measured["rank"] == {"direct": 12, "bottleneck": 5}


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 5)])
def test_conv2d_is_the_sum_with_the_flipped_kernel(shape):
    torch.manual_seed(0)
    f, g = torch.randn(9, 7, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(
        convolved(f, g), F.conv2d(f[None, None], g.flip(0, 1)[None, None])[0, 0], atol=1e-13, rtol=0
    )


def test_the_sum_is_that_of_polynomials():
    # (1 + 2x)(3 + 4x + 5x^2) = 3 + 10x + 13x^2 + 10x^3; the inner places are those that lie wholly on f.
    f, g = torch.tensor([[3.0, 4.0, 5.0]]), torch.tensor([[1.0, 2.0]])
    assert convolved(f, g).tolist() == [[10.0, 13.0]]


def test_only_kernels_that_are_their_own_flip_need_none():
    experiment = Convolution(digits=(3,), scale=1)
    measured = experiment.measure(compose(["data=digits"]), {})
    own = {name for name, kernel in KERNELS.items() if torch.tensor(kernel).flip(0, 1).tolist() == kernel}
    unlike = {name for name, found in measured["differences"].items() if found["not_flipped"] > 1e-12}
    assert own == {"blur", "sharpen", "outline"}
    assert unlike == {"vertical edges", "horizontal edges", "random"}
    assert all(found["flipped"] < 1e-13 for found in measured["differences"].values())
    measured["differences"]["random"]["flipped"] = 1e-3
    assert not experiment.verdict(measured).held


def relu_layers(units: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(1, units), nn.ReLU(), nn.Linear(units, 1)).double()


@pytest.mark.parametrize(("units", "error"), [(8, 0.574), (16, 0.165), (32, 0.0429), (64, 0.0108)])
def test_the_interpolant_of_sin_has_the_known_error_below_the_bound(units, error):
    layers, f = relu_layers(units), FUNCTIONS["sin"]
    knots_K1 = interpolate(layers, f)
    fine_N1 = torch.linspace(-1, 1, 64 * 100 + 1, dtype=torch.float64).unsqueeze(1)
    with torch.no_grad():
        assert len(knots_K1) == units + 1
        assert (layers(knots_K1) - f(knots_K1)).abs().max() < 1e-12
        found = float((layers(fine_N1) - f(fine_N1)).abs().max())
    assert found == pytest.approx(error, rel=5e-3)
    assert found <= (2 / units) ** 2 / 8 * CURVATURE


def test_the_curvature_is_the_largest_second_derivative_of_sin():
    x = torch.linspace(-1, 1, 1001, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(FUNCTIONS["sin"](x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert float(second.abs().max()) == pytest.approx(CURVATURE, rel=1e-4)


def test_an_interpolant_is_straight_between_its_knots():
    layers = relu_layers(2)
    interpolate(layers, lambda x: x.square(), low=0.0, high=2.0)  # knots 0, 1, 2
    x = torch.tensor([[0.5], [1.5]], dtype=torch.float64)
    assert layers(x)[:, 0].tolist() == pytest.approx([0.5, 2.5])


def test_the_error_of_wider_networks_must_fall():
    experiment = UniversalApproximation(functions=("sin",), widths=(2, 4), knots=(4, 8), seeds=1)
    written = {"4": {"largest": 1.0, "bound": 2.0, "at_knots": 0.0}, "8": {"largest": 0.1, "bound": 0.5, "at_knots": 0}}
    for errors, held in (((0.4, 0.1), True), ((0.1, 0.4), False)):
        learned = {"sin": {"mse": {"2": [errors[0]], "4": [errors[1]]}}}
        assert experiment.verdict({"learned": learned, "written": written}).held is held
    written["8"]["largest"] = 0.6
    learned = {"sin": {"mse": {"2": [0.4], "4": [0.1]}}}
    assert not experiment.verdict({"learned": learned, "written": written}).held


def test_linear_layers_multiply_out():
    torch.manual_seed(0)
    x = torch.randn(20, 3)
    linear = nn.Sequential(nn.Linear(3, 5), nn.Identity(), nn.Linear(5, 4), nn.Identity(), nn.Linear(4, 2))
    weight, bias = affine_map(linear)
    assert weight.shape == (2, 3)
    torch.testing.assert_close(x @ weight.float().T + bias.float(), linear(x))
    assert affine_error(linear, x) < 1e-14
    assert linear[0].weight.dtype == torch.float32
    linear[1] = nn.ReLU()
    assert affine_error(linear, x) > 0.01


def test_the_best_line_is_least_squares():
    x_N1 = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    slope, intercept, error = best_line(x_N1, torch.tensor([[1.0], [3.0], [8.0]], dtype=torch.float64))
    assert (slope, intercept, error) == pytest.approx((3.5, 0.5, 0.5))


@pytest.mark.parametrize(("error", "held"), [(0.4875, True), (0.6, False), (0.3, False)])
def test_a_linear_network_off_the_best_line_is_said(error, held):
    measured = {
        "line": {"mse": 0.4874},
        "identity": {"mse": [error], "affine_error": [1e-15]},
        "relu": {"mse": [0.005], "affine_error": [1.0]},
    }
    assert LinearStaysLinear(seeds=1).verdict(measured).held is held


def test_gradients_shrink_by_a_quarter_and_more_through_sigmoids():
    """A sigmoid's slope is 1/4 at most, and torch's weights 64 to 64 scale a vector by 1 / sqrt(3): 0.14 a layer."""
    words = Activations(depth=8).variants(compose([]))["sigmoid"]
    norms = gradient_norms(compose(["model=mlp", "data=digits", *words]), seed=0)
    assert len(norms) == 9
    middle = norms[2:-1]
    assert all(4 < after / before < 12 for before, after in pairwise(middle))


def test_the_gradient_is_that_of_the_run_with_this_seed():
    config = compose(["model=mlp", "data=digits", "model.hidden=[4]"])
    assert gradient_norms(config, 0) == gradient_norms(config, 0)
    assert gradient_norms(config, 0) != gradient_norms(config, 1)


def networks(**errors: float) -> dict[str, dict]:
    """Of loss as much as of error."""
    named = {name.replace("_", " "): error for name, error in errors.items()}
    return {name: {"error": [error], "loss": {"x": [1], "y": [error]}} for name, error in named.items()}


@pytest.mark.parametrize(("plain", "residual", "held"), [(0.5, 0.0, True), (0.02, 0.0, False), (0.5, 0.1, False)])
def test_degradation_is_of_plain_networks_alone(plain, residual, held):
    measured = {"0.1": networks(plain_20=0.0, plain_56=plain, residual_20=0.0, residual_56=residual)}
    assert Degradation(rates=(0.1,), seeds=1).verdict(measured).held is held


def test_degradation_compares_each_network_at_its_best_rate():
    measured = {
        "0.01": networks(plain_20=0.2, plain_56=0.5, residual_20=0.3, residual_56=0.0),
        "0.1": networks(plain_20=0.0, plain_56=0.7, residual_20=0.0, residual_56=0.4),
    }
    verdict = Degradation(seeds=1).verdict(measured)
    assert verdict.held
    assert "residual 56 0.0% (lr 0.01)" in verdict.line
    assert "plain 20 0.0% (lr 0.1)" in verdict.line
    measured["0.1"] |= networks(plain_56=0.04)  # then it is no worse than the shallow one
    assert not Degradation(seeds=1).verdict(measured).held


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ReceptiveField(channels=0), "channels must be at least 1, got 0"),
        (lambda: Bottleneck(squeezed=200), "squeezed must be in"),
        (lambda: Convolution(digits=(10,)), "digits must be some of 0 to 9"),
        (lambda: Convolution(scale=0), "scale must be at least 1"),
        (lambda: Activations(depth=0), "depth must be at least 1"),
        (lambda: UniversalApproximation(functions=("cos",)), "functions must be some of sin, step"),
        (lambda: UniversalApproximation(widths=(4, 2)), "widths must be at least 2, rising"),
        (lambda: LinearStaysLinear(seeds=0), "seeds must be at least 1"),
        (lambda: Degradation(depths=(56, 20)), "depths must rise"),
        (lambda: Degradation(rates=()), "rates must be above 0"),
    ],
)
def test_a_value_out_of_range_is_named(make, text):
    with pytest.raises(ValueError, match=f"^{text}"):
        make()
