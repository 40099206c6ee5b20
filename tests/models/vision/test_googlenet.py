import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from dlx.models.vision.googlenet import BLOCKS, AuxiliaryHead, GoogLeNet, Inception

PAPER = {
    "3a": (256, 163_696),
    "3b": (480, 388_736),
    "4a": (512, 376_176),
    "4b": (512, 449_160),
    "4c": (512, 510_104),
    "4d": (528, 605_376),
    "4e": (832, 868_352),
    "5a": (832, 1_043_456),
    "5b": (1024, 1_444_080),
}
PARTS = ("loss_main", "loss_aux1", "loss_aux2")
AS_TORCHVISION = {"branch3_kernel": 3, "batch_norm": True, "pools": "torchvision"}


def count(module):
    return sum(p.numel() for p in module.parameters())


def loss_of(system, batch):
    (objective,) = system.objectives()
    return system.training_loss(batch, objective)


@pytest.mark.parametrize(
    ("arguments", "parameters"),
    [
        ({}, 13_378_280),
        ({"aux_heads": False}, 6_998_552),
        ({"branch3_kernel": 3, "batch_norm": True}, 13_004_888),
        ({"branch3_kernel": 3, "batch_norm": True, "aux_heads": False}, 6_624_904),
    ],
)
def test_parameters_on_imagenet(arguments, parameters, images):
    with torch.device("meta"):
        assert count(GoogLeNet(spec=images(3, 224, classes=1000), **arguments)) == parameters


def test_parameters_of_each_block(images):
    with torch.device("meta"):
        system = GoogLeNet(spec=images(3, 224, classes=1000))
    assert {name: (block.out_channels, count(block)) for name, block in system.blocks.items()} == PAPER


def sizes(system):
    with torch.no_grad():
        maps = system._maps(torch.empty(1, *system.spec.image.shape, device="meta"))
    return {name: x_BCHW.shape[-1] for name, x_BCHW in maps.items()}


@pytest.mark.parametrize("pools", ["paper", "torchvision"])
@pytest.mark.parametrize(("height", "thirds", "fourths", "fifths"), [(224, 28, 14, 7), (8, 8, 4, 2), (32, 32, 16, 8)])
def test_sizes_of_the_maps(pools, height, thirds, fourths, fifths, images):
    with torch.device("meta"):
        found = sizes(GoogLeNet(spec=images(3, height), pools=pools))
    expected = {"3": thirds, "4": fourths, "5": fifths}
    assert found == {name: expected[name[0]] for name in BLOCKS}


def test_small_images_change_stem_and_width_only(images):
    with torch.device("meta"):
        small, large = GoogLeNet(spec=images(1, 63)), GoogLeNet(spec=images(1, 64))
        forced = GoogLeNet(spec=images(1, 32), stem="paper", width=1.0)
    assert (small.stem[0][0].kernel_size, large.stem[0][0].kernel_size) == ((3, 3), (7, 7))
    assert [4 * block.out_channels for block in small.blocks.values()] == [channels for channels, _ in PAPER.values()]
    assert [block.out_channels for block in large.blocks.values()] == [channels for channels, _ in PAPER.values()]
    assert count(forced) == count(large)


@pytest.mark.parametrize(
    ("height", "arguments", "expected"),
    [(64, {}, 2), (64, {"lrn": False}, 0), (64, {"batch_norm": True}, 0), (8, {}, 0), (8, {"lrn": True}, 2)],
)
def test_local_response_normalization(height, arguments, expected, images):
    with torch.device("meta"):
        system = GoogLeNet(spec=images(1, height), **arguments)
    assert sum(isinstance(module, nn.LocalResponseNorm) for module in system.modules()) == expected


def test_batch_norm_follows_each_convolution_in_place_of_its_bias(images):
    with torch.device("meta"):
        systems = [GoogLeNet(spec=images(1, 8), batch_norm=batch_norm) for batch_norm in (False, True)]
    for system, norms, biases in zip(systems, (0, 3 + 9 * 6 + 2), (3 + 9 * 6 + 2, 0), strict=True):
        assert sum(isinstance(module, nn.BatchNorm2d) for module in system.modules()) == norms
        assert sum(isinstance(m, nn.Conv2d) and m.bias is not None for m in system.modules()) == biases


def test_a_block_is_its_four_branches():
    """The channels of each branch by hand, and that each has the window its name says."""
    block = Inception(5, (2, 3, 4, 1, 6, 7))
    x_BCHW = torch.zeros(1, 5, 9, 9)
    empty = block(x_BCHW)
    x_BCHW[..., 4, 4] = 10.0
    changed = (block(x_BCHW) - empty).abs().detach() > 0
    reach = [part.any(1).sum().item() for part in changed.split([2, 4, 6, 7], dim=1)]
    assert changed.shape[1] == block.out_channels == 19
    assert [r <= limit for r, limit in zip(reach, (1, 9, 25, 9), strict=True)] == [True] * 4
    assert reach[2] > 9


