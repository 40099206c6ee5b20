"""What holds for each model: sizes, the loss before training, gradients everywhere, one batch learned by heart."""

import math
import re
from functools import partial
from pathlib import Path

import pytest
import torch

from dlx.config import compose
from dlx.config.groups import options
from dlx.models.linear import Linear
from dlx.models.mlp import MLP
from dlx.models.sequence.gru import GRU
from dlx.models.sequence.lstm import LSTM
from dlx.models.sequence.rnn import RNN
from dlx.models.vision.alexnet import AlexNet
from dlx.models.vision.cnn import CNN
from dlx.models.vision.densenet import DenseNet
from dlx.models.vision.googlenet import GoogLeNet
from dlx.models.vision.nin import NiN
from dlx.models.vision.resnet import ResNet
from dlx.models.vision.torchvision_ import Torchvision
from dlx.models.vision.vgg import VGG
from dlx.models.vision.vit import ViT

MODELS = {
    "linear": Linear,
    "mlp": MLP,
    "mlp-deep": partial(MLP, hidden=(64, 64, 64), activation="gelu"),
    "cnn": CNN,
    "lenet5": partial(CNN, variant="lenet5"),
    "resnet": ResNet,
    "resnet-B": partial(ResNet, shortcut="projection"),
    "resnet-plain": partial(ResNet, shortcut="none"),
    "resnet-50": partial(ResNet, depth=50),
    "alexnet": AlexNet,
    "alexnet-one-column": partial(AlexNet, variant="torchvision"),
    "vgg": VGG,
    "vgg-16c-norm": partial(VGG, depth="16c", batch_norm=True),
    "nin": NiN,
    "vit": ViT,
    "vit-mean": partial(ViT, pool="mean", depth=2, stochastic_depth=0.1),
    "googlenet": partial(GoogLeNet, dropout=0.0, aux_dropout=0.0),
    "densenet": partial(DenseNet, depth=16),
    "densenet-BC": partial(DenseNet, depth=22, bottleneck=True, memory_efficient=True),
    "torchvision": partial(Torchvision, arch="resnet18"),
    "rnn": RNN,
    "lstm": partial(LSTM, hidden=64, num_layers=2),
    "gru": GRU,
}
# The loss is a sum of losses of one size: GoogLeNet adds two at 0.3.
TERMS = {"googlenet": 1.6}
SIZES = [(name, *size) for name in MODELS for size in ((1, 8), (1, 28), (3, 32)) if (name, *size) != ("lenet5", 1, 8)]
every_model = pytest.mark.parametrize("name", MODELS)


WITHOUT = {
    "Ensemble": "is made of other runs",
    "Polynomial": "reads real numbers",
    "Stump": "has no gradient",
    "Timm": "is an extra, with tests of its own",
}


def test_every_shipped_model_is_here(alone):
    """Those of other kinds than classifiers are in the files of their folders, whether they read images or not."""
    targets = [compose(alone("model", name))["model"]["_target_"].rsplit(".", 2) for name in options("model")]
    folders = ("sequence", "generative", "segmentation", "detection", "contrastive")
    apart = {name for package, _, name in targets if package.removeprefix("dlx.models.") in folders}
    tested = {getattr(make, "func", make).__name__ for make in MODELS.values()}
    assert {name for _, _, name in targets} - apart == (tested - apart) | set(WITHOUT)
    files = [path for folder in folders for path in (Path(__file__).parent / folder).glob("test_*.py")]
    imports = " ".join(path.read_text() for path in files)
    imported = set(re.findall(r"\w+", " ".join(re.findall("^from dlx.* import (.*)$", imports, re.MULTILINE))))
    assert apart <= imported


def build(name, spec):
    return MODELS[name](spec=spec)


def smallest(name):
    return 24 if name == "lenet5" else 8


def loss_of(system, batch):
    (objective,) = system.objectives()
    return system.training_loss(batch, objective)[0]


