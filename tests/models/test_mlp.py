import math

import pytest
import torch
from torch import nn

from dlx.models.linear import Linear
from dlx.models.mlp import MLP
from dlx.tasks.spec import Reals, RegressionReals

CURVE = RegressionReals(features=Reals(size=1), target=Reals(size=1))


def test_parameters(images):
    assert sum(p.numel() for p in MLP(spec=images(1, 28), hidden=(256, 128)).parameters()) == 235_146


def test_no_hidden_layer_is_the_linear_model(images, noise):
    spec = images(1, 8)
    mlp, linear = MLP(spec=spec, hidden=()), Linear(spec=spec)
    linear.linear.load_state_dict(mlp.layers[0].state_dict())
    x_BCHW = noise(spec)["image"]
    assert torch.equal(mlp(x_BCHW), linear(x_BCHW))


def test_stacked_linear_layers_stay_linear(images, noise):
    spec = images(1, 8)
    system = MLP(spec=spec, hidden=(32, 16, 24), activation="identity").double()
    weight, bias = torch.eye(64, dtype=torch.float64), torch.zeros(64, dtype=torch.float64)
    for layer in system.layers:
        if isinstance(layer, nn.Linear):
            weight, bias = layer.weight @ weight, layer.weight @ bias + layer.bias
    x_BCHW = noise(spec)["image"].double()
    torch.testing.assert_close(system(x_BCHW), x_BCHW.flatten(1) @ weight.T + bias, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("relu", lambda x: x.clamp(min=0)),
        ("tanh", torch.tanh),
        ("sigmoid", lambda x: 1 / (1 + torch.exp(-x))),
        ("gelu", lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))),
        ("identity", lambda x: x),
    ],
)
def test_activation(activation, function):
    system = MLP(spec=CURVE, hidden=(5,), activation=activation)
    x_B1 = torch.linspace(-3, 3, 9).unsqueeze(1)
    first, last = system.layers[0], system.layers[-1]
    torch.testing.assert_close(system(x_B1), last(function(first(x_B1))))


@pytest.mark.parametrize(("width", "error"), [(8, 0.574), (16, 0.165), (32, 0.0429), (64, 0.0108)])
def test_one_hidden_layer_interpolates(width, error):
    """With weights set by hand a ReLU layer is the interpolant through width + 1 knots of sin(3 pi x).

    Each unit bends the line at one knot; the error is within h^2 / 8 * max|f''|.
    """
    knots = torch.linspace(-1, 1, width + 1, dtype=torch.float64)
    value = torch.sin(3 * math.pi * knots)
    slope = value.diff() / knots.diff()
    system = MLP(spec=CURVE, hidden=(width,)).double()
    with torch.no_grad():
        system.layers[0].weight.fill_(1.0)
        system.layers[0].bias.copy_(-knots[:-1])
        system.layers[-1].weight.copy_(slope.diff(prepend=slope.new_zeros(1)).unsqueeze(0))
        system.layers[-1].bias.copy_(value[:1])
        x_N1 = torch.linspace(-1, 1, 20_001, dtype=torch.float64).unsqueeze(1)
        worst = (system(x_N1) - torch.sin(3 * math.pi * x_N1)).abs().max().item()
    assert worst <= (2 / width) ** 2 / 8 * (3 * math.pi) ** 2
    assert worst == pytest.approx(error, rel=0.01)
