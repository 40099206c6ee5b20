import pytest
import torch
import torchvision
from torch import nn

from dlx.models.vision.densenet import DenseBlock, DenseLayer, DenseNet, Transition


def parameters(spec, **arguments):
    with torch.device("meta"):
        return sum(p.numel() for p in DenseNet(spec=spec, **arguments).parameters())


@pytest.mark.parametrize(("depth", "count"), [(121, 7_978_856), (169, 14_149_480), (201, 20_013_928)])
def test_parameters_on_imagenet(depth, count, images):
    assert parameters(images(3, 224, classes=1000), depth=depth) == count


def test_parameters_of_depth_264_by_formula(images):
    """Blocks of 6, 12, 64, 48 at growth 32: a layer on C channels has 2 C + 128 C + 256 + 9 * 128 * 32 weights."""
    count, channels = 3 * 49 * 64 + 2 * 64, 64
    for number, layers in enumerate((6, 12, 64, 48)):
        if number:
            count += 2 * channels + channels * channels // 2
            channels //= 2
        for _ in range(layers):
            count += 2 * channels + 128 * channels + 256 + 9 * 128 * 32
            channels += 32
    count += 2 * channels + 1000 * channels + 1000
    assert parameters(images(3, 224, classes=1000), depth=264) == count == 33_337_704


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({}, 1_019_722),
        ({"depth": 100}, 769_162),
        ({"depth": 100, "bottleneck": False}, 6_979_642),
        ({"depth": 100, "bottleneck": False, "growth": 24}, 27_249_082),
        ({"depth": 250, "growth": 24}, 15_324_406),
        ({"depth": 190, "growth": 40}, 25_624_430),
    ],
)
def test_parameters_on_cifar(arguments, count, images):
    assert parameters(images(3, 32), **arguments) == count


def test_depth_and_stem_follow_the_image(images):
    with torch.device("meta"):
        small, large = DenseNet(spec=images(1, 63)), DenseNet(spec=images(1, 64))
        narrow = DenseNet(spec=images(1, 64), depth=40, stem="3x3")
    assert ([len(block) for block in small.blocks], small.conv0.stride) == ([12, 12, 12], (1, 1))
    assert ([len(block) for block in large.blocks], large.conv0.stride) == ([6, 12, 24, 16], (2, 2))
    for system, size in ((small, 16), (large, 2), (narrow, 16)):
        assert system.features(torch.empty(1, 1, 64, 64, device="meta")).shape[-2:] == (size, size)


def test_channels_grow_linearly(images):
    with torch.device("meta"):
        system = DenseNet(spec=images(1, 8), depth=100, growth=12)
    channels = 24
    for number, block in enumerate(system.blocks):
        if number:
            transition = system.transitions[number - 1]
            assert transition.conv.in_channels == channels
            channels //= 2
            assert transition.conv.out_channels == channels
        assert [layer.conv1.in_channels for layer in block] == [channels + 12 * i for i in range(16)]
        assert {layer.conv2.out_channels for layer in block} == {12}
        channels += 16 * 12
    assert system.fc.in_features == channels


@pytest.mark.parametrize(("compression", "kept"), [(1.0, 64), (0.5, 32), (0.3, 19)])
def test_compression(compression, kept, images):
    with torch.device("meta"):
        system = DenseNet(spec=images(1, 8), depth=16, compression=compression)
    assert (system.transitions[0].conv.in_channels, system.transitions[0].conv.out_channels) == (64, kept)


def layer(in_channels, growth=4, **arguments):
    return DenseLayer(
        in_channels, growth, **{"bottleneck": True, "dropout": 0.0, "memory_efficient": False, **arguments}
    )


def test_a_layer_normalizes_before_it_convolves():
    for bottleneck in (False, True):
        module = layer(6, bottleneck=bottleneck)
        maps = [torch.randn(3, 2, 5, 5), torch.randn(3, 4, 5, 5)]
        expected = module.conv1(module.norm1(torch.cat(maps, 1)).relu())
        if bottleneck:
            assert expected.shape[1] == 16
            expected = module.conv2(module.norm2(expected).relu())
        assert torch.equal(module(maps), expected)


