"""The polynomial against numpy's fit, ridge in its other form, and `dlx train`."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dlx.models.polynomial import Polynomial, legendre
from dlx.tasks.spec import Reals, RegressionReals


def fitted(x, y, weight=None, **given):
    system = Polynomial(spec=RegressionReals(features=Reals(size=1), target=Reals(size=y.shape[1])), **given).double()
    batch = {"features": x, "target": y, **({} if weight is None else {"weight": weight})}
    system.fit(SimpleNamespace(train=SimpleNamespace(eval_batches=lambda: [batch])))
    return system


@pytest.fixture
def curve():
    x = torch.rand(80, 1, dtype=torch.float64) * 7 - 2
    return x, torch.cat([x.sin(), x.cos()], 1) + 0.2 * torch.randn(80, 2, dtype=torch.float64)


@pytest.mark.parametrize("degree", [0, 1, 2, 5, 15])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_numpys_fit(degree, weighted, curve):
    x, y = curve
    weight = torch.rand(80, dtype=torch.float64) * 3 if weighted else None
    system = fitted(x, y, weight, degree=degree)
    new = torch.linspace(-2, 5, 50, dtype=torch.float64)
    for column in range(2):
        root = weight.sqrt().numpy() if weighted else None  # numpy's weigh the residual, not its square
        oracle = np.polynomial.Polynomial.fit(x[:, 0].numpy(), y[:, column].numpy(), degree, w=root)
        np.testing.assert_allclose(system(new[:, None])[:, column].numpy(), oracle(new.numpy()), atol=1e-8)


def test_a_high_degree_is_no_numerical_trouble():
    """In float32 powers of x are of no use at degree 30."""
    x = torch.linspace(10, 12, 400).unsqueeze(1)
    y = torch.sin(9 * x)
    system = fitted(x, y, degree=30).float()
    assert (system(x) - y).abs().max() < 1e-5


def test_legendre_polynomials_are_numpys():
    x = torch.linspace(-1, 1, 11, dtype=torch.float64)
    np.testing.assert_allclose(legendre(x, 12).numpy(), np.polynomial.legendre.legvander(x.numpy(), 12), atol=1e-14)


def test_ridge_is_its_normal_equations(curve):
    x, y = curve
    system = fitted(x, y, degree=6, penalty=0.3)
    basis = system._basis(x)
    penalty = 0.3 * torch.eye(7, dtype=torch.float64)
    penalty[0, 0] = 0
    expected = torch.linalg.solve(basis.T @ basis / 80 + penalty, basis.T @ y / 80)
    torch.testing.assert_close(system.coefficients, expected, atol=1e-10, rtol=0)
    free = fitted(x, y, degree=6)
    assert system.coefficients[1:].norm() < free.coefficients[1:].norm()


def test_more_coefficients_than_samples():
    x, y = torch.randn(4, 1, dtype=torch.float64), torch.randn(4, 1, dtype=torch.float64)
    torch.testing.assert_close(fitted(x, y, degree=9)(x), y)
    same = torch.ones(4, 1, dtype=torch.float64)
    torch.testing.assert_close(fitted(same, y, degree=2)(same), y.mean().expand(4, 1))


def test_training_over_its_capacity(dlx_call):
    words = ["model=polynomial", "model.degree=3,15", "data.samples=60"]  # fewer than a batch
    call = dlx_call("sweep", *words, "--json")
    assert call.code == 0, call.err
    best, worst = json.loads(call.out)["members"]
    assert best["name"] == "001-degree-15"
    assert best["metrics"]["test/mse"] < 1e-4 < 0.3 < worst["metrics"]["val/loss"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["model.degree=-1"], "model.degree: must be at least 0, got -1"),
        (["model.penalty=-1"], "model.penalty: must be at least 0, got -1"),
        (["data=digits"], "Polynomial"),
    ],
)
def test_bad_input(words, text, dlx_call, here):
    call = dlx_call("train", "model=polynomial", *words)
    assert call.code == 2
    assert text in call.err
    assert list(here.iterdir()) == []


def test_one_feature_only():
    with pytest.raises(ValueError, match="a polynomial is of one feature, the data have 2"):
        Polynomial(spec=RegressionReals(features=Reals(size=2), target=Reals(size=1)))