@pytest.mark.parametrize(("name", "channels", "height"), SIZES)
def test_logits_at_each_size(name, channels, height, images, noise):
    spec = images(channels, height, classes=7)
    system = build(name, spec).eval()
    batch = noise(spec, size=3)
    with torch.no_grad():
        logits = system(batch[system.input_name])
    assert logits.shape == (3, 7)
    assert logits.isfinite().all()


@every_model
def test_images_need_not_be_square(name, images, noise):
    spec = images(3, 28, width=40)
    assert build(name, spec).eval()(noise(spec, size=2)["image"]).shape == (2, 10)


@every_model
def test_loss_before_training_is_that_of_a_guess(name, images, noise):
    spec = images(1, smallest(name))
    system = build(name, spec)
    loss = loss_of(system, noise(spec, size=64)).item()
    assert abs(loss / TERMS.get(name, 1.0) - math.log(10)) < 0.7


@every_model
def test_every_parameter_gets_a_gradient(name, images, noise):
    spec = images(1, smallest(name))
    system = build(name, spec)
    loss_of(system, noise(spec)).backward()
    without = [key for key, p in system.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("name", [name for name in MODELS if name != "resnet-50"])
def test_one_batch_is_learned_by_heart(name, images, noise):
    spec = images(1, smallest(name))
    system, batch = build(name, spec), noise(spec)
    optimizer = torch.optim.Adam(system.parameters(), lr=1e-2 if name in ("linear", "mlp") else 3e-3)
    for _ in range(300):
        loss = loss_of(system, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.05:
            break
    assert loss < 0.05


@every_model
def test_memory_format_changes_nothing(name, images, noise):
    spec = images(3, 24)
    system = build(name, spec).eval()
    x_BCHW = noise(spec, size=2)["image"]
    with torch.no_grad():
        expected = system(x_BCHW)
        last = system.to(memory_format=torch.channels_last)(x_BCHW.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (Linear, {"loss": "hinge"}, "loss must be one of cross_entropy, mse, l1 for class labels, got 'hinge'"),
        (MLP, {"dropout": 1.5}, r"dropout must be in \[0, 1\), got 1.5"),
        (MLP, {"dropout": -0.1}, r"dropout must be in \[0, 1\), got -0.1"),
        (MLP, {"hidden": (4, 0)}, r"hidden must hold widths of at least 1, got \[4, 0\]"),
        (MLP, {"activation": "rely"}, "activation must be one of relu, tanh, sigmoid, gelu, identity, got 'rely'"),
        (CNN, {"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        (CNN, {"variant": "lenet"}, "variant must be cnn or lenet5, got 'lenet'"),
        (CNN, {"variant": "lenet5"}, "variant lenet5 needs images of 24x24, got 8x8"),
        (ResNet, {"depth": 19}, "depth must be one of 18, 34, 50, 101, 152, 20, 32, 44, 56, 110, got 19"),
        (ResNet, {"depth": 0}, "depth must be one of .*, got 0"),
        (ResNet, {"shortcut": "A"}, "shortcut must be one of identity, projection, projection_all, none, got 'A'"),
        (ResNet, {"stem": "5x5"}, "stem must be 3x3 or 7x7, got '5x5'"),
        (ResNet, {"stride_on": "5x5"}, "stride_on must be 1x1 or 3x3, got '5x5'"),
        (ResNet, {"depth": 18, "stride_on": "3x3"}, "stride_on=3x3 is for bottlenecks"),
        (ResNet, {"zero_init_residual": True, "shortcut": "none"}, "zero_init_residual needs a shortcut"),
        (ResNet, {"stochastic_depth": 1.0}, r"stochastic_depth must be in \[0, 1\), got 1.0"),
        (ResNet, {"stochastic_depth": -0.1}, r"stochastic_depth must be in \[0, 1\), got -0.1"),
        (ResNet, {"stochastic_depth": 0.5, "shortcut": "none"}, "stochastic_depth needs a shortcut"),
        (ResNet, {"stem": "7x7"}, "depth 20 with the 7x7 stem needs images of 16x16, got 8x8"),
        (GoogLeNet, {"stem": "7x7"}, "stem must be paper or small, got '7x7'"),
        (GoogLeNet, {"stem": "paper"}, "the paper stem needs images of 32x32, got 8x8"),
        (GoogLeNet, {"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        (GoogLeNet, {"aux_dropout": -1.0}, r"aux_dropout must be in \[0, 1\), got -1.0"),
        (GoogLeNet, {"aux_weight": -0.3}, "aux_weight must be at least 0, got -0.3"),
        (GoogLeNet, {"branch3_kernel": 4}, "branch3_kernel must be 3 or 5, got 4"),
        (GoogLeNet, {"pools": "max"}, "pools must be paper or torchvision, got 'max'"),
        (GoogLeNet, {"width": 0.0}, "width must be at least 1/16, .* got 0.0"),
        (DenseNet, {"depth": 41}, r"depth must be one of 121, 169, 201, 264, or 3n \+ 4 without bottlenecks, got 41"),
        (DenseNet, {"depth": 103}, r"depth must be one of .*, or 6n \+ 4 with bottlenecks, got 103"),
        (DenseNet, {"depth": 4}, "depth must be one of .*, got 4"),
        (DenseNet, {"growth": 0}, "growth must be at least 1, got 0"),
        (DenseNet, {"compression": 0.0}, r"compression must be in \(0, 1\], got 0.0"),
        (DenseNet, {"compression": 1.5}, r"compression must be in \(0, 1\], got 1.5"),
        (DenseNet, {"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        (DenseNet, {"stem": "5x5"}, "stem must be 3x3 or 7x7, got '5x5'"),
        (DenseNet, {"stem": "7x7"}, "depth 40 with the 7x7 stem needs images of 13x13, got 8x8"),
        (DenseNet, {"depth": 100, "compression": 0.001}, "compression must leave at least one channel, got 0.001"),
    ],
)
def test_wrong_arguments_are_said_on_the_meta_device_too(model, arguments, message, images):
    for device in ("cpu", "meta"):
        with torch.device(device), pytest.raises(ValueError, match="^" + message):
            model(spec=images(1, 8), **arguments)


@pytest.mark.parametrize(
    ("model", "least"),
    [
        (CNN, 4),
        (partial(CNN, variant="lenet5"), 24),
        (ResNet, 4),
        (partial(ResNet, depth=18), 8),
        (AlexNet, 4),
        (VGG, 4),
        (NiN, 4),
        (partial(NiN, stem="paper"), 8),
        (ViT, 2),
        (partial(ViT, patch=4), 4),
        (GoogLeNet, 4),
        (partial(GoogLeNet, stem="paper", width=0.25), 32),
        (partial(DenseNet, depth=16), 4),
        (partial(DenseNet, depth=121, growth=4), 8),
        (partial(DenseNet, depth=121, growth=4, stem="7x7"), 29),
        (partial(DenseNet, depth=16, stem="7x7"), 13),
        (partial(Torchvision, arch="squeezenet1_1"), 17),
    ],
)
def test_the_smallest_image(model, least, images, noise):
    spec = images(1, least)
    assert model(spec=spec).eval()(noise(spec, size=2)["image"]).shape == (2, 10)
    with pytest.raises(ValueError, match=f"needs images of {least}x{least}, got {least - 1}x{least + 9}"):
        model(spec=images(1, least - 1, width=least + 9))


def test_dropout_is_off_in_evaluation(images, noise):
    spec = images(1, 28)
    x_BCHW = noise(spec, size=4)["image"]
    for system in (
        MLP(spec=spec, dropout=0.5),
        CNN(spec=spec, dropout=0.5),
        CNN(spec=spec, variant="lenet5", dropout=0.5),
        AlexNet(spec=spec, width=0.125),
        AlexNet(spec=spec, variant="torchvision", width=0.125),
        VGG(spec=spec, width=0.125),
        NiN(spec=spec, width=0.25),
        ViT(spec=spec),
        GoogLeNet(spec=spec, dropout=0.5),
        DenseNet(spec=spec, depth=16, dropout=0.5),
    ):
        with torch.no_grad():
            assert not torch.equal(system(x_BCHW), system(x_BCHW))
            system.eval()
            assert torch.equal(system(x_BCHW), system(x_BCHW))
