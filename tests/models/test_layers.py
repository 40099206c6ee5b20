"""Layers that models share."""

import pytest
import torch
from torch import nn

from dlx.models.layers import drop_path, init_kaiming, require_size
from dlx.tasks.spec import Image


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
