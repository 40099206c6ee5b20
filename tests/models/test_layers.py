"""Layers that models share."""

import copy

import pytest
import torch
from torch import nn

from dlx.models.layers import (
    SyncBatchNorm,
    drop_path,
    init_kaiming,
    map_at,
    map_channels,
    maps_at,
    require_size,
    synchronize_norms,
)
from dlx.models.vision.resnet import ResNet
from dlx.models.vision.vgg import VGG
from dlx.tasks.spec import Image, Images


@pytest.mark.parametrize("shape", [(4000, 3), (4000, 3, 2, 2)])
def test_drop_path_drops_whole_samples_and_keeps_the_mean(shape):
    torch.manual_seed(0)
    x = torch.ones(shape)
    flat = drop_path(x, 0.25, training=True).flatten(1)
    assert (flat == flat[:, :1]).all()
    assert flat.unique().tolist() == pytest.approx([0, 4 / 3])
    assert flat.mean().item() == pytest.approx(1, abs=0.05)


def test_drop_path_is_the_identity_in_evaluation_and_at_rate_0():
    x = torch.randn(2, 3)
    assert drop_path(x, 0.5, training=False) is x
    assert drop_path(x, 0.0, training=True) is x


def test_init_kaiming_leaves_norms_and_zeroes_biases():
    net = nn.Sequential(nn.Conv2d(8, 512, 3), nn.BatchNorm2d(512))
    init_kaiming(net)
    assert net[0].weight.std().item() == pytest.approx((2 / 72) ** 0.5, rel=0.05)
    assert not net[0].bias.any()
    assert (net[1].weight == 1).all()


def image(height, width):
    return Image(channels=1, height=height, width=width, mean=(0.0,), std=(1.0,))


def test_images_that_are_too_small_are_named_with_their_size():
    require_size(image(8, 9), 8, "stem small")
    with pytest.raises(ValueError, match=r"^stem paper needs images of 32x32, got 40x31$"):
        require_size(image(40, 31), 32, "stem paper")


def trunks():
    torch.manual_seed(0)
    spec = Images(image=Image(channels=3, height=64, width=64, mean=(0.5,) * 3, std=(0.2,) * 3))
    return VGG(spec=spec, depth=11, width=0.1, stem="paper").eval(), ResNet(spec=spec, depth=18).eval()


def test_detectors_read_conv5_and_segmenters_pool4():
    """Both are at stride 16: Fast R-CNN pools regions in place of the last pooling (section 2.2)."""
    trunk, _ = trunks()
    x = torch.randn(1, 3, 64, 64)
    pool4 = trunk.stages[:4](x)
    conv5 = trunk.stages[4][:-1](pool4)
    assert torch.equal(map_at(trunk, x, 16), conv5)
    assert not torch.equal(conv5, pool4)
    maps = trunk.maps(x)
    assert [64 // each.shape[-1] for each in maps] == [1, 2, 2, 4, 4, 8, 8, 16, 16, 32]
    assert torch.equal(maps[7], pool4)
    assert torch.equal(maps[-1], trunk.features(x))
    assert list(map_channels(trunk, 3).values()) == [6, 13, 26, 51, 51, 51]
    assert map_channels(trunk, 3, first=True) == {1: 6, 2: 6, 4: 13, 8: 26, 16: 51, 32: 51}


@pytest.mark.parametrize("side", [96, 100, 101, 110])
def test_a_side_that_no_stride_divides_has_maps(side):
    for network in trunks():
        found = maps_at(network, torch.zeros(1, 3, side, side), (8, 16))
        assert [each.shape[-1] for each in found] == [-(-side // 16) * 2, -(-side // 16)]
        assert [each.shape[1] for each in found] == [map_channels(network, 3)[stride] for stride in (8, 16)]


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3, 5)])
def test_a_norm_of_all_processes_is_a_batch_norm_where_there_is_one(shape):
    """That of several is in contrastive/test_simclr.py."""
    own = nn.Sequential(nn.BatchNorm1d(4) if len(shape) == 2 else nn.BatchNorm2d(4))
    nn.init.normal_(own[0].weight)
    other = copy.deepcopy(own)
    synchronize_norms(other)
    assert type(other[0]) is SyncBatchNorm
    x = torch.randn(shape)
    for _ in range(2):
        assert torch.equal(own(x), other(x))
    assert all(torch.equal(a, b) for a, b in zip(own.state_dict().values(), other.state_dict().values(), strict=True))
    assert list(own.state_dict()) == list(other.state_dict())
    assert torch.equal(own.eval()(x), other.eval()(x))
    with pytest.raises(ValueError, match=r"expected \[B, C\] or \[B, C, H, W\]"):
        other.train()(torch.randn(2, 4, 3))
