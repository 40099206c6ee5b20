import pytest
import torch
import torch.nn.functional as F
import torchvision
from torchvision.models import VisionTransformer

from dlx.config import build, compose
from dlx.models.vision.vit import Block, ViT
from dlx.tasks.spec import Image, Label, LabeledImages


def parameters(spec, **arguments):
    with torch.device("meta"):
        return sum(p.numel() for p in ViT(spec=spec, **arguments).parameters())


@pytest.mark.parametrize(
    ("size", "patch", "count"),
    [
        ("tiny", 16, 5_717_416),
        ("small", 16, 22_050_664),
        ("base", 16, 86_567_656),
        ("base", 32, 88_224_232),
        ("large", 16, 304_326_632),
        ("large", 32, 306_535_400),
        ("huge", 14, 632_045_800),
    ],
)
def test_parameters_on_imagenet(size, patch, count, images):
    assert parameters(images(3, 224, classes=1000), size=size, patch=patch) == count


def test_parameters_by_part(images):
    """Digits, patches of 2x2: 4 D + D, class token D, 17 D positions, 4 blocks of 12 D^2 + 13 D, 2 D, 10 D + 10."""
    spec, D = images(1, 8), 64
    count = 5 * D + D + 17 * D + 4 * (12 * D**2 + 13 * D) + 2 * D + 10 * D + 10
    assert parameters(spec) == count == 202_186
    assert parameters(spec, pool="mean") == count - 2 * D
    assert parameters(spec, size="tiny", dim=D, depth=4, heads=8) == count
    assert parameters(spec, mlp_ratio=2) == count - 4 * (4 * D**2 + 2 * D)


def named_as_here(name: str) -> str:
    """torchvision's name of a tensor -> ours."""
    for theirs, ours in (
        ("encoder.layers.encoder_layer_", "blocks."),
        ("encoder.pos_embedding", "positions"),
        ("encoder.ln", "norm"),
        ("conv_proj", "patches"),
        ("heads.head", "head"),
        ("ln_", "norm"),
        ("self_attention.in_proj_", "attention.qkv."),
        ("self_attention.out_proj", "attention.project"),
    ):
        name = name.replace(theirs, ours)
    return name


def make_pair(theirs: VisionTransformer, height: int, **arguments) -> tuple[VisionTransformer, ViT]:
    """torchvision's network, whose head starts at zero, with a random head; and ours on the same tensors."""
    torch.nn.init.normal_(theirs.heads.head.weight, std=0.1)
    torch.nn.init.normal_(theirs.class_token, std=0.1)
    classes = tuple(map(str, range(theirs.heads.head.out_features)))
    image = Image(channels=3, height=height, width=height, mean=(0.0,) * 3, std=(1.0,) * 3)
    spec = LabeledImages(image=image, label=Label(classes=classes))
    with torch.device("meta"):
        ours = ViT(spec=spec, dropout=0.0, **arguments)
    weights = {named_as_here(name): tensor for name, tensor in theirs.state_dict().items()}
    ours.load_state_dict(weights, assign=True)
    return theirs, ours


@pytest.fixture(scope="module")
def large_pair():
    torch.manual_seed(1)
    return {
        height: make_pair(torchvision.models.vit_b_16(image_size=height, num_classes=10), height, size="base", patch=16)
        for height in (64, 224)
    }


@pytest.mark.parametrize("height", [64, 224])
def test_logits_of_torchvision(large_pair, height):
    theirs, ours = (network.eval() for network in large_pair[height])
    x_BCHW = torch.randn(2, 3, height, height)
    with torch.no_grad():
        expected, logits = theirs(x_BCHW), ours(x_BCHW)
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_gradients_of_torchvision():
    theirs, ours = make_pair(
        VisionTransformer(24, 8, num_layers=3, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=5),
        height=24,
        patch=8,
        dim=32,
        depth=3,
        heads=4,
        mlp_ratio=2.0,
    )
    x_BCHW, label = torch.randn(4, 3, 24, 24, dtype=torch.float64), torch.arange(4)
    for network in (theirs, ours):
        F.cross_entropy(network.double().train()(x_BCHW), label).backward()
    own = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(own[named_as_here(name)].grad, parameter.grad, atol=1e-12, rtol=1e-8)


