import pytest
import torch
import torchvision
from torch import nn

from dlx.models.vision.resnet import Block, ResNet, Subsample


def parameters(spec, **arguments):
    with torch.device("meta"):
        return sum(p.numel() for p in ResNet(spec=spec, **arguments).parameters())


@pytest.mark.parametrize(
    ("depth", "count"),
    [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)],
)
def test_parameters_on_imagenet(depth, count, images):
    spec = images(3, 224, classes=1000)
    assert parameters(spec, depth=depth) == count
    if depth >= 50:
        assert parameters(spec, depth=depth, stride_on="3x3") == count


@pytest.mark.parametrize(("depth", "count"), [(18, 11_515_688), (34, 21_623_848)])
def test_parameters_on_imagenet_without_projections(depth, count, images):
    assert parameters(images(3, 224, classes=1000), depth=depth, shortcut="identity") == count


@pytest.mark.parametrize(
    ("depth", "identity", "projection"),
    [
        (20, 269_722, 272_474),
        (32, 464_154, 466_906),
        (44, 658_586, 661_338),
        (56, 853_018, 855_770),
        (110, 1_727_962, 1_730_714),
    ],
)
def test_parameters_on_cifar(depth, identity, projection, images):
    spec = images(3, 32)
    assert parameters(spec, depth=depth) == identity
    assert parameters(spec, depth=depth, shortcut="none") == identity
    assert parameters(spec, depth=depth, shortcut="projection") == projection


def test_projection_all_adds_one_to_every_other_block(images):
    spec = images(3, 224, classes=1000)
    # Of ResNet-18's eight blocks five keep their shape, with 64, 64, 128, 256 and 512 channels.
    added = sum(c * c + 2 * c for c in (64, 64, 128, 256, 512))
    assert parameters(spec, depth=18, shortcut="projection_all") == 11_689_512 + added


def test_depth_and_stem_follow_the_image(images):
    with torch.device("meta"):
        small, large = ResNet(spec=images(1, 63)), ResNet(spec=images(1, 64))
        narrow = ResNet(spec=images(1, 64), depth=20, stem="3x3")
    assert (len(small.stages), small.conv1.stride) == (3, (1, 1))
    assert (len(large.stages), large.conv1.stride) == (4, (2, 2))
    assert narrow.conv1.kernel_size == (3, 3)
    for system, size in ((small, 16), (large, 2), (narrow, 16)):
        assert system.features(torch.empty(1, 1, 64, 64, device="meta")).shape[-2:] == (size, size)


def named_as_here(name: str) -> str:
    """torchvision's name of a tensor -> ours."""
    if name.startswith("layer"):
        name = f"stages.{int(name[5]) - 1}{name[6:]}"
    return name.replace("downsample", "shortcut")


@pytest.fixture(scope="module", params=["resnet18", "resnet34", "resnet50"])
def pair(request, photos, randomize_norms):
    """torchvision's network with random weights and running statistics, and ours with the same."""
    torch.manual_seed(1)
    theirs = getattr(torchvision.models, request.param)(num_classes=20)
    randomize_norms(theirs)
    depth = int(request.param.removeprefix("resnet"))
    spec = photos(20)
    ours = ResNet(spec=spec, depth=depth, stride_on="3x3" if depth == 50 else "1x1")
    ours.load_state_dict({named_as_here(name): tensor for name, tensor in theirs.state_dict().items()})
    return theirs, ours


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 96), (160, 64)])
def test_logits_of_torchvision(pair, height, width, assert_same_logits):
    assert_same_logits(pair, height, width)


def test_gradients_of_torchvision(pair, assert_same_gradients):
    assert_same_gradients(pair, named_as_here)


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("shortcut", ["identity", "projection"])
def test_a_block_whose_last_norm_is_zero_is_relu(bottleneck, shortcut):
    channels = 32
    width = channels // 4 if bottleneck else channels
    block = Block(channels, width, 1, bottleneck=bottleneck, shortcut=shortcut, stride_on="1x1")
    nn.init.zeros_(block.last_norm.weight)
    x_BCHW = torch.randn(2, channels, 6, 6)
    assert torch.equal(block(x_BCHW), x_BCHW.relu())


def test_zero_init_residual_starts_every_block_as_its_shortcut(images):
    system = ResNet(spec=images(1, 8), zero_init_residual=True)
    x_BCHW = torch.randn(2, 16, 8, 8).relu()
    with torch.no_grad():
        for block in system.stages[0]:
            assert torch.equal(block(x_BCHW), x_BCHW)
    changed = [name for name, p in system.named_parameters() if name.endswith("bn2.weight") and p.any()]
    assert changed == []


