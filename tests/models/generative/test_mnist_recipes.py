"""The papers' recipes on binarized MNIST: composed as the papers say, and each player takes a step."""

import math

import pytest
import torch

from dlx.config import build, compose

# experiment -> parameters, binarization, samples of a batch, learning rate
RECIPES = {
    "nade_mnist": (2 * 784 * 500 + 784 + 500, "fixed", 100, 1e-3),
    "pixel_cnn_mnist": (None, "fixed", 16, 1e-4),
    "aae_mnist": (None, "dynamic", 100, 0.01),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_paper_s_recipe_takes_a_step(name):
    params, binarization, size, lr = RECIPES[name]
    config = compose([f"experiment={name}"])
    spec = build(config, "dataset").spec
    assert (config["dataset"]["binarization"], config["dataset"]["batch_size"]) == (binarization, size)
    assert config["optimizer"]["lr"] == lr
    system = build(config, "model", spec=spec)
    if params is not None:
        assert sum(p.numel() for p in system.parameters()) == params
    batch = {"image": torch.rand(2, 1, 28, 28).round(), "index": torch.arange(2)}
    for objective in system.objectives():
        loss, _ = system.training_loss(batch, objective)
        loss.backward(inputs=objective.params)
        torch.optim.SGD(objective.params, lr=lr).step()
        assert math.isfinite(loss.item())
        if name != "aae_mnist":
            assert loss.item() == pytest.approx(784 * math.log(2), rel=0.05)


def test_the_autoencoder_of_the_paper_has_two_momenta():
    config = compose(["experiment=aae_mnist"])
    players = config["optimizer"]["players"]
    assert (config["optimizer"]["momentum"], players["discriminate"]["momentum"]) == (0.9, 0.1)
    assert config["model"]["hidden"] == config["model"]["discriminator"] == [1000, 1000]
    schedule = build(config, "scheduler")
    assert [schedule.factor(epoch * 10 + 1, 15_000) for epoch in (0, 51, 1001)] == pytest.approx([1, 0.1, 0.01])
