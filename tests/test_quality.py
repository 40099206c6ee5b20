"""What the systems reach, on real data: minutes each, by `make quality`."""

import json
import statistics

import pytest

from dlx.config.errors import UserError
from dlx.data.mnist import FashionMNIST

pytestmark = pytest.mark.slow


def accuracies(dlx_call, *arguments: str, seeds: int) -> list[float]:
    found = []
    for seed in range(seeds):
        call = dlx_call("train", *arguments, f"seed={seed}", "--json")
        assert call.code == 0, call.err
        found.append(json.loads(call.out)["metrics"]["test/accuracy"])
    return found


@pytest.mark.parametrize(("model", "bar"), [("linear", 0.95), ("mlp", 0.96), ("cnn", 0.97), ("resnet", 0.98)])
def test_digits(model, bar, dlx_call):
    found = accuracies(dlx_call, f"model={model}", "optim=adam", seeds=3)
    assert statistics.mean(found) >= bar, found


@pytest.fixture
def fashion_mnist():
    try:
        FashionMNIST(download=False).splits()
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("model", "epochs", "bar"), [("mlp", 10, 0.885), ("cnn", 15, 0.91)])
def test_fashion_mnist(model, epochs, bar, dlx_call, fashion_mnist):
    found = accuracies(dlx_call, f"model={model}", "data=fashion_mnist", f"trainer.epochs={epochs}", seeds=1)
    assert found[0] >= bar


def test_stacked_linear_layers_stay_linear(dlx_call):
    """The identity network ends where the linear one does, and not where the network with relu does."""
    linear, stacked, relu = (
        statistics.mean(accuracies(dlx_call, *words, "trainer.epochs=60", seeds=3))
        for words in (["model=linear"], ["model=mlp", "model.activation=identity"], ["model=mlp"])
    )
    assert abs(stacked - linear) < 0.015
    assert relu > stacked
