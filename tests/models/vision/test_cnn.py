import pytest
import torch
from torch import nn

from dlx.models.vision.cnn import CNN


def shapes(system, x_BCHW):
    """Output shapes of convolutions, pooling and dense layers, without the batch."""
    found = []
    for layer in system.net:
        x_BCHW = layer(x_BCHW)
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.Linear):
            found.append(tuple(x_BCHW.shape[1:]))
    return found


@pytest.mark.parametrize("height", [28, 32])
def test_lenet5(height, images):
    spec = images(1, height)
    system = CNN(spec=spec, variant="lenet5")
    assert sum(p.numel() for p in system.parameters()) == 61_706
    maps = [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5)]
    assert shapes(system, torch.zeros(1, 1, height, height)) == [*maps, (120,), (84,), (10,)]


@pytest.mark.parametrize(("height", "count"), [(8, 53_002), (28, 421_642), (32, 544_522)])
def test_cnn(height, count, images):
    system = CNN(spec=images(1, height))
    assert sum(p.numel() for p in system.parameters()) == count
    half, quarter = height // 2, height // 4
    maps = [(32, height, height), (32, half, half), (64, half, half), (64, quarter, quarter)]
    assert shapes(system, torch.zeros(1, 1, height, height)) == [*maps, (128,), (10,)]


@pytest.mark.parametrize("variant", ["cnn", "lenet5"])
def test_features_shift_with_the_image(variant, images):
    """4 pixels are one cell after two poolings; away from the border, where zeros come in."""
    system = CNN(spec=images(1, 32), variant=variant)
    flatten = next(i for i, layer in enumerate(system.net) if isinstance(layer, nn.Flatten))
    image = torch.zeros(1, 1, 32, 32)
    image[:, :, 12:18, 12:18] = torch.randn(1, 1, 6, 6)
    with torch.no_grad():
        still, moved = (system.net[:flatten](x) for x in (image, image.roll((4, 4), (2, 3))))
    torch.testing.assert_close(moved[..., 2:-1, 2:-1], still[..., 1:-2, 1:-2])
    assert not torch.equal(moved, still)


@pytest.mark.parametrize("variant", ["cnn", "lenet5"])
def test_the_trunks_maps_make_the_outputs(variant, images):
    system = CNN(spec=images(1, 32), variant=variant).eval()
    assert {name.split(".")[0] for name in system.state_dict()} == {"net"}  # as in runs of before
    x = torch.randn(2, 1, 32, 32)
    maps = system.features(x)
    assert maps.shape == ((2, 64, 8, 8) if variant == "cnn" else (2, 16, 5, 5))
    flatten = next(i for i, layer in enumerate(system.net) if isinstance(layer, nn.Flatten))
    assert torch.equal(system.net[flatten:](maps), system(x))
    assert torch.equal(system.net(x), system(x))
