"""Faster R-CNN against torchvision's RPN with the same weights, and the published counts."""

import json

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork

from dlx.models.detection.faster_rcnn import RPN, FasterRCNN
from dlx.models.vision.vgg import VGG
from dlx.tasks.spec import BoxedImages, Boxes, Image, Images


def spec(side=64, classes=3, most=3):
    image = Image(channels=3, height=side, width=side, mean=(0.5,) * 3, std=(0.2,) * 3)
    return BoxedImages(image=image, boxes=Boxes(classes=tuple("abcdefgh"[:classes]), most=most))


def small(**arguments):
    torch.manual_seed(0)
    trunk = VGG(spec=Images(image=spec().image), depth=11, width=0.1, stem="paper")
    given = {
        "stride": 8, "sizes": (12, 24), "channels": 8, "units": 16, "proposals": (40, 30), "regions": 16,
        "anchors_sampled": 32,
    }  # fmt: skip
    return FasterRCNN(**{"spec": spec(), "trunk": trunk, **given, **arguments})


def scene():
    torch.manual_seed(1)
    boxes = torch.tensor([[[4.0, 8, 24, 30, 1], [36, 30, 60, 50, 2]], [[10, 10, 22, 22, 0], [0, 0, 0, 0, -1]]])
    return {"image": torch.randn(2, 3, 64, 64), "boxes": boxes, "index": torch.arange(2)}


def test_parameters_of_the_papers_rpn():
    assert sum(p.numel() for p in RPN(512, 512, 9).parameters()) == 2_387_510


class Same(AnchorGenerator):
    """Gives torchvision's network our anchors."""

    def __init__(self, anchors):
        super().__init__()
        self.anchors = anchors

    def num_anchors_per_location(self):
        return [6]

    def forward(self, images, features):
        return [self.anchors] * len(images.image_sizes)


class Logits(torch.nn.Module):
    """Its head has one logit: ours, the difference of two."""

    def __init__(self, system):
        super().__init__()
        self.system = system

    def forward(self, features):
        logits, delta = self.system.rpn(features)
        _, _, H, W = features[0].shape
        score = (logits[..., 1] - logits[..., 0]).view(-1, H, W, 6).permute(0, 3, 1, 2)
        return [score], [delta.view(-1, H, W, 24).permute(0, 3, 1, 2)]


def test_proposals_and_losses_are_those_of_torchvision():
    """All anchors are sampled, so that nothing is drawn."""
    system = small(anchors_sampled=2000)
    batch = scene()
    maps = system.maps(batch["image"])
    anchors = system.anchors_of(maps)
    inside = (anchors[:, :2] >= 0).all(1) & (anchors[:, 2:] <= 64).all(1)
    for parameter in system.rpn.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    logits, delta = system.rpn(maps)
    regions, valid = system.propose(logits, delta, anchors, system.image_sizes(batch), 40)
    reference = RegionProposalNetwork(
        Same(anchors), Logits(system), 0.7, 0.3, 2000, 1.0, {"training": 240, "testing": 240},
        {"training": 40, "testing": 40}, 0.7,
    )  # fmt: skip
    images = ImageList(batch["image"], [(64, 64)] * 2)
    targets = [{"boxes": boxes[boxes[:, 4] >= 0, :4]} for boxes in batch["boxes"]]
    reference.eval()
    expected, _ = reference(images, {"0": maps[0]})
    for number, boxes in enumerate(expected):
        assert int(valid[number].sum()) == len(boxes)
        assert torch.allclose(regions[number, : len(boxes)], boxes, atol=1e-4)
    # Of the losses: torchvision counts anchors beyond the border too; they are left out here, as in the paper.
    labels, matched = reference.assign_targets_to_anchors([anchors[inside]] * 2, targets)
    aims = reference.box_coder.encode(matched, [anchors[inside]] * 2)
    score = (logits[..., 1] - logits[..., 0])[:, inside].flatten().unsqueeze(1)
    class_, box = reference.compute_loss(score, delta[:, inside].flatten(0, 1), labels, aims)
    found = system.rpn_losses(logits, delta, anchors, batch["boxes"], system.image_sizes(batch))
    counted = torch.stack([(part >= 0).sum() for part in labels])
    ours = {name: float((value * counted).sum() / counted.sum()) for name, value in found.items()}
    assert ours == pytest.approx({"rpn_class": float(class_), "rpn_box": float(box)}, rel=1e-4)


def test_no_gradient_goes_through_the_places_of_proposals():
    system = small(dropout=0.0)
    batch = scene()
    maps = system.maps(batch["image"])
    logits, delta = system.rpn(maps)
    with torch.no_grad():
        regions, valid = system.propose(logits, delta, system.anchors_of(maps), system.image_sizes(batch), 40)
    loss = sum(term.sum() for term in system.head.losses(maps, regions, valid, batch["boxes"]).values())
    loss.backward()
    assert all(p.grad is None for p in system.rpn.parameters())
    loss, _ = system.training_loss(batch, system.objectives()[0])
    loss.backward()
    assert all(p.grad is not None for p in system.rpn.parameters())


