import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from dlx.models.linear import Linear
from dlx.tasks.spec import Reals, RegressionReals


def minimize(system, batch, penalty=lambda system: 0.0):
    """Runs a second-order method to the minimum of the training loss."""
    (objective,) = system.objectives()
    optimizer = torch.optim.LBFGS(
        system.parameters(), max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = system.training_loss(batch, objective)[0] + penalty(system)
        loss.backward()
        return loss

    optimizer.step(closure)
    return closure().item()


@pytest.mark.parametrize(("height", "count"), [(8, 650), (28, 7_850)])
def test_parameters(height, count, images):
    assert sum(p.numel() for p in Linear(spec=images(1, height)).parameters()) == count


def test_mse_leads_to_the_least_squares_solution():
    x_BF = torch.randn(200, 6, dtype=torch.float64)
    y_BD = x_BF @ torch.randn(6, 2, dtype=torch.float64) + 3 + 0.1 * torch.randn(200, 2, dtype=torch.float64)
    solution = torch.linalg.lstsq(torch.cat([x_BF, torch.ones(200, 1)], dim=1), y_BD).solution
    system = Linear(spec=RegressionReals(features=Reals(size=6), target=Reals(size=2))).double()
    minimize(system, {"features": x_BF, "target": y_BD})
    torch.testing.assert_close(system.linear.weight.T, solution[:-1], atol=1e-5, rtol=0)
    torch.testing.assert_close(system.linear.bias, solution[-1], atol=1e-5, rtol=0)


def test_cross_entropy_leads_to_scikit_learns_logistic_regression(images):
    """scikit-learn minimizes C * sum of losses + |W|^2 / 2: the mean loss + |W|^2 / (2 C N), the biases not counted."""
    spec, strength = images(1, 4, classes=3), 0.5
    image = torch.randn(120, 1, 4, 4, dtype=torch.float64)
    label = (image.flatten(1)[:, :3] + torch.randn(120, 3)).argmax(1)
    system = Linear(spec=spec).double()

    def penalty(system):
        return system.linear.weight.square().sum() / (2 * strength * len(image))

    minimum = minimize(system, {"image": image, "label": label}, penalty)
    oracle = LogisticRegression(C=strength, tol=1e-10, max_iter=2000).fit(image.flatten(1).numpy(), label.numpy())
    nll = -oracle.predict_log_proba(image.flatten(1).numpy())[np.arange(120), label.numpy()].mean()
    assert minimum == pytest.approx(nll + (oracle.coef_**2).sum() / (2 * strength * 120), abs=1e-6)


def test_the_loss_is_convex_in_the_weights(images, noise):
    spec = images(1, 4)
    batch, system = noise(spec), Linear(spec=spec)
    (objective,) = system.objectives()

    def loss_at(vector):
        torch.nn.utils.vector_to_parameters(vector, system.parameters())
        return system.training_loss(batch, objective)[0].item()

    size = sum(p.numel() for p in system.parameters())
    for a, b in torch.randn(20, 2, size):
        assert loss_at((a + b) / 2) <= (loss_at(a) + loss_at(b)) / 2 + 1e-5
