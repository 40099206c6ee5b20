"""R-CNN and SPPNet: crops and pyramids against plain loops, SVMs and ridge against references."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dlx.models.detection import svm
from dlx.models.detection.fast_rcnn import FastRCNN
from dlx.models.detection.rcnn import CONTEXT, RCNN
from dlx.models.detection.sppnet import SPPNet, spatial_pyramid
from dlx.models.vision.cnn import CNN
from dlx.models.vision.vgg import VGG
from dlx.tasks.spec import Boxes, Image, Images, Proposals, ProposedBoxes


def spec(side=64):
    image = Image(channels=3, height=side, width=side, mean=(0.5,) * 3, std=(0.2,) * 3)
    return ProposedBoxes(image=image, boxes=Boxes(classes=("a", "b"), most=3), proposals=Proposals(most=8))


def rcnn(**arguments):
    torch.manual_seed(0)
    trunk = CNN(spec=Images(image=spec().image))
    return RCNN(**{"spec": spec(), "trunk": trunk, "side": 16, "units": 16, "regions": 8, **arguments})


def sppnet(**arguments):
    torch.manual_seed(0)
    trunk = VGG(spec=Images(image=spec().image), depth=11, width=0.1, stem="paper")
    return SPPNet(**{"spec": spec(), "trunk": trunk, "stride": 8, "units": 16, "regions": 8, **arguments})


def scene(images=4):
    torch.manual_seed(1)
    low = torch.rand(images, 3, 2) * 30
    boxes = torch.cat([low, low + 12 + 16 * torch.rand(images, 3, 2), torch.randint(2, (images, 3, 1)).float()], 2)
    boxes[:, 2] = torch.tensor([0.0, 0, 0, 0, -1])
    near = boxes[:, :2, :4] + torch.randn(images, 2, 4)
    far = torch.rand(images, 5, 2) * 40
    proposals = torch.cat([near, torch.cat([far, far + 8 + 14 * torch.rand(images, 5, 2)], 2)], 1).clamp(0, 64)
    proposals = torch.cat([proposals, torch.full((images, 1, 4), -1.0)], 1)
    return {
        "image": torch.randn(images, 3, 64, 64), "boxes": boxes, "proposals": proposals, "index": torch.arange(images),
    }  # fmt: skip


class Data:
    """What `System.fit` is given."""

    def __init__(self, batch):
        self.train, self.batch = self, batch

    def eval_batches(self):
        return [self.batch]


def test_the_pyramid_is_adaptive_max_pooling_of_the_region():
    maps = torch.randn(2, 4, 9, 11)
    regions = torch.tensor([[[1.0, 2, 9, 8], [3, 3, 4, 4]], [[0, 0, 11, 9], [2, 5, 8, 7]]])
    found = spatial_pyramid(maps, regions)
    assert found.shape == (4, 4, 50)
    for number, (x1, y1, x2, y2) in enumerate(regions.flatten(0, 1).int().tolist()):
        part = maps[number // 2 : number // 2 + 1, :, y1:y2, x1:x2]
        expected = torch.cat([F.adaptive_max_pool2d(part, size).flatten(2) for size in (6, 3, 2, 1)], 2)[0]
        assert torch.equal(found[number], expected)


@pytest.mark.parametrize("box", [[0.2, 0.7, 0.4, 0.9], [10.9, 8.9, 11, 9], [-3, -3, 30, 30]])
def test_every_region_has_a_cell(box):
    found = spatial_pyramid(torch.randn(1, 2, 9, 11), torch.tensor([[box]]))
    assert torch.isfinite(found).all()


def test_a_crop_is_warped_with_its_context():
    """On an image of two ramps a crop's values are the coordinates of its points."""
    system = rcnn(side=20)
    ramp = torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")[::-1])
    image = torch.cat([ramp, torch.ones(1, 64, 64)]).unsqueeze(0)
    x1, y1, x2, y2 = 20.0, 12.0, 40.0, 50.0
    crop = system.crops(image, torch.tensor([[[x1, y1, x2, y2]]]))[0]
    more = (x2 - x1) * CONTEXT / (1 - 2 * CONTEXT)
    cells = (torch.arange(20) + 0.5) / 20 * (x2 - x1 + 2 * more)
    assert torch.allclose(crop[0, 10], x1 - more - 0.5 + cells, atol=1e-3)
    assert crop[1, :, 10].diff().allclose(torch.tensor((y2 - y1) / (1 - 2 * CONTEXT) / 20), atol=1e-3)
    beyond = system.crops(image, torch.tensor([[[0.0, 0, 40, 40]]]))[0]
    assert float(beyond[2, 0, 0]) == 0  # the mean colour


