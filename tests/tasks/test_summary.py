import pytest
import torch

from dlx.models.linear import Linear
from dlx.models.mlp import MLP
from dlx.models.vision.cnn import CNN
from dlx.models.vision.resnet import ResNet
from dlx.tasks.spec import Image, Label, LabeledImages, Reals, RegressionReals
from dlx.tasks.summary import summarize


def images(channels, height, classes):
    names = tuple(str(k) for k in range(classes))
    image = Image(channels=channels, height=height, width=height, mean=(0.0,) * channels, std=(1.0,) * channels)
    return LabeledImages(image=image, label=Label(classes=names))


def test_resnet_18():
    with torch.device("meta"):
        summary = summarize(ResNet(spec=images(3, 224, 1000), depth=18))
    assert summary.parameters == summary.trainable == 11_689_512
    # 1.8 billion multiply-adds (table 1 of the paper), each counted as two.
    assert summary.flops == pytest.approx(3.6e9, rel=0.02)
    assert summary.flops == 3_628_146_688
    assert sum(row.parameters for row in summary.rows) == 11_689_512
    first, last = summary.rows[0], summary.rows[-1]
    assert (first.name, first.type, first.shape, first.parameters) == ("conv1", "Conv2d", (64, 112, 112), 9_408)
    assert (last.name, last.type, last.shape, last.parameters) == ("fc", "Linear", (1000,), 513_000)


@pytest.mark.parametrize(
    ("model", "spec", "flops"),
    [
        (Linear, images(1, 8, 10), 2 * 64 * 10),
        (Linear, RegressionReals(features=Reals(size=3), target=Reals(size=2)), 2 * 3 * 2),
        (MLP, images(1, 28, 10), 2 * (784 * 128 + 128 * 10)),
        (CNN, images(1, 8, 10), 2 * (64 * 32 * 9 + 16 * 64 * 32 * 9 + 256 * 128 + 128 * 10)),
    ],
)
def test_flops_count_a_multiply_add_as_two(model, spec, flops):
    with torch.device("meta"):
        system = model(spec=spec)
    summary = summarize(system)
    assert summary.flops == flops
    assert summary.parameters == sum(p.numel() for p in system.parameters())


def test_frozen_parameters_are_told_apart():
    with torch.device("meta"):
        system = MLP(spec=images(1, 8, 10), hidden=(16,))
    system.layers[0].requires_grad_(False)
    summary = summarize(system)
    assert (summary.parameters, summary.trainable) == (64 * 16 + 16 + 170, 170)


def test_the_system_is_left_as_it_was():
    with torch.device("meta"):
        system = CNN(spec=images(1, 8, 10), dropout=0.5)
    system.net[0].eval()
    modes = [module.training for module in system.modules()]
    summarize(system)
    assert [module.training for module in system.modules()] == modes
    assert not any(module._forward_hooks for module in system.modules())
