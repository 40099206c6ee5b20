"""FPN against torchvision's with the same weights, and the levels of regions against MultiScaleRoIAlign's."""

import json
import math

import pytest
import torch
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from dlx.models.detection.faster_rcnn import FasterRCNN
from dlx.models.detection.fpn import FPN, STRIDES
from dlx.models.detection.regions import RegionHead, level_of
from dlx.models.layers import maps_at
from dlx.models.vision.resnet import ResNet
from dlx.models.vision.vgg import VGG
from dlx.tasks.spec import BoxedImages, Boxes, Image, Images

IMAGE = Image(channels=3, height=128, width=128, mean=(0.5,) * 3, std=(0.2,) * 3)


def vgg(**arguments):
    torch.manual_seed(0)
    return VGG(spec=Images(image=IMAGE), **{"depth": 11, "width": 0.1, "stem": "paper", **arguments})


def small(**arguments):
    spec = BoxedImages(image=IMAGE, boxes=Boxes(classes=("a", "b"), most=2))
    given = {
        "fpn": 8, "sizes": (8, 16, 32, 64, 128), "channels": 8, "units": 16, "proposals": (40, 30), "regions": 16,
        "canonical": 56, "anchors_sampled": 32,
    }  # fmt: skip
    return FasterRCNN(spec=spec, trunk=vgg(), **{**given, **arguments})


@pytest.mark.parametrize("sides", [(128, 128), (96, 160), (112, 72)])
def test_the_top_down_path_is_that_of_torchvision(sides):
    """Also where a map is not twice the side of the next one."""
    fpn = FPN(trunk=vgg(), in_channels=3, channels=8)
    widths = [layer.in_channels for layer in fpn.lateral]
    reference = FeaturePyramidNetwork(widths, 8, LastLevelMaxPool())
    state = {}
    for own, theirs in (("lateral", "inner_blocks"), ("output", "layer_blocks")):
        for name, value in getattr(fpn, own).state_dict().items():
            number, kind = name.split(".")
            state[f"{theirs}.{number}.0.{kind}"] = torch.nn.init.normal_(value.clone(), std=0.3)
            getattr(fpn, own).state_dict()[name].copy_(state[f"{theirs}.{number}.0.{kind}"])
    reference.load_state_dict(state)
    x = torch.randn(2, 3, *sides)
    with torch.no_grad():
        found = fpn.maps(x)
        expected = reference({str(n): each for n, each in enumerate(maps_at(fpn.trunk, x, STRIDES))})
    assert [each.shape for each in found] == [each.shape for each in expected.values()]
    for own, theirs in zip(found, expected.values(), strict=True):
        assert torch.allclose(own, theirs, atol=1e-5)


def test_levels_of_the_paper():
    """k = floor(4 + log2(sqrt(w h) / 224)), of P2 to P5."""
    sides = torch.tensor([1.0, 30, 111, 112, 223, 224, 447, 448, 2000])
    wide = torch.stack([sides * 0, sides * 0, sides * 2, sides / 2], -1)
    expected = [min(max(math.floor(4 + math.log2(side / 224) + 1e-6), 2), 5) - 2 for side in sides.tolist()]
    assert level_of(wide, STRIDES, 224).tolist() == expected == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert level_of(wide, (16,), 224).tolist() == [0] * 9


