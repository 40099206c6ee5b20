import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from dlx.config import build, compose
from dlx.models.vision.vgg import VGG

DEPTHS = [11, 13, 16, "16c", 19]


def parameters(spec, **arguments):
    with torch.device("meta"):
        return sum(p.numel() for p in VGG(spec=spec, **arguments).parameters())


# Three of the 16 convolutions of configuration C are 1x1: 8 weights less for each pair of their channels, beside D.
C = 138_357_544 - 8 * (256**2 + 512**2 + 512**2)


@pytest.mark.parametrize(
    ("depth", "count", "with_norm"),
    [
        (11, 132_863_336, 132_868_840),
        (13, 133_047_848, 133_053_736),
        (16, 138_357_544, 138_365_992),
        ("16c", C, C + 8_448),
        (19, 143_667_240, 143_678_248),
    ],
)
def test_parameters_on_imagenet(depth, count, with_norm, images):
    spec = images(3, 224, classes=1000)
    assert parameters(spec, depth=depth) == count
    assert parameters(spec, depth=depth, batch_norm=True) == with_norm


def test_configuration_c_has_the_papers_134_million(images):
    assert C == 133_638_952
    with torch.device("meta"):
        stages = VGG(spec=images(3, 224), depth="16c").stages
    kernels = [[m.kernel_size[0] for m in stage if isinstance(m, nn.Conv2d)] for stage in stages]
    assert kernels == [[3, 3], [3, 3], [3, 3, 1], [3, 3, 1], [3, 3, 1]]


def test_the_convolutions_of_vgg_16(images):
    with torch.device("meta"):
        system = VGG(spec=images(3, 224), depth=16)
        maps = system.features(torch.empty(1, 3, 224, 224))
    assert sum(p.numel() for p in system.stages.parameters()) == 14_714_688
    assert maps.shape == (1, 512, 7, 7)


def layers_by_stage(theirs: nn.Module) -> dict[str, str]:
    """torchvision's name of a layer -> ours; its stages end with their poolings."""
    names, stage, number = {}, 0, 0
    for position, layer in enumerate(theirs.features):
        names[f"features.{position}"] = f"stages.{stage}.{number}"
        stage, number = (stage + 1, 0) if isinstance(layer, nn.MaxPool2d) else (stage, number + 1)
    return {**names, "classifier.0": "dense.0", "classifier.3": "dense.3", "classifier.6": "fc8"}


@pytest.fixture(scope="module")
def pair(photos, randomize_norms):
    """torchvision's vgg16_bn with its own random weights and running statistics, ours on the same tensors; name map."""
    torch.manual_seed(1)
    theirs = torchvision.models.vgg16_bn(num_classes=10, dropout=0.0)
    randomize_norms(theirs)
    spec = photos(10)
    with torch.device("meta"):
        ours = VGG(spec=spec, depth=16, batch_norm=True, dropout=0.0)
    layers = layers_by_stage(theirs)
    names = {name: f"{layers[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}" for name in theirs.state_dict()}
    ours.load_state_dict({names[name]: tensor for name, tensor in theirs.state_dict().items()}, assign=True)
    return theirs, ours, names


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 32), (96, 160), (224, 224)])
def test_logits_of_torchvision(pair, height, width):
    theirs, ours, _ = pair
    x_BCHW = torch.randn(1, 3, height, width)
    with torch.no_grad():
        expected, logits = theirs.eval()(x_BCHW), ours.eval()(x_BCHW)
    assert expected.std() > 0.01
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_gradients_of_torchvision(pair):
    """Of all convolutions and norms, in float64; the dense layers (120 million weights) are left out for memory."""
    theirs, ours, names = pair
    x_BCHW = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    weight_BCHW = torch.randn(2, 512, 2, 2, dtype=torch.float64)
    theirs_part, ours_part = theirs.features.double().train(), ours.stages.double().train()
    expected = torch.autograd.grad((theirs_part(x_BCHW) * weight_BCHW).sum(), list(theirs_part.parameters()))
    found = torch.autograd.grad((ours.features(x_BCHW) * weight_BCHW).sum(), list(ours_part.parameters()))
    own = dict(zip((f"stages.{name}" for name, _ in ours_part.named_parameters()), found, strict=True))
    for (name, _), gradient in zip(theirs_part.named_parameters(), expected, strict=True):
        torch.testing.assert_close(own[names[f"features.{name}"]], gradient, atol=1e-10, rtol=1e-8)


