import importlib.util
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dlx.models.vision.timm_ import Timm

INSTALLED = importlib.util.find_spec("timm") is not None


@pytest.mark.skipif(INSTALLED, reason="timm is installed")
def test_without_timm_the_message_says_how_to_get_it(images):
    for device in ("cpu", "meta"):
        with (
            torch.device(device),
            pytest.raises(ValueError, match=r"^arch resnet18 needs timm: pip install 'dlx\[vision\]'"),
        ):
            Timm(spec=images(1, 8), arch="resnet18")


@pytest.mark.parametrize("arch", ["hf-hub:timm/resnet18", "hf_hub:x", "local-dir:/tmp/x", "a/resnet18"])
def test_names_of_places_are_refused_before_timm_sees_them(arch, images):
    with pytest.raises(ValueError, match=f"^arch must be a plain name such as resnet18, got '{arch}'"):
        Timm(spec=images(1, 8), arch=arch)


@pytest.fixture
def stand_in(monkeypatch):
    """A module with the four functions of timm that dlx calls; it notes how."""
    calls = []

    def create_model(arch, *, pretrained, num_classes, in_chans, img_size=None):
        calls.append({"arch": arch, "pretrained": pretrained, "img_size": img_size})
        if img_size is not None and img_size[0] % 4:
            raise AssertionError("not divisible\nby 4")
        net = nn.Sequential(
            nn.Conv2d(in_chans, 4, 4, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes)
        )
        net.pretrained_cfg = {"first_conv": "0", "classifier": ("3",)}
        return net

    module = SimpleNamespace(
        list_models=lambda: ["resnet18", "vit_tiny"],
        get_pretrained_cfg=lambda arch: SimpleNamespace(fixed_input_size=arch == "vit_tiny"),
        create_model=create_model,
    )
    monkeypatch.setitem(sys.modules, "timm", module)
    return calls


def test_nothing_pretrained_is_asked_for(stand_in, images, noise):
    spec = images(1, 8)
    for arch, size in (("resnet18", None), ("vit_tiny", (8, 8))):
        stand_in.clear()
        assert Timm(spec=spec, arch=arch)(noise(spec, size=2)["image"]).shape == (2, 10)
        assert stand_in == [{"arch": arch, "pretrained": False, "img_size": size}] * 2


@pytest.mark.parametrize(
    ("arch", "height", "message"),
    [
        ("resnet81", 8, "arch must be one of timm's 2 classifiers; nearest to 'resnet81' is resnet18"),
        ("vit_tiny", 9, "arch vit_tiny takes no images of 9x9: not divisible$"),
        ("resnet18", 3, "arch resnet18 takes no images of 3x3: "),
    ],
)
def test_wrong_arguments(stand_in, arch, height, message, images):
    with pytest.raises(ValueError, match="^" + message):
        Timm(spec=images(1, height), arch=arch)


def test_weights_of_a_local_file(stand_in, tmp_path, images):
    path = str(tmp_path / "net.safetensors")
    first = Timm(spec=images(3, 8, classes=5))
    save_file(first.net.state_dict(), path)
    second = Timm(spec=images(3, 8, classes=5), weights=path)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with pytest.warns(UserWarning, match=r"no fitting 3.weight, 3.bias: they start anew"):
        third = Timm(spec=images(3, 8, classes=6), weights=path)
    assert torch.equal(third.net[0].weight, first.net[0].weight)
    with pytest.warns(UserWarning, match=r"no fitting 0.weight: they start anew"):
        fourth = Timm(spec=images(1, 8, classes=5), weights=path)
    assert torch.equal(fourth.net[3].weight, first.net[3].weight)


@pytest.mark.parametrize(("arch", "channels", "height"), [("resnet18", 1, 8), ("vit_tiny_patch16_224", 3, 32)])
def test_timm(arch, channels, height, images, noise, tmp_path):
    timm = pytest.importorskip("timm")
    spec = images(channels, height, classes=7)
    with torch.device("meta"):
        Timm(spec=spec, arch=arch)
    theirs = timm.create_model(arch, pretrained=False, num_classes=7, in_chans=channels)
    if arch == "resnet18":
        save_file(theirs.state_dict(), tmp_path / "net.safetensors")
        ours = Timm(spec=spec, arch=arch, weights=str(tmp_path / "net.safetensors")).eval()
        x_BCHW = noise(spec, size=2)["image"]
        assert torch.equal(ours(x_BCHW), theirs.eval()(x_BCHW))
    system = Timm(spec=spec, arch=arch)
    loss, _ = system.training_loss(noise(spec, size=4), system.objectives()[0])
    loss.backward()
    assert loss.isfinite()