def test_the_patch_convolution_is_a_dense_layer_of_each_patch(images):
    system = ViT(spec=images(3, 12, width=20), patch=4).double()
    x_BCHW = torch.randn(2, 3, 12, 20, dtype=torch.float64)
    patches_BNF = F.unfold(x_BCHW, 4, stride=4).transpose(1, 2)
    expected = F.linear(patches_BNF, system.patches.weight.flatten(1), system.patches.bias)
    assert expected.shape == (2, 15, 64)
    torch.testing.assert_close(system.embed_patches(x_BCHW), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("pool", ["class_token", "mean"])
def test_patches_are_a_set_but_for_their_positions(pool, images):
    """Shuffled with their positions, or without any, they change nothing; shuffled among their positions they do."""
    system = ViT(spec=images(1, 8), pool=pool).double().eval()
    x_BND = system.embed_patches(torch.randn(2, 1, 8, 8, dtype=torch.float64))
    order = torch.randperm(16)
    first = int(pool == "class_token")

    def read(tokens_BND):
        y_BND = system.encode(tokens_BND)
        return y_BND[:, 0] if first else y_BND.mean(1)

    with torch.no_grad():
        expected, moved = read(x_BND), read(x_BND[:, order])
        assert not torch.allclose(moved, expected, atol=1e-4)
        system.positions[:, first:] = system.positions[:, first:][:, order]
        torch.testing.assert_close(read(x_BND[:, order]), expected, atol=1e-12, rtol=0)
        system.positions[:, first:] = 0
        torch.testing.assert_close(read(x_BND[:, order]), read(x_BND), atol=1e-12, rtol=0)


def test_mean_reads_every_patch_and_has_no_class_token(images):
    system = ViT(spec=images(1, 8), pool="mean").eval()
    assert system.class_token is None
    x_BCHW = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        tokens_BND = system.features(x_BCHW)
        assert tokens_BND.shape == (2, 16, 64)
        torch.testing.assert_close(system(x_BCHW), system.head(tokens_BND.mean(1)))
        torch.testing.assert_close(tokens_BND.mean(-1), torch.zeros(2, 16), atol=1e-5, rtol=0)


def test_stochastic_depth_rises_linearly_and_keeps_the_mean(images):
    system = ViT(spec=images(1, 8), depth=5, stochastic_depth=0.4)
    assert [block.skip for block in system.blocks] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    block = Block(8, 2, 16, dropout=0.0, skip=0.25)
    y_BND = torch.randn(4000, 3, 8)
    kept = block._branch(y_BND)
    for sample, before in zip(kept, y_BND, strict=True):
        assert not sample.any() or torch.allclose(sample, before / 0.75)
    assert kept.any(-1).any(-1).float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert torch.equal(block.eval()._branch(y_BND), y_BND)


def test_a_skipped_block_passes_its_input_on():
    block = Block(8, 2, 16, dropout=0.0, skip=1 - 1e-7)
    x_BND = torch.randn(4, 3, 8)
    assert torch.equal(block(x_BND), x_BND)
    assert not torch.equal(block.eval()(x_BND), x_BND)


def test_dropout_is_off_in_evaluation(images, noise):
    spec = images(1, 8)
    x_BCHW = noise(spec, size=4)["image"]
    for arguments in ({"dropout": 0.5}, {"dropout": 0.0, "stochastic_depth": 0.5}):
        system = ViT(spec=spec, **arguments)
        with torch.no_grad():
            assert not torch.equal(system(x_BCHW), system(x_BCHW))
            system.eval()
            assert torch.equal(system(x_BCHW), system(x_BCHW))


@pytest.mark.parametrize(("height", "patch", "dim"), [(8, 2, 64), (28, 4, 64), (32, 4, 64), (64, 16, 768)])
def test_size_and_patch_follow_the_image(height, patch, dim, images):
    with torch.device("meta"):
        system = ViT(spec=images(1, height))
    assert system.patches.kernel_size == (patch, patch)
    assert system.head.in_features == dim


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "giant"}, "size must be one of mini, tiny, small, base, large, huge, got 'giant'"),
        ({"pool": "max"}, "pool must be class_token or mean, got 'max'"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"stochastic_depth": -0.1}, r"stochastic_depth must be in \[0, 1\), got -0.1"),
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"mlp_ratio": 0.0}, "mlp_ratio must be above 0, got 0.0"),
        ({"heads": 5}, r"heads must divide dim \(64\), got 5"),
        ({"patch": 3}, "patch must divide the image's 8x8, got 3"),
        ({"patch": 16}, "patch 16 needs images of 16x16, got 8x8"),
    ],
)
def test_wrong_arguments_are_said_on_the_meta_device_too(arguments, message, images):
    for device in ("cpu", "meta"):
        with torch.device(device), pytest.raises(ValueError, match="^" + message):
            ViT(spec=images(1, 8), **arguments)


def test_the_papers_recipe_steps_once(images, noise):
    config = compose(["experiment=vit_imagenet", "data.path=x", "data.size=224"])
    optimizer, trainer, spec = config["optimizer"], config["trainer"], images(3, 224, classes=1000)
    assert (optimizer["lr"], optimizer["betas"], optimizer["weight_decay"]) == (3e-3, [0.9, 0.999], 0.3)
    assert (config["dataset"]["batch_size"], trainer["epochs"], trainer["clip_norm"]) == (4096, 300, 1.0)
    with torch.device("meta"):
        system = build(config, "model", spec=spec)
    assert sum(p.numel() for p in system.parameters()) == 86_567_656
    system = build(config, "model", spec=spec)
    (objective,) = system.objectives()
    loss, _ = system.training_loss(noise(spec, size=1), objective)
    loss.backward()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in system.parameters())


def test_attention_is_what_the_fused_kernel_computes(images, noise):
    spec = images(1, 8)
    system = ViT(spec=spec).eval()
    image = noise(spec, size=3)["image"]
    with torch.no_grad():
        maps = system.attention(image)
        assert [tuple(m.shape) for m in maps] == [(3, 4, 17, 17)] * 4
        assert all((m.sum(-1) - 1).abs().max() < 1e-5 for m in maps)
        block, x_BND = system.blocks[0], system._place(system.embed_patches(image))
        normed = block.norm1(x_BND)
        v_BANE = block.attention._split(normed)[2]
        by_hand = block.attention.project((maps[0] @ v_BANE).transpose(1, 2).flatten(2))
        torch.testing.assert_close(block.attention(normed), by_hand, atol=1e-6, rtol=1e-5)