def test_a_plain_network_has_no_shortcut(images):
    system = ResNet(spec=images(1, 8), shortcut="none").eval()
    for stage in system.stages:
        for block in stage:
            x_BCHW = torch.randn(2, block.conv1.in_channels, 8, 8)
            with torch.no_grad():
                inner = block.bn1(block.conv1(x_BCHW)).relu()
                assert torch.equal(block(x_BCHW), block.bn2(block.conv2(inner)).relu())
                nn.init.zeros_(block.conv2.weight)
                nn.init.zeros_(block.bn2.bias)
                block.bn2.running_mean.zero_()
                assert not block(x_BCHW).any()


def test_option_a_strides_then_pads_on_both_sides():
    x_BCHW = torch.randn(1, 4, 5, 6)
    y_BCHW = Subsample(2, 5)(x_BCHW)
    assert y_BCHW.shape == (1, 9, 3, 3)
    assert torch.equal(y_BCHW[:, 2:6], x_BCHW[:, :, [0, 2, 4]][..., [0, 2, 4]])
    assert not y_BCHW[:, [0, 1, 6, 7, 8]].any()


@pytest.mark.parametrize(("stride_on", "strides"), [("1x1", [(2, 2), (1, 1)]), ("3x3", [(1, 1), (2, 2)])])
def test_where_a_bottleneck_strides(stride_on, strides):
    block = Block(64, 32, 2, bottleneck=True, shortcut="projection", stride_on=stride_on)
    assert [block.conv1.stride, block.conv2.stride] == strides
    assert block(torch.randn(2, 64, 8, 8)).shape == (2, 128, 4, 4)


def test_he_initialization(images):
    """Standard deviation sqrt(2 / fan_out) (He et al. 2015, arXiv:1502.01852)."""
    system = ResNet(spec=images(3, 64), depth=18)
    for name, module in system.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 50_000:
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02), name


def drops(system):
    return [block.drop for stage in system.stages for block in stage]


def test_stochastic_depth_rises_linearly_to_the_last_block(images):
    with torch.device("meta"):
        assert drops(ResNet(spec=images(1, 8))) == [0.0] * 9
        found = drops(ResNet(spec=images(1, 8), stochastic_depth=0.5))
        deep = drops(ResNet(spec=images(3, 224), depth=50, stochastic_depth=0.2))
    assert found == pytest.approx([0.5 * number / 9 for number in range(1, 10)])
    assert deep == pytest.approx([0.2 * number / 16 for number in range(1, 17)])


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_dropped_block_is_its_shortcut_and_on_average_it_is_as_in_evaluation(bottleneck):
    """Batch norm in evaluation, so that only the drop is random; inputs so large that the last relu changes nothing."""
    block = Block(16, 4 if bottleneck else 16, 1, bottleneck=bottleneck, shortcut="identity", stride_on="1x1", drop=0.3)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    x_BCHW = (10 + torch.rand(1, 16, 4, 4)).expand(4000, -1, -1, -1)
    with torch.no_grad():
        y_BCHW = block(x_BCHW)
        block.eval()
        expected = block(x_BCHW[:1])
        residual = expected - x_BCHW[:1]
        assert residual.abs().max() < 7
        torch.testing.assert_close(block(x_BCHW[:2]), expected.expand(2, -1, -1, -1))
    dropped_B = (y_BCHW == x_BCHW).flatten(1).all(1)
    assert dropped_B.float().mean().item() == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 4000) ** 0.5)
    kept = y_BCHW[~dropped_B]
    torch.testing.assert_close(kept, (x_BCHW[:1] + residual / 0.7).expand_as(kept), atol=1e-4, rtol=0)
    # The mean of 4,000 draws is within four standard deviations of evaluation's output.
    torch.testing.assert_close(y_BCHW.mean(0), expected[0], atol=4 * residual.abs().max().item() * 0.0104, rtol=0)


def test_stochastic_depth_is_off_in_evaluation_and_has_no_parameters(images, noise):
    spec = images(1, 8)
    system, plain = ResNet(spec=spec, stochastic_depth=0.5), ResNet(spec=spec)
    plain.load_state_dict(system.state_dict())
    x_BCHW = noise(spec)["image"]
    with torch.no_grad():
        assert torch.equal(system.eval()(x_BCHW), plain.eval()(x_BCHW))
        assert torch.equal(plain.train()(x_BCHW), plain(x_BCHW))
        assert not torch.equal(system.train()(x_BCHW), system(x_BCHW))