def test_two_3x3_convolutions_see_5x5_and_three_7x7():
    """A pixel's influence on the middle of an image, through convolutions of ones."""
    for count, side in ((2, 5), (3, 7)):
        x = torch.zeros(1, 1, 11, 11, requires_grad=True)
        y = x
        for _ in range(count):
            y = F.conv2d(y, torch.ones(1, 1, 3, 3), padding=1)
        y[0, 0, 5, 5].backward()
        assert (x.grad != 0).sum() == side**2


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_small_form_keeps_the_body(depth, images):
    """All convolutions in five stages; poolings until the last maps have a pixel, left out of the first stages."""
    with torch.device("meta"):
        paper = VGG(spec=images(3, 64), depth=depth, stem="paper")
        for side, poolings in ((4, 2), (8, 3), (28, 4), (32, 5), (63, 5)):
            small = VGG(spec=images(3, side), depth=depth)
            assert len(small.stages) == 5
            for stage, (a, b) in enumerate(zip(small.stages, paper.stages, strict=True)):
                convolutions = [[m for m in s if isinstance(m, nn.Conv2d)] for s in (a, b)]
                for one, other in zip(*convolutions, strict=True):
                    assert (one.kernel_size, 4 * one.out_channels) == (other.kernel_size, other.out_channels)
                assert isinstance(a[-1], nn.MaxPool2d) == (stage >= 5 - poolings)
            last = side >> poolings
            assert small.features(torch.empty(1, 3, side, side)).shape == (1, 128, last, last)
            assert last == 1


def test_depth_follows_the_image(images):
    with torch.device("meta"):
        counts = [
            sum(isinstance(m, nn.Conv2d) for m in VGG(spec=images(1, height)).modules()) for height in (8, 63, 64)
        ]
    assert counts == [8, 8, 13]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 12}, "depth must be one of 11, 13, 16, 16c, 19, got 12"),
        ({"stem": "7x7"}, "stem must be paper or small, got '7x7'"),
        ({"width": -1.0}, "width must be above 0, got -1.0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"stem": "paper"}, "stem paper needs images of 32x32, got 8x8"),
    ],
)
def test_wrong_arguments_are_said_on_the_meta_device_too(arguments, message, images):
    for device in ("cpu", "meta"):
        with torch.device(device), pytest.raises(ValueError, match="^" + message):
            VGG(spec=images(1, 8), **arguments)


def test_the_papers_recipe(images):
    config = compose(["experiment=vgg_imagenet", "data.path=x", "data.size=224"])
    optimizer = config["optimizer"]
    assert (optimizer["lr"], optimizer["momentum"], optimizer["weight_decay"]) == (0.01, 0.9, 5e-4)
    assert (config["trainer"]["epochs"], config["dataset"]["batch_size"]) == (74, 256)
    with torch.device("meta"):
        system = build(config, "model", spec=images(3, 224, classes=1000))
    assert sum(p.numel() for p in system.parameters()) == 138_357_544


def test_the_papers_recipe_steps_once(images, noise):
    config = compose(["experiment=vgg_imagenet", "data.path=x", "data.size=224"])
    spec = images(3, 224, classes=1000)
    system = build(config, "model", spec=spec)
    (objective,) = system.objectives()
    loss, _ = system.training_loss(noise(spec, size=1), objective)
    loss.backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in system.parameters())