def test_every_layer_sees_all_earlier_maps():
    block = DenseBlock(layer(8 + 4 * i) for i in range(3)).eval()
    x_BCHW = torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        before = block(x_BCHW)
        assert torch.equal(before[:, :8], x_BCHW)
        for number in range(3):
            # What layer `number` adds is kept as it is, and what later layers add depends on it.
            weight = block[number].conv2.weight.clone()
            block[number].conv2.weight.mul_(2)
            after = block(x_BCHW)
            block[number].conv2.weight.copy_(weight)
            own = slice(8 + 4 * number, 12 + 4 * number)
            assert torch.equal(after[:, : own.start], before[:, : own.start])
            torch.testing.assert_close(after[:, own], 2 * before[:, own])
            for later in range(number + 1, 3):
                changed = slice(8 + 4 * later, 12 + 4 * later)
                assert not torch.allclose(after[:, changed], before[:, changed])


def named_as_here(name: str) -> str:
    """torchvision's name of a tensor -> ours."""
    parts = name.removeprefix("features.").replace("classifier", "fc").replace("norm5", "norm").split(".")
    if parts[0].startswith("denseblock"):
        block, number = int(parts[0].removeprefix("denseblock")), int(parts[1].removeprefix("denselayer"))
        parts[:2] = ["blocks", str(block - 1), str(number - 1)]
    elif parts[0].startswith("transition"):
        parts[:1] = ["transitions", str(int(parts[0].removeprefix("transition")) - 1)]
    return ".".join(parts)


@pytest.fixture(scope="module")
def pair(photos, randomize_norms):
    """torchvision's network with random weights and running statistics, and ours with the same."""
    torch.manual_seed(1)
    theirs = torchvision.models.densenet121(num_classes=20)
    randomize_norms(theirs)
    spec = photos(20)
    ours = DenseNet(spec=spec)
    ours.load_state_dict({named_as_here(name): tensor for name, tensor in theirs.state_dict().items()})
    return theirs, ours


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 96), (100, 75), (29, 29)])
def test_logits_of_torchvision(pair, height, width, assert_same_logits):
    assert_same_logits(pair, height, width)


def test_gradients_of_torchvision(pair, assert_same_gradients):
    assert_same_gradients(pair, named_as_here)


def kept_bytes(system, batch):
    """The loss, and what its graph keeps for the gradient."""
    kept = []

    def pack(tensor):
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    (objective,) = system.objectives()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss, _ = system.training_loss(batch, objective)
    return loss, sum(kept)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_memory_efficient_changes_nothing_but_memory(bottleneck, images, noise):
    spec = images(1, 8)
    arguments = {"depth": 22, "bottleneck": bottleneck, "dropout": 0.2}
    plain, lean = (DenseNet(spec=spec, memory_efficient=lean, **arguments).double() for lean in (False, True))
    lean.load_state_dict(plain.state_dict())
    batch = noise(spec, size=4)
    batch["image"] = batch["image"].double()
    losses, kept = [], []
    for system in (plain, lean):
        torch.manual_seed(3)
        loss, size = kept_bytes(system, batch)
        loss.backward()
        losses.append(loss)
        kept.append(size)
    assert torch.equal(*losses)
    assert kept[1] < 0.8 * kept[0]
    for (name, first), second in zip(plain.named_parameters(), lean.parameters(), strict=True):
        assert first.grad.any()
        torch.testing.assert_close(second.grad, first.grad, atol=1e-12, rtol=1e-9, msg=name)
    for (name, first), second in zip(plain.named_buffers(), lean.buffers(), strict=True):
        assert torch.equal(first, second), name
    assert plain.blocks[0][0].norm1.num_batches_tracked == 1


def test_dropout_follows_each_convolution_but_the_first(images, noise):
    """With a rate of 0.5 about half of what a convolution gives is zero, and the rest twice as large."""
    x_BCHW = torch.randn(8, 6, 6, 6)
    for module, give in (
        (layer(6, dropout=0.5), lambda m: m([x_BCHW])),
        (layer(6, dropout=0.5, bottleneck=False), lambda m: m([x_BCHW])),
    ):
        assert (give(module) == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
        assert not (give(module.eval()) == 0).any()
    transition = Transition(6, 6, 0.5)
    # A 2x2 average is zero where all four are: 1/16.
    assert (transition(x_BCHW) == 0).float().mean().item() == pytest.approx(1 / 16, abs=0.03)
    system = DenseNet(spec=images(1, 8), depth=10, dropout=0.5)
    x_BCHW = noise(system.spec, size=2)["image"]
    with torch.no_grad():
        assert not torch.equal(system(x_BCHW), system(x_BCHW))
        assert torch.equal(system.eval()(x_BCHW), system(x_BCHW))


def test_he_initialization(images):
    """Standard deviation sqrt(2 / fan_in) (He et al. 2015, arXiv:1502.01852)."""
    system = DenseNet(spec=images(3, 64))
    for name, module in system.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 20_000:
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.03), name
