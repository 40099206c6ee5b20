"""YOLO v1 against the hand example and the published counts."""

import json

import pytest
import torch

from dlx.models.detection.yolo import YOLO, corners
from dlx.tasks.average_precision import pair_iou
from dlx.tasks.spec import BoxedImages, Boxes, Image


def spec(side=64, classes=2, most=3):
    image = Image(channels=3, height=side, width=side, mean=(0.5,) * 3, std=(0.2,) * 3)
    return BoxedImages(image=image, boxes=Boxes(classes=tuple("abcdefghijklmnopqrstuvwxyz"[:classes]), most=most))


def small(**arguments):
    torch.manual_seed(0)
    return YOLO(**{"spec": spec(), "network": "small", "head": "conv", **arguments})


def test_the_loss_of_the_hand_example():
    """S = 2, B = 2, K = 2 (SYSTEMS 4.5): an object in row 0, column 1, its centre in the middle of the cell."""
    system = small(head="dense", cells=2, units=8, spec=spec(100))
    cells = torch.zeros(1, 2, 2, 12)
    cells[0, 0, 1] = torch.tensor([0.4, 0.6, 0.6, 0.6, 0.3, 0.5, 0.4, 0.6, 0.7, 0.8, 0.7, 0.2])
    cells[0, 1, 0, 4], cells[0, 1, 0, 9] = 0.2, 0.1
    boxes = torch.full((1, 3, 5), -1.0)
    boxes[0, 0] = torch.tensor([62.5, 0.5, 87.5, 49.5, 0])  # centre (0.75, 0.25), 0.25 x 0.49 of the image
    terms = {name: float(value) for name, value in system.losses(cells, system.targets(boxes)).items()}
    assert terms == pytest.approx({"coordinates": 0.1, "object": 0.047385, "empty": 0.07, "class": 0.13}, abs=1e-5)
    assert sum(terms.values()) == pytest.approx(0.347385, abs=1e-5)


def test_parameters_and_output_of_the_paper():
    """Of VOC's 20 classes: 60,155,968 in convolutions and 211,547,582 in dense layers; 7 x 7 x 30."""
    with torch.device("meta"):
        system = YOLO(spec=spec(448, classes=20))
        assert system(torch.zeros(1, 3, 448, 448)).shape == (1, 7, 7, 30)
    assert sum(p.numel() for p in system.convolutions.parameters()) == 60_155_968
    assert sum(p.numel() for p in system.parameters()) == 271_703_550


@pytest.mark.parametrize(("cells", "boxes", "classes"), [(3, 1, 2), (5, 3, 4)])
def test_outputs_are_cells_times_boxes_of_five_and_classes(cells, boxes, classes):
    system = small(head="dense", cells=cells, boxes=boxes, units=8, spec=spec(classes=classes)).eval()
    assert system(torch.zeros(1, 3, 64, 64)).shape == (1, cells, cells, boxes * 5 + classes)


def test_what_is_encoded_is_decoded():
    system = small().eval()
    boxes = torch.tensor([[[5.0, 10, 25, 40, 1], [40, 2, 60, 30, 0], [0, 0, 0, 0, -1]]])
    targets = system.targets(boxes)
    cells = torch.zeros(1, system.rows * system.columns, system.outputs)
    for m in range(2):
        share = targets["box"][0, m]
        x, y = share[:2] * torch.tensor([system.columns, system.rows]) - targets["corner"][0, m]
        cells[0, targets["cell"][0, m], :5] = torch.tensor([x, y, *share[2:].sqrt().tolist(), 1.0])
        cells[0, targets["cell"][0, m], 10 + int(boxes[0, m, 4])] = 1
    system.forward = lambda x: cells.view(1, system.rows, system.columns, -1)
    found = system.detect({"image": torch.zeros(1, 3, 64, 64)})[0]
    order = found[:, 4].argsort(descending=True)
    assert torch.allclose(found[order, :5], boxes[0, :2], atol=1e-4)
    assert torch.allclose(found[:, 5], torch.ones(2))


def test_of_two_objects_in_a_cell_the_first_counts():
    system = small()
    boxes = torch.tensor([[[2.0, 2, 10, 10, 0], [4, 4, 12, 12, 1], [40, 40, 60, 60, 1]]])
    assert system.targets(boxes)["there"].tolist() == [[True, False, True]]


