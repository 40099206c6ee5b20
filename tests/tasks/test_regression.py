"""Losses by hand, weights; figures from joined sums are those of one big batch."""

import pytest
import torch

from dlx.models.linear import Linear
from dlx.tasks.regression import Regression
from dlx.tasks.spec import Reals, RegressionReals

SPEC = RegressionReals(features=Reals(size=3), target=Reals(size=2))
OUTPUT = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
TARGET = torch.tensor([[1.5, 4.0], [0.0, 2.0]])  # differences -0.5, -2, 0, -3


@pytest.mark.parametrize(
    ("loss", "first", "second"),
    [
        ("mse", (0.25 + 4) / 2, 9 / 2),
        ("l1", 2.5 / 2, 3 / 2),
        ("huber", (0.125 + 1.5) / 2, 2.5 / 2),  # d^2 / 2 up to 1, then |d| - 1/2
    ],
)
def test_losses_by_hand(loss, first, second):
    target = Regression(SPEC, "features", "target", loss)
    assert target.loss(OUTPUT, {"target": TARGET}).item() == pytest.approx((first + second) / 2)
    weighted = target.loss(OUTPUT, {"target": TARGET, "weight": torch.tensor([0.5, 3.0])})
    assert weighted.item() == pytest.approx((0.5 * first + 3.0 * second) / 2)


@pytest.mark.parametrize("loss", ["mse", "l1", "huber"])
def test_figures_of_joined_sums_are_those_of_one_batch(loss):
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    system = Linear(spec=SPEC, loss=loss).eval()
    batch = {
        "features": torch.randn(50, 3, generator=generator),
        "target": 5 + torch.randn(50, 2, generator=generator) * torch.tensor([1.0, 3.0]),
    }
    cuts = [slice(0, 7), slice(7, 8), slice(8, 40), slice(40, 50)]
    with torch.no_grad():
        whole = system.metrics(system.evaluate(batch))
        parts = [system.evaluate({name: tensor[cut] for name, tensor in batch.items()}) for cut in cuts]
        residual = (system(batch["features"]) - batch["target"]).double()
        loss_of_all = system.target.loss(system(batch["features"]), batch).item()
    sums = {name: sum(part[name] for part in parts) for name in parts[0]}
    assert system.metrics(sums) == pytest.approx(whole, rel=1e-9)
    assert whole["loss"] == pytest.approx(loss_of_all, rel=1e-6)
    assert whole["mse"] == pytest.approx(residual.square().mean().item())
    assert whole["mae"] == pytest.approx(residual.abs().mean().item())


def test_r2_is_one_for_the_target_and_zero_for_its_mean():
    target = Regression(SPEC, "features", "target", "mse")
    real = torch.tensor([[1.0, 0.0], [2.0, 4.0], [6.0, 8.0]])
    for output, r2 in ((real, 1.0), (real.mean(0).expand(3, 2), 0.0)):
        assert target.metrics(target.statistics(output, {"target": real}))["r2"] == pytest.approx(r2, abs=1e-6)


def test_the_names_of_its_metrics_are_known_before():
    system, batch = Linear(spec=SPEC), {"features": torch.randn(4, 3), "target": torch.randn(4, 2)}
    with torch.no_grad():
        assert tuple(system.metrics(system.evaluate(batch))) == system.metric_names


def test_predict_and_monitor():
    system = Linear(spec=SPEC)
    x_BF = torch.randn(4, 3)
    assert torch.equal(system.predict({"features": x_BF})["target"], system(x_BF))
    assert system.monitor == ("val/loss", "min")


@pytest.mark.parametrize(
    ("features", "trained", "lines"),
    [
        (1, 0, ["held-out data", "prediction"]),
        (1, 5, ["training data", "held-out data", "prediction"]),
        (3, 5, ["samples"]),
    ],
)
def test_showcase(features, trained, lines):
    system = Linear(spec=RegressionReals(features=Reals(size=features), target=Reals()))
    batch = {"features": torch.randn(20, features), "target": torch.randn(20, 1)}
    if trained:
        batch |= {"training/features": torch.randn(trained, features), "training/target": torch.randn(trained, 1)}
    with torch.no_grad():
        figure = system.showcase(batch)["fit"]
    (axes,) = figure.axes
    assert axes.get_legend_handles_labels()[1] == lines


def test_an_unknown_loss_is_said():
    with pytest.raises(ValueError, match=r"^loss must be one of mse, l1, huber for real targets, got 'cross_entropy'"):
        Linear(spec=SPEC, loss="cross_entropy")
