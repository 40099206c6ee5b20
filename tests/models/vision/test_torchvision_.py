import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from dlx.models.vision.torchvision_ import Torchvision

NAMES = models.list_models(module=models)
FEW = ("resnet18", "squeezenet1_1", "googlenet", "vit_b_32", "regnet_y_400mf", "mobilenet_v3_small", "swin_t")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments, **more):
        raise AssertionError("a download was tried")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)


def gives_logits_on_meta(arch, spec):
    with torch.device("meta"):
        system = Torchvision(spec=spec, arch=arch)
    assert {p.device.type for p in system.parameters()} == {"meta"}
    for mode in (True, False):
        logits = system.train(mode)(torch.empty(2, *spec.image.shape, device="meta"))
        assert logits.shape == (2, len(spec.label.classes))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("arch", FEW)
def test_architectures_build_on_the_meta_device(arch, channels, images):
    gives_logits_on_meta(arch, images(channels, 224, classes=7))


@pytest.mark.slow
@pytest.mark.parametrize("arch", NAMES)
def test_every_architecture_builds_on_the_meta_device(arch, images):
    gives_logits_on_meta(arch, images(1, 256 if arch.startswith("swin_v2") else 224, classes=7))


@pytest.mark.parametrize(
    ("arch", "count"), [("resnet18", 11_689_512), ("googlenet", 6_624_904), ("vit_b_16", 86_567_656)]
)
def test_parameters_on_imagenet(arch, count, images):
    with torch.device("meta"):
        system = Torchvision(spec=images(3, 224, classes=1000), arch=arch)
    assert sum(p.numel() for p in system.parameters()) == count


@pytest.mark.parametrize("arch", ["googlenet", "mobilenet_v3_small"])
def test_a_training_step(arch, images, noise):
    spec = images(1, 32)
    system, batch = Torchvision(spec=spec, arch=arch), noise(spec, size=4)
    (objective,) = system.objectives()
    system.training_loss(batch, objective)[0].backward()
    assert all(p.grad is not None for p in system.parameters())


def file_of(tmp_path, net, suffix):
    path = tmp_path / f"net{suffix}"
    if suffix == ".safetensors":
        save_file(net.state_dict(), path)
    else:
        torch.save(net.state_dict(), path)
    return str(path)


def randomized(net):
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
    return net


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_of_a_local_file(suffix, tmp_path, images):
    theirs = randomized(models.resnet18(num_classes=7)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = Torchvision(spec=images(3, 64, classes=7), weights=file_of(tmp_path, theirs, suffix)).eval()
    x_BCHW = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(x_BCHW), theirs(x_BCHW))


@pytest.mark.parametrize(
    ("channels", "new"), [(3, {"fc.weight", "fc.bias"}), (1, {"conv1.weight", "fc.weight", "fc.bias"})]
)
def test_what_does_not_fit_stays_new_and_is_named(channels, new, tmp_path, images):
    theirs = randomized(models.resnet18(num_classes=1000))
    path = file_of(tmp_path, theirs, ".safetensors")
    with pytest.warns(UserWarning, match="has no fitting .*fc.weight, fc.bias: they start anew") as caught:
        ours = Torchvision(spec=images(channels, 64, classes=7), weights=path)
    assert all(name in str(caught[0].message) for name in new)
    state = theirs.state_dict()
    assert {name for name, tensor in ours.net.state_dict().items() if not torch.equal(tensor, state[name])} == new


def test_auxiliary_heads_of_a_file_are_left_out(tmp_path, images):
    theirs = models.googlenet(num_classes=7, aux_logits=True, init_weights=False).eval()
    spec = images(3, 64, classes=7)
    ours = Torchvision(spec=spec, arch="googlenet", weights=file_of(tmp_path, theirs, ".pth")).eval()
    x_BCHW = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(x_BCHW), theirs(x_BCHW))


def test_weights_that_are_not_of_the_architecture_are_refused(tmp_path, images):
    spec = images(3, 64, classes=7)
    path = file_of(tmp_path, models.resnet34(num_classes=7), ".safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save({"model": nn.Linear(1, 1).state_dict()}, tmp_path / "nested.pth")
    torch.save(nn.Linear(1, 1), tmp_path / "object.pth")
    for device in ("cpu", "meta"):
        for weights, message in (
            (path, r"weights in .* are not of resnet18: 80 tensors differ \(such as layer1.2."),
            ("https://example.org/resnet18.pth", "weights must be a local .* there is no file https"),
            (str(tmp_path / "text.safetensors"), "weights in .* cannot be read"),
            (str(tmp_path / "object.pth"), "weights in .* cannot be read"),
            (str(tmp_path / "nested.pth"), "weights in .* must be a state dict"),
        ):
            with torch.device(device), pytest.raises(ValueError, match="^" + message):
                Torchvision(spec=spec, weights=weights)


@pytest.mark.parametrize(
    ("arch", "height", "width", "message"),
    [
        ("hf-hub:timm/resnet18", 64, 64, "arch must be a plain name such as resnet18, got 'hf-hub:timm/resnet18'"),
        ("a/resnet18", 64, 64, "arch must be a plain name such as resnet18, got 'a/resnet18'"),
        ("", 64, 64, "arch must be a plain name such as resnet18, got ''"),
        (
            "resnt18",
            64,
            64,
            f"arch must be one of torchvision's {len(NAMES)} classifiers; nearest to 'resnt18' is resnet18",
        ),
        ("fcn_resnet50", 64, 64, "arch must be one of torchvision's .* nearest to 'fcn_resnet50' is resnet50"),
        ("alexnet", 5, 5, "arch alexnet needs images of 63x63, got 5x5"),
        ("densenet121", 40, 28, "arch densenet121 needs images of 29x29, got 40x28"),
        ("vit_b_16", 40, 40, "arch vit_b_16 takes no images of 40x40: Input shape indivisible by patch size!"),
        ("vit_b_16", 32, 64, "arch vit_b_16 needs square images, got 32x64"),
        ("maxvit_t", 64, 64, "arch maxvit_t takes no images of 64x64: Input size .* is not divisible"),
    ],
)
def test_wrong_arguments_are_said_on_the_meta_device_too(arch, height, width, message, images):
    for device in ("cpu", "meta"):
        with torch.device(device), pytest.raises(ValueError, match="^" + message):
            Torchvision(spec=images(3, height, width=width), arch=arch)


def test_torchvision_is_imported_when_it_is_used():
    code = "import sys, dlx.models.vision.torchvision_; assert 'torchvision' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert torchvision.__name__ in sys.modules


def test_a_run_needs_the_file_of_its_first_weights_only_once(dlx_call, here):
    torch.save(models.squeezenet1_1(num_classes=10).state_dict(), here / "first.pth")
    words = ["model=torchvision", "model.arch=squeezenet1_1", "model.weights=first.pth", "data=image_folder"]
    for label in ("cat", "dog"):
        for number in range(12):
            path = here / "photos" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((24, 24, 3), 20 * number, np.uint8)).save(path)
    words += ["data.path=photos", "data.batch_size=4", "trainer.max_steps=2", f"data.root={here / 'kept'}"]
    assert dlx_call("train", *words).code == 0
    (here / "first.pth").unlink()
    assert dlx_call("eval", "@last").code == 0
    assert dlx_call("resume", "@last", "trainer.max_steps=4").code == 0
    call = dlx_call("train", "--from", "@last")
    assert call.code == 2
    assert "first.pth" in call.err