def test_auxiliary_head_averages_5x5_windows_at_stride_3():
    arguments = {"dropout": 0.0, "batch_norm": False}
    paper, ours = (AuxiliaryHead(6, 1.0, 10, any_size=any_size, **arguments) for any_size in (False, True))
    ours.load_state_dict(paper.state_dict())
    x_BCHW = torch.randn(2, 6, 14, 14)
    corners = torch.stack(
        [x_BCHW[..., i : i + 5, j : j + 5].mean((2, 3)) for i in (0, 3, 6, 9) for j in (0, 3, 6, 9)], 2
    )
    with torch.no_grad():
        expected = ours(corners.view(2, 6, 4, 4))
        torch.testing.assert_close(paper(x_BCHW), expected)
        assert not torch.allclose(ours(x_BCHW), expected)


def named_as_here(name: str) -> str:
    """torchvision's name of a tensor -> ours."""
    name = name.replace("inception", "blocks.").replace("aux1", "heads.4a").replace("aux2", "heads.4d")
    if not name.startswith(("heads", "blocks")):
        name = name.replace("conv1.", "stem.0.").replace("conv2.", "stem.3.").replace("conv3.", "stem.4.")
    return name.replace("conv.weight", "0.weight").replace("bn.", "1.")


@pytest.fixture(scope="module")
def pair(photos, randomize_norms):
    """torchvision's network with random weights and running statistics, and ours with the same."""

    torch.manual_seed(1)
    theirs = torchvision.models.googlenet(num_classes=20, init_weights=False, aux_logits=True)
    randomize_norms(theirs)
    for module in theirs.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    spec = photos(20)
    ours = GoogLeNet(spec=spec, dropout=0.0, aux_dropout=0.0, **AS_TORCHVISION)
    ours.load_state_dict({named_as_here(name): tensor for name, tensor in theirs.state_dict().items()})
    return theirs, ours


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 96), (100, 75), (224, 224)])
def test_logits_of_torchvision(pair, height, width, assert_same_logits):
    assert_same_logits(pair, height, width)


def test_loss_and_gradients_of_torchvision(pair):
    """In float64, with both auxiliary losses at 0.3."""
    theirs, ours = (network.double().train() for network in pair)
    batch = {"image": torch.randn(3, 3, 64, 64, dtype=torch.float64), "label": torch.arange(3)}
    for network in (theirs, ours):
        network.zero_grad()
    logits, aux2, aux1 = theirs(batch["image"])
    main, first, second = (F.cross_entropy(output, batch["label"]) for output in (logits, aux1, aux2))
    expected = main + 0.3 * first + 0.3 * second
    loss, logs = loss_of(ours, batch)
    torch.testing.assert_close(loss, expected, atol=1e-10, rtol=0)
    found = [logs[name].item() for name in PARTS]
    assert found == pytest.approx([main.item(), first.item(), second.item()])
    expected.backward()
    loss.backward()
    own = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(own[named_as_here(name)].grad, parameter.grad, atol=1e-10, rtol=1e-6)
    for network in (theirs, ours):
        network.float()


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_weight_of_the_auxiliary_losses(weight, images, noise):
    spec = images(1, 8)
    system = GoogLeNet(spec=spec, aux_weight=weight)
    loss, logs = loss_of(system, noise(spec))
    assert not any(value.requires_grad for value in logs.values())
    assert len({logs[name].item() for name in PARTS}) == 3
    torch.testing.assert_close(
        loss.detach(), logs["loss_main"] + weight * logs["loss_aux1"] + weight * logs["loss_aux2"]
    )


def test_auxiliary_heads_are_for_training_only(images, noise):
    spec = images(1, 8)
    system, batch = GoogLeNet(spec=spec), noise(spec)
    assert system(batch["image"]).shape == (16, 10)
    system.eval()
    with torch.no_grad():
        loss, logs = loss_of(system, batch)
        assert not logs.keys() & set(PARTS)
        assert loss == F.cross_entropy(system(batch["image"]), batch["label"])
        for head in system.heads.values():
            nn.init.constant_(head.fc2.bias, float("nan"))
        assert system.metrics(system.evaluate(batch))["loss"] == pytest.approx(loss.item(), abs=1e-6)
    without = GoogLeNet(spec=spec, aux_heads=False)
    assert not loss_of(without, batch)[1].keys() & set(PARTS)
    assert {n for n, _ in system.named_parameters()} - {n for n, _ in without.named_parameters()} == {
        n for n, _ in system.named_parameters() if n.startswith("heads.")
    }


def test_an_auxiliary_loss_reaches_the_blocks_below_its_head_only(images, noise):
    spec = images(1, 8)
    system, batch = GoogLeNet(spec=spec), noise(spec)
    maps = system._maps(batch["image"])
    F.cross_entropy(system.heads["4a"](maps["4a"]), batch["label"]).backward()
    reached = [name for name, block in system.blocks.items() if block.branch1[0].weight.grad is not None]
    assert reached == ["3a", "3b", "4a"]


def test_the_papers_network_starts_as_a_guess(images, noise):
    """Without batch norm: through 22 layers signals neither blow up nor die, and all three classifiers know nothing."""
    spec = images(3, 64)
    system, batch = GoogLeNet(spec=spec), noise(spec, size=4)
    _, logs = loss_of(system, batch)
    assert [logs[name].item() for name in PARTS] == pytest.approx([math.log(10)] * 3, abs=0.5)
    with torch.no_grad():
        deviations = [x_BCHW.std().item() for x_BCHW in system._maps(batch["image"]).values()]
    assert 0.1 < min(deviations) < max(deviations) < 1
