"""FCN against the published counts, the classifier that it is made of, and bilinear interpolation."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dlx.models.layers import map_channels
from dlx.models.segmentation.fcn import FCN, bilinear_kernel, upsampling
from dlx.models.vision.cnn import CNN
from dlx.models.vision.resnet import ResNet
from dlx.models.vision.vgg import VGG
from dlx.tasks.segmentation import convolutional, convolutional_head
from dlx.tasks.spec import Image, Images, Label, LabeledImages, Mask, MaskedImages


def spec(side=64, classes=4, channels=3):
    image = Image(channels=channels, height=side, width=side, mean=(0.5,) * channels, std=(0.2,) * channels)
    names = ("background", *"abcdefghijklmnopqrst"[: classes - 1])
    return MaskedImages(image=image, mask=Mask(classes=names, height=side, width=side))


def vgg(side=64, **arguments):
    return VGG(spec=Images(image=spec(side).image), **{"depth": 11, "width": 0.1, "stem": "paper", **arguments})


def small(**arguments):
    torch.manual_seed(0)
    return FCN(spec=spec(), trunk=vgg(), **{"units": 16, "kernel": 3, **arguments}).eval()


@pytest.mark.parametrize(
    ("stride", "learned", "all_of_them"),
    [(32, 134_346_581, 136_152_917), (16, 134_357_354, 134_815_994), (8, 134_362_751, 134_489_759)],
)
def test_parameters_of_the_published_networks(stride, learned, all_of_them):
    """VGG-16 and 21 classes (SYSTEMS 3): with the transposed convolutions, and without."""
    with torch.device("meta"):
        trunk = VGG(spec=Images(image=spec(224).image), depth=16, width=1.0, stem="paper")
        system = FCN(spec=spec(224, classes=21), trunk=trunk, stride=stride)
    enlarging = sum(p.numel() for part in (system.upsampling, system.last) for p in part.parameters())
    assert sum(p.numel() for p in system.parameters()) == all_of_them
    assert all_of_them - enlarging == learned


@pytest.mark.parametrize("padding", ["same", "paper"])
@pytest.mark.parametrize("stride", [32, 16, 8])
def test_the_answer_has_the_size_of_the_image(stride, padding):
    system = small(stride=stride, padding=padding, kernel=7)
    for height, width in ((16, 33), (64, 64), (70, 224)):
        with torch.no_grad():
            assert system(torch.randn(1, 3, height, width)).shape == (1, 4, height, width)


def test_a_dense_head_made_convolutional_is_the_same_classifier():
    """On the original size the same logits; on a larger image a map, whose cells are those of shifted windows."""
    torch.manual_seed(0)
    image = spec(64).image
    classifier = VGG(
        spec=LabeledImages(image=image, label=Label(classes=tuple("abcde"))), depth=11, width=0.1, stem="small"
    ).eval()
    channels = classifier.stages[-1](classifier.stages[:-1](torch.zeros(1, 3, 64, 64))).shape[1]
    head = convolutional_head([*classifier.dense, classifier.fc8], channels, 2, 2).eval()
    assert sum(p.numel() for p in head.parameters()) == sum(
        p.numel() for part in (classifier.dense, classifier.fc8) for p in part.parameters()
    )
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(head(classifier.features(x))[..., 0, 0], classifier(x), atol=1e-5)
        maps = torch.randn(1, channels, 3, 4)
        found = head(maps)
        assert found.shape == (1, 5, 2, 3)
        window = head(maps[..., 1:3, 2:4])
        assert torch.allclose(found[..., 1, 2], window[..., 0, 0], atol=1e-5)


def test_a_dense_layer_of_another_size_is_refused():
    with pytest.raises(ValueError, match="dense has 8 inputs, not 3 x 2 x 2"):
        convolutional(nn.Linear(8, 2), 3, 2, 2)


@pytest.mark.parametrize("factor", [2, 8])
def test_enlarging_begins_as_bilinear_interpolation(factor):
    scores = torch.randn(1, 3, 6, 5)
    with torch.no_grad():
        found = upsampling(3, factor)(scores)
    expected = F.interpolate(scores, scale_factor=factor, mode="bilinear", align_corners=False)
    inner = (..., slice(factor, -factor), slice(factor, -factor))  # interpolation repeats what is at the border
    assert found.shape == expected.shape
    assert torch.allclose(found[inner], expected[inner], atol=1e-5)


def test_the_bilinear_kernel():
    assert torch.equal(bilinear_kernel(4)[0] * 16, torch.tensor([1.0, 3, 3, 1]))
    assert float(bilinear_kernel(64).sum()) == pytest.approx(32**2)


def test_a_transposed_convolution_is_the_adjoint():
    """<conv x, y> = <x, conv^T y>, with the same weights."""
    torch.manual_seed(0)
    weight, x = torch.randn(4, 3, 5, 5, dtype=torch.float64), torch.randn(1, 3, 21, 17, dtype=torch.float64)
    y = torch.randn_like(F.conv2d(x, weight, stride=2))
    back = F.conv_transpose2d(y, weight, stride=2)
    assert back.shape == x.shape
    assert float((F.conv2d(x, weight, stride=2) * y).sum()) == pytest.approx(float((x * back).sum()), rel=1e-10)


def test_scores_begin_at_zero():
    system = small()
    batch = {"image": torch.randn(2, 3, 64, 64), "mask": torch.randint(0, 4, (2, 64, 64))}
    with torch.no_grad():
        loss, _ = system.training_loss(batch, system.objectives()[0])
    assert float(loss) == pytest.approx(float(torch.tensor(4.0).log()), abs=1e-6)


@pytest.mark.parametrize("trunk", [vgg(batch_norm=True), ResNet(spec=Images(image=spec().image), depth=18)])
def test_trunks_that_offer_maps(trunk):
    channels = map_channels(trunk, 3)
    assert {8, 16, 32} <= set(channels)
    system = FCN(spec=spec(), trunk=trunk, units=8, kernel=1)
    assert system.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 4, 64, 64)
    assert torch.equal(trunk.maps(torch.ones(1, 3, 64, 64))[-1], trunk.features(torch.ones(1, 3, 64, 64)))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"stride": 4}, "stride must be"),
        ({"kernel": 4}, "kernel must be odd"),
        ({"kernel": 3, "padding": "paper"}, "kernel must be 7 with padding paper"),
        ({"trunk": CNN(spec=Images(image=spec().image))}, "trunk must offer the maps of its stages"),
        ({"trunk": ResNet(spec=Images(image=spec().image), depth=20, stem="3x3")}, "stride must be at most 4"),
    ],
)  # fmt: skip
def test_what_it_refuses(arguments, text):
    with pytest.raises(ValueError, match=text):
        FCN(**{"spec": spec(), "trunk": vgg(), **arguments})


def test_it_learns_to_predict_and_is_reported(dlx_call, tmp_path):
    words = (
        "train", "model=fcn", "data.samples=60", "data.side=32", "data.extent=[0.4,0.6]", "data.objects=[1,1]",
        "data.batch_size=8", "model.trunk.width=0.1", "model.units=32", "optim.lr=1e-2", "trainer.epochs=6",
        "name=small",
    )  # fmt: skip
    call = dlx_call(*words, "--json")
    assert call.code == 0, call.err
    metrics = json.loads(call.out)["metrics"]
    assert metrics["test/pixel_accuracy"] > 0.85
    from dlx.data.shapes import Shapes

    image = Shapes(samples=20, side=32, extent=(0.4, 0.6)).splits()["train"].tensors["image"][0]
    from PIL import Image as Picture

    Picture.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "scene.png")
    call = dlx_call("predict", "small", str(tmp_path / "scene.png"))
    assert call.code == 0, call.err
    assert "background" in call.out
    report = json.loads(dlx_call("eval", "small", "--json").out)
    assert {row["class"] for row in report["per_class"]} == {"background", "circle", "square", "triangle"}
    assert any("worst" in path for path in report["pictures"])


@pytest.mark.slow
def test_it_finds_the_shapes(dlx_call):
    call = dlx_call("train", "model=fcn", "--json")
    assert call.code == 0, call.err
    assert json.loads(call.out)["metrics"]["test/miou"] >= 0.95
