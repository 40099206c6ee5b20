"""The papers' recipes: each composes, builds at full size, and takes one training step on noise of the right shape."""

import pytest
import torch

from dlx.config import build, compose
from dlx.optim.schedules import Schedule

RECIPES = {
    "googlenet_imagenet": (224, 1000, 13_378_280, 1.6),
    "resnet_imagenet": (224, 1000, 25_557_032, 1.0),
    "densenet_imagenet": (224, 1000, 7_978_856, 1.0),
    "densenet_cifar10": (32, 10, 1_019_722, 1.0),
}


def composed(name):
    folder = ["data.path=x", "data.size=224"] if name.endswith("imagenet") else []
    return compose([f"experiment={name}", *folder])


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_takes_one_step(name, images, noise):
    height, classes, count, terms = RECIPES[name]
    config, spec = composed(name), images(3, height, classes=classes)
    with torch.device("meta"):
        system = build(config, "model", spec=spec)
    assert sum(p.numel() for p in system.parameters()) == count
    system = build(config, "model", spec=spec)
    (objective,) = system.objectives()
    loss, _ = system.training_loss(noise(spec, size=2), objective)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None for p in objective.params)
    assert loss.item() < 2 * terms * torch.tensor(classes).log().item() + 1


@pytest.mark.parametrize(
    ("name", "lr", "weight_decay", "nesterov", "batch_size", "length"),
    [
        ("googlenet_imagenet", 0.01, 2e-4, False, 32, {"epochs": 250}),
        ("resnet_imagenet", 0.1, 1e-4, False, 256, {"max_steps": 600_000}),
        ("densenet_imagenet", 0.1, 1e-4, True, 256, {"epochs": 90}),
        ("densenet_cifar10", 0.1, 1e-4, True, 64, {"epochs": 300}),
    ],
)
def test_the_papers_values(name, lr, weight_decay, nesterov, batch_size, length):
    config = composed(name)
    optimizer = config["optimizer"]
    assert (optimizer["_target_"], optimizer["momentum"], optimizer["nesterov"]) == ("torch.optim.SGD", 0.9, nesterov)
    assert (optimizer["lr"], optimizer["weight_decay"]) == (lr, weight_decay)
    assert config["dataset"]["batch_size"] == batch_size
    assert length.items() <= config["trainer"].items()
    assert config.choices["regularization"] == ["augmentation"]


def schedule_of(name) -> Schedule:
    return build(composed(name), "scheduler")


def test_googlenets_rate_falls_by_4_percent_every_8_epochs():
    schedule = schedule_of("googlenet_imagenet")
    steps = 40_000  # an epoch of ImageNet at batch 32
    for epoch in (0, 7, 8, 15, 16, 100, 249):
        assert schedule.factor(epoch * steps + 1, 250 * steps) == pytest.approx(0.96 ** (epoch // 8))


def test_densenets_rate_falls_at_epochs_30_and_60():
    schedule = schedule_of("densenet_imagenet")
    factors = [schedule.factor(epoch * 5000, 90 * 5000) for epoch in (0, 29, 30, 59, 60, 89)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
