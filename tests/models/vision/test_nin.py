import pytest
import torch
from torch import nn

from dlx.config import build, compose
from dlx.models.vision.nin import NiN, mlpconv


def shapes(system, x_BCHW):
    """Output shapes of convolutions and poolings, without the batch."""
    found = []
    for block in system.net:
        for layer in block if isinstance(block, nn.Sequential) else [block]:
            x_BCHW = layer(x_BCHW)
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
                found.append(tuple(x_BCHW.shape[1:]))
    return found


def test_parameters_and_shapes_on_cifar10(images):
    with torch.device("meta"):
        system = NiN(spec=images(3, 32))
        maps = shapes(system, torch.empty(1, 3, 32, 32))
    assert sum(p.numel() for p in system.parameters()) == 966_986
    first = [(192, 32, 32), (160, 32, 32), (96, 32, 32), (96, 16, 16)]
    second = [(192, 16, 16)] * 3 + [(192, 8, 8)]
    assert maps == [*first, *second, (192, 8, 8), (192, 8, 8), (10, 8, 8)]


@pytest.mark.parametrize(("channels", "height", "count"), [(1, 28, 957_386), (1, 8, 239_850), (3, 8, 241_578)])
def test_parameters(channels, height, count, images):
    """957,386: without two channels of 25 x 192 weights. The widths of the small form are 96, 80 and 48."""
    assert sum(p.numel() for p in NiN(spec=images(channels, height)).parameters()) == count


def test_a_1x1_convolution_is_a_dense_layer_at_each_pixel():
    block = mlpconv(3, (8, 7, 5), kernel=3).double()
    x_BCHW = torch.randn(2, 3, 6, 4, dtype=torch.float64)
    first, *rest = (layer for layer in block if isinstance(layer, nn.Conv2d))
    expected = first(x_BCHW).relu().permute(0, 2, 3, 1)
    for layer in rest:
        dense = nn.Linear(layer.in_channels, layer.out_channels).double()
        dense.weight.data, dense.bias.data = layer.weight.data[..., 0, 0], layer.bias.data
        expected = dense(expected).relu()
    torch.testing.assert_close(block(x_BCHW), expected.permute(0, 3, 1, 2), atol=1e-12, rtol=0)


def test_a_logit_is_the_mean_of_a_map_at_any_size(images):
    system = NiN(spec=images(3, 32)).eval()
    for height, width in ((32, 32), (12, 20), (64, 40)):
        x_BCHW = torch.randn(2, 3, height, width)
        with torch.no_grad():
            maps = system.features(x_BCHW)
            torch.testing.assert_close(system(x_BCHW), maps.mean((2, 3)))
        assert maps.shape == (2, 10, height // 4, width // 4)
        assert (maps >= 0).all()


def test_every_class_starts_alive(images, noise):
    """A map that is zero at each place of each image would never get a gradient."""
    for height in (8, 32):
        spec = images(1, height)
        system = NiN(spec=spec).eval()
        with torch.no_grad():
            assert (system(noise(spec)["image"]) > 0.5).all()


def test_stem_follows_the_image(images):
    with torch.device("meta"):
        small, paper = NiN(spec=images(1, 27)), NiN(spec=images(1, 28))
        chosen = NiN(spec=images(1, 27), stem="paper")
    first = [system.net[0][0] for system in (small, paper, chosen)]
    assert [layer.kernel_size for layer in first] == [(3, 3), (5, 5), (5, 5)]
    assert [layer.out_channels for layer in first] == [96, 192, 192]
    # Beside the stem only widths differ.
    for one, other in zip(list(small.modules())[4:], list(paper.modules())[4:], strict=True):
        assert getattr(one, "kernel_size", None) == getattr(other, "kernel_size", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stem": "7x7"}, "stem must be paper or small, got '7x7'"),
        ({"width": 0.0}, "width must be above 0, got 0.0"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\), got -0.1"),
        ({"stem": "paper"}, "stem paper needs images of 8x8, got 7x7"),
    ],
)
def test_wrong_arguments_are_said_on_the_meta_device_too(arguments, message, images):
    for device in ("cpu", "meta"):
        with torch.device(device), pytest.raises(ValueError, match="^" + message):
            NiN(spec=images(1, 7), **arguments)


def test_the_papers_recipe_steps_once(images, noise):
    config = compose(["experiment=nin_cifar10"])
    optimizer, spec = config["optimizer"], images(3, 32)
    assert (optimizer["momentum"], optimizer["weight_decay"], config["dataset"]["batch_size"]) == (0.9, 1e-4, 128)
    with torch.device("meta"):
        system = build(config, "model", spec=spec)
    assert sum(p.numel() for p in system.parameters()) == 966_986
    system = build(config, "model", spec=spec)
    (objective,) = system.objectives()
    loss, _ = system.training_loss(noise(spec, size=2), objective)
    loss.backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in system.parameters())