def test_the_svm_is_that_of_the_objective():
    rng = np.random.default_rng(0)
    positive = torch.from_numpy(rng.normal(1.5, 1, (30, 6))).float() * 4
    negative = torch.from_numpy(rng.normal(0, 1, (200, 6))).float() * 4
    weight, bias = svm.fit_svm(positive, negative)
    x, y = torch.cat([positive, negative]), torch.cat([torch.ones(30), -torch.ones(200)])
    least = svm.objective(weight, bias, x, y)
    parameters = torch.cat([weight, torch.tensor([bias / svm.BIAS])]).double().requires_grad_()
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def value():
        optimizer.zero_grad()
        w, b = parameters[:-1], parameters[-1] * svm.BIAS
        hinge = (1 - y * (x.double() @ w + b)).clamp_min(0) * torch.where(y > 0, svm.POSITIVE_WEIGHT, 1.0)
        loss = parameters.square().sum() / 2 + svm.COST * hinge.sum()
        loss.backward()
        return loss

    optimizer.step(value)
    assert least == pytest.approx(float(value()), rel=1e-2)
    assert least < svm.objective(torch.zeros(6), 0.0, x, y)


def test_hard_negatives_give_nearly_the_machine_of_all():
    rng = np.random.default_rng(0)
    positive = torch.from_numpy(rng.normal(1.5, 1, (60, 6))).float() * 4
    images = [torch.from_numpy(rng.normal(0, 1, (150, 6))).float() * 4 for _ in range(60)]
    weight, bias = svm.fit_with_hard_negatives(positive, images)
    every = torch.cat(images)
    x, y = torch.cat([positive, every]), torch.cat([torch.ones(60), -torch.ones(len(every))])
    best = svm.objective(*svm.fit_svm(positive, every), x, y)
    assert svm.objective(weight, bias, x, y) < 1.05 * best


def test_ridge_is_the_closed_form():
    x, y = torch.randn(80, 5).double(), torch.randn(80, 4).double()
    found = svm.fit_ridge(x, y, ridge=3.0).double()
    rows = torch.cat([x, torch.ones(80, 1).double()], 1)
    penalty = torch.diag(torch.tensor([3.0] * 5 + [0.0]).double())
    assert torch.allclose(found, torch.linalg.solve(rows.T @ rows + penalty, rows.T @ y), atol=1e-5)


