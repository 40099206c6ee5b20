import math

import pytest
import torch

from dlx.data.function1d import FUNCTIONS, Function1D


@pytest.mark.parametrize("function", FUNCTIONS)
def test_without_noise_targets_are_the_function(function):
    for source in Function1D(function=function, samples=50).splits().values():
        x, y = source.tensors["features"], source.tensors["target"]
        assert x.shape == y.shape
        assert x.dtype == y.dtype == torch.float32
        assert torch.equal(y, FUNCTIONS[function](x))


def test_the_course_function_is_sin_3_pi_x():
    assert FUNCTIONS["sin"](torch.tensor(0.5)).item() == pytest.approx(math.sin(1.5 * math.pi), abs=1e-6)


def test_noise_has_its_size_and_the_test_split_has_none():
    clean, noisy = Function1D(samples=20_000).splits(), Function1D(samples=20_000, noise=0.3).splits()
    assert torch.equal(clean["train"].tensors["features"], noisy["train"].tensors["features"])
    residual = noisy["train"].tensors["target"] - clean["train"].tensors["target"]
    assert residual.std().item() == pytest.approx(0.3, rel=0.03)
    assert residual.mean().item() == pytest.approx(0, abs=0.01)
    assert torch.equal(clean["test"].tensors["target"], noisy["test"].tensors["target"])


def test_samples_lie_in_the_range_and_test_covers_it():
    splits = Function1D(samples=300, low=2, high=5).splits()
    x, grid = splits["train"].tensors["features"], splits["test"].tensors["features"]
    assert len(x) == 300
    assert x.min() >= 2
    assert x.max() <= 5
    assert (grid[0].item(), grid[-1].item(), len(grid)) == (2, 5, 1000)


def test_data_seed_draws_the_data():
    def x(seed):
        return Function1D(data_seed=seed).splits()["train"].tensors["features"]

    assert torch.equal(x(0), x(0))
    assert not torch.equal(x(0), x(1))


@pytest.mark.parametrize(
    ("given", "name"),
    [({"function": "cosh"}, "function"), ({"samples": 1}, "samples"), ({"noise": -1}, "noise"), ({"low": 1}, "low")],
)
def test_values_out_of_range_name_their_argument(given, name):
    with pytest.raises(ValueError, match=rf"^{name} "):
        Function1D(**given)


def test_the_picture_of_a_fit_shows_what_was_trained_on(dlx_call, here, monkeypatch):
    from dlx.tasks.regression import Regression

    drawn = []
    showcase = Regression.showcase

    def look(self, output, batch):
        figure = showcase(self, output, batch)["fit"]
        drawn.append({line.get_label(): len(line.get_xdata()) for line in figure.axes[0].lines})
        return {"fit": figure}

    monkeypatch.setattr(Regression, "showcase", look)
    small = ["model=mlp", "data=function1d", "data.samples=50", "data.batch_size=9", "trainer.max_steps=2"]
    assert dlx_call("train", *small).code == 0
    assert dlx_call("eval", "@last").code == 0
    assert drawn == [{"training data": 45, "held-out data": 1000, "prediction": 1000}] * 2
