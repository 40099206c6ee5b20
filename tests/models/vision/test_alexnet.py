import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from dlx.config import build, compose
from dlx.models.vision.alexnet import AlexNet

# torchvision's name of a layer -> ours.
NAMES = {
    "features.0": "conv1",
    "features.3": "conv2",
    "features.6": "conv3",
    "features.8": "conv4",
    "features.10": "conv5",
    "classifier.1": "fc6",
    "classifier.4": "fc7",
    "classifier.6": "fc8",
}


def named_as_here(name: str) -> str:
    layer, _, kind = name.rpartition(".")
    return f"{NAMES[layer]}.{kind}"


@pytest.mark.parametrize(("variant", "count"), [("original", 60_965_224), ("torchvision", 61_100_840)])
def test_parameters_on_imagenet(variant, count, images):
    with torch.device("meta"):
        system = AlexNet(spec=images(3, 224, classes=1000), variant=variant)
    assert sum(p.numel() for p in system.parameters()) == count


def test_shapes_of_the_paper(images):
    """Neurons as in figure 2, but for its 253,440 in the first layer, which 55 x 55 x 96 is not."""
    with torch.device("meta"):
        system = AlexNet(spec=images(3, 224, classes=1000))
        sizes = {}
        for name, layer in system.named_children():
            layer.register_forward_hook(lambda _, __, output, name=name: sizes.update({name: output.shape[1:]}))
        system(torch.empty(1, 3, 224, 224))
    neurons = [sizes[name].numel() for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")]
    assert neurons == [290_400, 186_624, 64_896, 64_896, 43_264, 4096, 4096]
    assert (sizes["pool1"], sizes["pool"]) == ((96, 27, 27), (256, 6, 6))


@pytest.fixture(scope="module")
def pair(photos):
    """torchvision's network with its own random weights, and ours on the same tensors."""
    torch.manual_seed(1)
    theirs = torchvision.models.alexnet(num_classes=10, dropout=0.0)
    with torch.device("meta"):
        ours = AlexNet(spec=photos(10), variant="torchvision", dropout=0.0)
    weights = {named_as_here(name): tensor for name, tensor in theirs.state_dict().items()}
    ours.load_state_dict(weights, assign=True)
    return theirs, ours


@pytest.mark.parametrize(("height", "width"), [(224, 224), (63, 63), (96, 160)])
def test_logits_of_torchvision(pair, height, width):
    theirs, ours = (network.eval() for network in pair)
    x_BCHW = torch.randn(2, 3, height, width)
    with torch.no_grad():
        torch.testing.assert_close(ours(x_BCHW), theirs(x_BCHW), atol=1e-5, rtol=0)


def test_gradients_of_torchvision(pair):
    theirs, ours = (network.double().train() for network in pair)
    x_BCHW, label = torch.randn(2, 3, 64, 64, dtype=torch.float64), torch.arange(2)
    expected = torch.autograd.grad(F.cross_entropy(theirs(x_BCHW), label), list(theirs.parameters()))
    found = torch.autograd.grad(F.cross_entropy(ours(x_BCHW), label), list(ours.parameters()))
    own = dict(zip(dict(ours.named_parameters()), found, strict=True))
    for name, gradient in zip(dict(theirs.named_parameters()), expected, strict=True):
        assert gradient.any()
        assert (own[named_as_here(name)] - gradient).abs().max() <= 1e-12


def test_columns_meet_in_the_third_convolution_only(images):
    """What the first half of the channels says reaches the first half of the next layer, in conv2, conv4 and conv5."""
    system = AlexNet(spec=images(1, 8))
    for name in ("conv2", "conv3", "conv4", "conv5"):
        layer = getattr(system, name)
        x_BCHW = torch.zeros(1, layer.in_channels, 4, 4)
        with torch.no_grad():
            still = layer(x_BCHW)
            x_BCHW[:, : layer.in_channels // 2] = 1.0
            changed = (layer(x_BCHW) != still).any(-1).any(-1)[0]
        half = layer.out_channels // 2
        assert changed[:half].all()
        assert changed[half:].all() == (name == "conv3")
        assert changed[half:].any() == (name == "conv3")


def test_local_response_normalization_is_the_papers(images):
    """b_c = a_c / (2 + 1e-4 * sum of a^2 over 5 neighbouring channels)^0.75 (section 3.3)."""
    a_BCHW = 30 * torch.randn(2, 9, 3, 3).relu()
    expected = torch.empty_like(a_BCHW)
    for channel in range(9):
        neighbours = a_BCHW[:, max(0, channel - 2) : channel + 3]
        expected[:, channel] = a_BCHW[:, channel] / (2 + 1e-4 * neighbours.square().sum(1)) ** 0.75
    torch.testing.assert_close(AlexNet(spec=images(1, 8)).norm(a_BCHW), expected)
    assert isinstance(AlexNet(spec=images(1, 8), variant="torchvision").norm, nn.Identity)


def test_initialization_of_the_paper(images):
    system = AlexNet(spec=images(3, 64))
    for name, parameter in system.named_parameters():
        layer, kind = name.split(".")
        if kind == "bias":
            assert torch.equal(
                parameter, torch.full_like(parameter, layer in ("conv2", "conv4", "conv5", "fc6", "fc7"))
            )
        else:
            assert parameter.std().item() == pytest.approx(0.01, rel=0.05), name


@pytest.mark.parametrize(("variant", "dropped"), [("original", [1024, 1024]), ("torchvision", [64 * 2 * 2, 1024])])
def test_dropout_is_after_the_papers_dense_layers_and_before_torchvisions(variant, dropped, images):
    system, found = AlexNet(spec=images(1, 8), variant=variant), []
    system.dropout.register_forward_hook(lambda _, inputs, __: found.append(inputs[0].shape[1]))
    system(torch.zeros(1, 1, 8, 8))
    assert found == dropped


@pytest.mark.parametrize("variant", ["original", "torchvision"])
def test_the_small_form_keeps_the_body(variant, images):
    with torch.device("meta"):
        small, paper = (AlexNet(spec=images(3, 64), variant=variant, stem=stem) for stem in ("small", "paper"))
        default = AlexNet(spec=images(3, 63), variant=variant), AlexNet(spec=images(3, 64), variant=variant)
    for system in (small, paper):
        kinds = [type(module) for module in system.modules()]
        assert (kinds.count(nn.Conv2d), kinds.count(nn.Linear)) == (5, 3)
    for name in ("conv2", "conv3", "conv4", "conv5"):
        a, b = getattr(small, name), getattr(paper, name)
        assert (a.kernel_size, a.stride, a.groups) == (b.kernel_size, b.stride, b.groups)
        assert 4 * a.out_channels == b.out_channels
    assert [system.conv1.kernel_size for system in default] == [(3, 3), (11, 11)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "caffe"}, "variant must be original or torchvision, got 'caffe'"),
        ({"stem": "7x7"}, "stem must be paper or small, got '7x7'"),
        ({"width": 0.0}, "width must be above 0, got 0.0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"stem": "paper"}, "stem paper needs images of 63x63, got 8x8"),
    ],
)
def test_wrong_arguments_are_said_on_the_meta_device_too(arguments, message, images):
    for device in ("cpu", "meta"):
        with torch.device(device), pytest.raises(ValueError, match="^" + message):
            AlexNet(spec=images(1, 8), **arguments)


def test_the_papers_recipe_steps_once(images, noise):
    config = compose(["experiment=alexnet_imagenet", "data.path=x", "data.size=224"])
    optimizer, spec = config["optimizer"], images(3, 224, classes=1000)
    assert (optimizer["lr"], optimizer["momentum"], optimizer["weight_decay"]) == (0.01, 0.9, 5e-4)
    assert (config["trainer"]["epochs"], config["dataset"]["batch_size"]) == (90, 128)
    with torch.device("meta"):
        system = build(config, "model", spec=spec)
    assert sum(p.numel() for p in system.parameters()) == 60_965_224
    system = build(config, "model", spec=spec)
    (objective,) = system.objectives()
    loss, _ = system.training_loss(noise(spec, size=1), objective)
    loss.backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in system.parameters())