def test_the_dense_part_works_on_the_meta_device():
    with torch.device("meta"):
        system = small()
        logits, delta = system(torch.zeros(1, 3, 64, 64))
    assert logits.shape == (1, 8 * 8 * 6, 2)
    assert delta.shape == (1, 8 * 8 * 6, 4)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"stride": 7}, "stride must be one of the trunk's maps"),
        ({"sizes": ()}, "sizes"),
        ({"pooling": "max"}, "pooling"),
    ],
)
def test_what_it_refuses(arguments, text):
    with pytest.raises(ValueError, match=text):
        small(**arguments)


def test_it_trains_and_predicts(dlx_call, tmp_path):
    words = (
        "train", "model=faster_rcnn", "data.samples=40", "data.side=64", "data.batch_size=8", "trainer.epochs=2",
        "model.trunk.width=0.1", "model.units=16", "model.channels=8",
    )  # fmt: skip
    call = dlx_call(*words, "name=small", "--json")
    assert call.code == 0, call.err
    assert {"test/map50", "test/map"} <= set(json.loads(call.out)["metrics"])
    assert dlx_call("eval", "small", "--json").code == 0


@pytest.mark.slow
def test_it_learns_eight_images_by_heart():
    from dlx.data.shapes import Shapes

    dataset = Shapes(samples=20)
    scenes = dataset.splits()["train"].take(torch.arange(8))
    given = BoxedImages(image=dataset.spec.image, boxes=dataset.spec.boxes)
    torch.manual_seed(0)
    trunk = VGG(spec=Images(image=given.image), depth=11, width=0.25, stem="paper", batch_norm=True)
    system = FasterRCNN(
        spec=given, trunk=trunk, stride=8, sizes=(16, 24, 36), channels=64, units=256, proposals=(100, 50), regions=32,
        anchors_sampled=64, dropout=0.0,
    )  # fmt: skip
    batch = {"image": given.image.normalize(scenes["image"]), "boxes": scenes["boxes"]}
    optimizer = torch.optim.Adam(system.parameters(), lr=1e-3)
    for _ in range(200):
        loss, _ = system.training_loss(batch, system.objectives()[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    system.eval()
    with torch.no_grad():
        assert system.metrics(system.evaluate(batch))["map50"] > 0.95


@pytest.mark.slow
def test_it_finds_the_shapes(dlx_call):
    call = dlx_call("train", "model=faster_rcnn", "--json")
    assert call.code == 0, call.err
    assert json.loads(call.out)["metrics"]["test/map50"] >= 0.9


def test_alternating_training_moves_what_its_stage_is_of():
    """Running means of batch norm too; and it finds boxes with the trunk of which its RPN learned."""
    torch.manual_seed(0)
    trunk = VGG(spec=Images(image=spec().image), depth=11, width=0.1, stem="paper", batch_norm=True)
    system = small(training="alternating", trunk=trunk)
    assert system.stage_starts(8) == [0, 2, 4, 6]
    batch = scene()
    moved = []
    for stage in range(4):
        (objective,) = system.objectives(stage)
        before = {name: value.clone() for name, value in system.state_dict().items() if name != "is_shared"}
        system.zero_grad()
        loss, logs = system.training_loss(batch, objective)
        loss.backward()
        torch.optim.SGD(objective.params, lr=0.1).step()
        after = system.state_dict()
        moved.append({name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])})
        assert set(logs) == ({"rpn_class", "rpn_box"} if stage % 2 == 0 else {"class", "box"})
        assert bool(system.is_shared) == (stage >= 2)
        assert system.training
        assert trunk.training
    assert moved == [{"first_trunk", "rpn"}, {"trunk", "head"}, {"rpn"}, {"head"}]


def test_proposals_come_from_the_trunk_that_the_rpn_has_learned_on():
    system = small(training="alternating").eval()
    batch = scene()
    for parameter in system.first_trunk.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        apart = system.detect(batch)
        joint = small()
        joint.load_state_dict({k: v for k, v in system.state_dict().items() if not k.startswith(("first", "is_"))})
        assert not torch.equal(apart, joint.eval().detect(batch))
        system.is_shared.fill_(True)
        assert torch.equal(system.detect(batch), joint.detect(batch))


def test_alternating_training_needs_a_step_for_each_stage(dlx_call):
    words = ("data.samples=40", "data.side=64", "data.batch_size=8", "model.trunk.width=0.1", "model.units=16")
    call = dlx_call("train", "model=faster_rcnn", "model.training=alternating", "trainer.max_steps=3", *words)
    assert call.code == 2
    assert "training: alternating takes 4 steps or more, got 3" in call.err
    call = dlx_call("train", "model=faster_rcnn", "model.training=alternating", "trainer.max_steps=4", *words, "--json")
    assert call.code == 0, call.err