def test_padding_changes_nothing():
    system = small()
    boxes = torch.tensor([[[5.0, 10, 25, 40, 1]]])
    wide = torch.cat([boxes, torch.full((1, 4, 5), -1.0)], 1)
    cells = torch.randn(1, system.rows, system.columns, system.outputs)
    one, other = (system.losses(cells, system.targets(given)) for given in (boxes, wide))
    assert all(torch.allclose(one[name], other[name]) for name in one)


def test_an_image_without_objects_is_empty():
    system = small()
    cells = torch.randn(2, system.rows, system.columns, system.outputs)
    terms = system.losses(cells, system.targets(torch.full((2, 3, 5), -1.0)))
    assert float(terms["object"].sum() + terms["class"].sum() + terms["coordinates"].sum()) == 0
    assert float(terms["empty"].sum()) > 0


def test_no_gradient_goes_through_the_overlap():
    """The confidence is drawn to the overlap, and the box is not drawn to the confidence."""
    system = small(spec=spec(most=1))
    cells = torch.rand(1, system.rows, system.columns, system.outputs, requires_grad=True)
    system.losses(cells, system.targets(torch.tensor([[[5.0, 10, 25, 40, 1]]])))["object"].sum().backward()
    gradient = cells.grad[..., :10].unflatten(-1, (2, 5))
    assert float(gradient[..., :4].abs().sum()) == 0
    assert float(gradient[..., 4].abs().sum()) > 0


def test_overlap_of_centred_boxes():
    a, b = torch.rand(5, 4), torch.rand(5, 4)
    size = (torch.minimum(a[:, :2] + a[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2)) - (
        torch.maximum(a[:, :2] - a[:, 2:] / 2, b[:, :2] - b[:, 2:] / 2)
    )
    both = size.clamp_min(0).prod(1)
    expected = both / (a[:, 2:].prod(1) + b[:, 2:].prod(1) - both)
    assert torch.allclose(pair_iou(corners(a), corners(b)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [({"network": "large"}, "network must be"), ({"boxes": 0}, "boxes"), ({"spec": spec(8)}, "needs images of 16")],
)
def test_what_it_refuses(arguments, text):
    with pytest.raises(ValueError, match=text):
        small(**arguments)


def test_it_trains_and_is_reported(dlx_call, tmp_path):
    words = ("train", "model=yolo", "data.samples=40", "data.side=48", "data.batch_size=8", "trainer.epochs=2")
    call = dlx_call(*words, "name=small", "--json")
    assert call.code == 0, call.err
    assert {"test/map50", "test/map"} <= set(json.loads(call.out)["metrics"])
    report = json.loads(dlx_call("eval", "small", "--json").out)
    assert {row["class"] for row in report["per_class"]} == {"circle", "square", "triangle"}
    assert {"class", "place", "duplicate", "background", "missed"} <= set(report["errors"])
    from PIL import Image as Picture

    from dlx.data.shapes import Shapes

    pixels = Shapes(samples=20, side=48).splits()["train"].tensors["image"][0]
    Picture.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "scene.png")
    call = dlx_call("predict", "small", str(tmp_path / "scene.png"), "--json")
    assert call.code == 0, call.err


@pytest.mark.slow
def test_it_learns_eight_images_by_heart():
    from dlx.data.shapes import Shapes
    from dlx.tasks.spec import Image

    dataset = Shapes(samples=20)
    scenes = dataset.splits()["train"].take(torch.arange(8))
    given = BoxedImages(image=dataset.spec.image, boxes=dataset.spec.boxes)
    assert isinstance(given.image, Image)
    torch.manual_seed(0)
    system = YOLO(spec=given, network="small", head="conv")
    batch = {"image": given.image.normalize(scenes["image"]), "boxes": scenes["boxes"]}
    optimizer = torch.optim.Adam(system.parameters(), lr=2e-3)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / 300)
        loss, _ = system.training_loss(batch, system.objectives()[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    system.eval()
    with torch.no_grad():
        assert system.metrics(system.evaluate(batch))["map50"] > 0.95


@pytest.mark.slow
def test_it_finds_the_shapes(dlx_call):
    call = dlx_call("train", "model=yolo", "--json")
    assert call.code == 0, call.err
    assert json.loads(call.out)["metrics"]["test/map50"] >= 0.85