def test_fast_rcnn_learns_from_the_proposals_that_are_there():
    torch.manual_seed(0)
    trunk = VGG(spec=Images(image=spec().image), depth=11, width=0.1, stem="paper")
    system, batch = FastRCNN(spec=spec(), trunk=trunk, stride=8, units=16, regions=8, dropout=0.0), scene()
    optimizer = torch.optim.Adam(system.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss, _ = system.training_loss(batch, system.objectives()[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    system.eval()
    with torch.no_grad():
        found = system.detect(batch)
        more = {**batch, "proposals": torch.cat([batch["proposals"], torch.full((4, 3, 4), -1.0)], 1)}
        assert torch.equal(system.detect(more), found)  # padding is no proposal


@pytest.mark.parametrize("make", [rcnn, sppnet])
def test_it_learns_and_its_machines_are_fitted(make):
    system, batch = make(dropout=0.0), scene()
    optimizer = torch.optim.Adam(system.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss, logs = system.training_loss(batch, system.objectives()[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert 0 <= float(logs["accuracy"]) <= 1
    system.eval()
    with torch.no_grad():
        before = system.detect(batch)
        system.fit(Data(batch))
        after = system.detect(batch)
    assert bool(system.fitted)
    assert system.svm.abs().sum() > 0
    assert system.box.abs().sum() > 0
    assert before.shape[2] == after.shape[2] == 6
    there = after[..., 4] >= 0
    assert (after[there][:, :4] >= 0).all()
    assert (after[there][:, :4] <= 64).all()


def test_what_is_fitted_reads_maps_and_features_of_norm_20():
    """C and the ridge are tuned to it: a network whose maps are 8 times as large gives the same boxes and classes."""
    found = []
    for factor in (1.0, 8.0):
        system, batch = rcnn(dropout=0.0).eval(), scene()
        maps = system.region_maps
        system.region_maps = lambda image, regions, maps=maps, factor=factor: factor * maps(image, regions)
        with torch.no_grad():
            system.dense[0].bias.zero_()
            system.dense[3].bias.zero_()
            system.fit(Data(batch))
            found.append(system.detect(batch))
            maps, features = system.features(batch["image"][:1], batch["proposals"][0, :7])
            assert (maps * system.scale[0]).norm(dim=1).mean() == pytest.approx(20, rel=0.2)
            assert (features * system.scale[1]).norm(dim=1).mean() == pytest.approx(20, rel=0.2)
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-2)


def test_an_image_without_proposals_has_no_detections():
    system, batch = rcnn().eval(), scene(1)
    batch["proposals"] = torch.full((1, 8, 4), -1.0)
    with torch.no_grad():
        assert (system.detect(batch)[..., 4] == -1).all()


def test_the_trunk_of_sppnet_learns_in_the_first_stage_alone():
    system = sppnet(together=0.25)
    assert system.stage_starts(100) == [0, 25]
    first, second = (system.objectives(stage)[0].params for stage in (0, 1))
    trunk = {id(p) for p in system.trunk.parameters()}
    assert trunk <= {id(p) for p in first}
    assert not trunk & {id(p) for p in second}
    assert sppnet(together=0.0).stage_starts(100) == [0]


def test_one_pass_over_the_image_gives_the_features_of_each_region():
    """Those of a region do not depend on which other regions are asked for."""
    system, batch = sppnet().eval(), scene(1)
    with torch.no_grad():
        together = system.region_maps(batch["image"], batch["proposals"][:, :4])
        alone = system.region_maps(batch["image"], batch["proposals"][:, 2:3])
    assert torch.equal(together[2], alone[0])


@pytest.mark.parametrize(
    ("make", "arguments", "text"),
    [
        (rcnn, {"side": 4}, "side"), (sppnet, {"stride": 5}, "stride must be one of"),
        (sppnet, {"pyramid": ()}, "pyramid"), (sppnet, {"together": 2.0}, "together"),
        (rcnn, {"overlap": 1.0}, "overlap"), (rcnn, {"cost": 0.0}, "cost must be above 0"),
    ],
)  # fmt: skip
def test_what_they_refuse(make, arguments, text):
    with pytest.raises(ValueError, match=text):
        make(**arguments)


def by_heart(model):
    """The system, and eight scenes with their proposals."""
    from dlx.data.selective_search import SelectiveSearch
    from dlx.data.shapes import Shapes

    dataset = Shapes(samples=20)
    scenes = dataset.splits()["train"].take(torch.arange(8))
    propose = SelectiveSearch(most=100)
    found = [torch.from_numpy(propose(photo.movedim(0, -1).numpy())) for photo in scenes["image"]]
    given = ProposedBoxes(image=dataset.spec.image, boxes=dataset.spec.boxes, proposals=Proposals(most=100))
    images, more = Images(image=given.image), {"units": 128, "regions": 16, "dropout": 0.0}
    torch.manual_seed(0)
    if model is RCNN:
        system = RCNN(spec=given, trunk=CNN(spec=images), side=24, cost=0.1, **more)
    else:
        trunk = VGG(spec=images, depth=11, width=0.25, stem="paper", batch_norm=True)
        system = model(spec=given, trunk=trunk, stride=8, **more, **({"cost": 0.1} if model is SPPNet else {}))
    return system, {
        "image": given.image.normalize(scenes["image"]), "boxes": scenes["boxes"], "index": torch.arange(8),
        "proposals": torch.nn.utils.rnn.pad_sequence(found, batch_first=True, padding_value=-1.0),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("model", [RCNN, SPPNet, FastRCNN])
def test_it_learns_eight_images_by_heart(model):
    pytest.importorskip("skimage")
    system, batch = by_heart(model)
    optimizer = torch.optim.Adam(system.parameters(), lr=1e-3)
    for _ in range(150 if model is RCNN else 60):
        loss, _ = system.training_loss(batch, system.objectives()[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    system.eval()
    with torch.no_grad():
        system.fit(Data(batch))
        assert system.metrics(system.evaluate(batch))["map50"] > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("model", ["rcnn", "sppnet", "fast_rcnn"])
def test_they_find_the_shapes(model, dlx_call):
    call = dlx_call("train", f"model={model}", "--json")
    assert call.code == 0, call.err
    assert json.loads(call.out)["metrics"]["test/map50"] >= 0.9