def test_regions_are_pooled_from_the_maps_that_torchvision_chooses():
    torch.manual_seed(0)
    images = 2
    maps = [torch.randn(images, 6, 512 // stride, 512 // stride) for stride in STRIDES]
    side = 32 + torch.rand(images, 40, 1) ** 2 * 300
    low = torch.rand(images, 40, 2) * 150
    regions = torch.cat([low, low + side * (0.8 + 0.4 * torch.rand(images, 40, 2))], -1)
    level = level_of(regions, STRIDES, 112)
    assert set(level.flatten().tolist()) == {0, 1, 2, 3}
    head = RegionHead(6, 2, strides=STRIDES, canonical=112, pooling="align", bins=3, units=4)
    reference = MultiScaleRoIAlign(["0", "1", "2", "3"], 3, 2, canonical_scale=112)
    # Theirs does not take half a cell off, so it is given regions that are shifted by as much.
    shifted = regions - torch.tensor(STRIDES)[level].unsqueeze(-1) / 2
    expected = reference({str(n): each for n, each in enumerate(maps)}, list(shifted), [(512, 512)] * images)
    assert torch.equal(reference.map_levels(list(regions)), level.flatten())
    assert torch.allclose(head.pool(maps, regions), expected, atol=1e-4)


@pytest.mark.parametrize("pooling", ["pool", "align"])
def test_a_region_sends_its_gradient_to_its_own_map_alone(pooling):
    maps = [torch.randn(1, 2, 128 // stride, 128 // stride, requires_grad=True) for stride in STRIDES]
    head = RegionHead(2, 2, strides=STRIDES, canonical=112, pooling=pooling, bins=2, units=4)
    head.pool(maps, torch.tensor([[[0.0, 0, 112, 112], [20, 20, 80, 84]]])).sum().backward()
    assert [bool(each.grad.any()) for each in maps] == [False, True, True, False]


def test_each_map_has_anchors_of_its_own_size():
    system = small()
    maps = system.maps(torch.zeros(1, 3, 128, 128))
    assert [each.shape[-1] for each in maps] == [32, 16, 8, 4, 2]
    anchors = system.anchors_of(maps)
    logits, delta = system.rpn(maps)
    assert anchors.shape == delta.shape[1:] == (3 * (32**2 + 16**2 + 8**2 + 4**2 + 2**2), 4)
    assert logits.shape == (1, len(anchors), 2)
    start = 0
    for each, size in zip(maps, (8, 16, 32, 64, 128), strict=True):
        own = anchors[start : start + 3 * each[0, 0].numel()]
        start += len(own)
        sides = (own[:, 2:] - own[:, :2])[:3]
        assert sides[1].tolist() == [size, size]  # of ratio 1
        assert sides.prod(1).sqrt().tolist() == pytest.approx([size] * 3, rel=0.07)


def test_it_works_on_the_meta_device_and_every_layer_learns():
    with torch.device("meta"):
        logits, _ = small()(torch.zeros(1, 3, 128, 128))
    assert logits.shape[1] == 3 * 1364
    system = small(canonical=28)
    boxes = torch.tensor([[[4.0, 8, 24, 30, 1], [20, 20, 120, 124, 0]]])
    batch = {"image": torch.randn(1, 3, 128, 128), "boxes": boxes, "index": torch.arange(1)}
    loss, _ = system.training_loss(batch, system.objectives()[0])
    loss.backward()
    assert [name for name, parameter in system.named_parameters() if parameter.grad is None] == []


def test_what_it_refuses():
    with pytest.raises(ValueError, match=r"trunk must offer maps at strides \[4, 8, 16, 32\] for a pyramid"):
        FPN(trunk=ResNet(spec=Images(image=IMAGE), depth=20, stem="3x3"), in_channels=3)
    with pytest.raises(ValueError, match="sizes must be 5, one of each map"):
        small(sizes=(8, 16))
    with pytest.raises(ValueError, match="channels must be"):
        small(fpn=0)


def test_it_trains_and_is_evaluated(dlx_call):
    words = (
        "train", "model=faster_rcnn", "model.fpn=8", "model.canonical=36", "model.sizes=[8,16,32,64,128]",
        "data.samples=40", "data.side=64", "data.batch_size=8", "trainer.max_steps=4", "model.trunk.width=0.1",
        "model.units=16", "model.channels=8",
    )  # fmt: skip
    call = dlx_call(*words, "--json")
    assert call.code == 0, call.err
    assert "test/map50" in json.loads(call.out)["metrics"]
