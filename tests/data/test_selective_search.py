"""Selective search: its segments, hierarchies and order, and how many objects of `shapes` its boxes find."""

import numpy as np
import pytest
import torch

from dlx.config.errors import UserError
from dlx.data.selective_search import SPACES, SelectiveSearch, _histograms, _regions
from dlx.data.shapes import Shapes
from dlx.tasks.average_precision import box_iou

RED, BLUE = (200, 30, 30), (30, 40, 190)


@pytest.fixture(scope="module")
def scenes():
    return Shapes(samples=20).splits()["train"].tensors


@pytest.fixture(scope="module")
def scene(scenes):
    return scenes["image"][0].permute(1, 2, 0).numpy()


def halves(height=40, width=60, at=30):
    image = np.empty((height, width, 3), np.uint8)
    image[:, :at], image[:, at:] = RED, BLUE
    return image


def recall(scenes, search, threshold=0.5):
    """The share of objects that a box overlaps by the threshold."""
    best = []
    for image, boxes in zip(scenes["image"], scenes["boxes"], strict=True):
        found = torch.from_numpy(search(image.permute(1, 2, 0).numpy()))
        best.append(box_iou(boxes[boxes[:, 4] >= 0], found).amax(1))
    return float((torch.cat(best) >= threshold).float().mean())


def test_two_flat_halves_are_two_segments_and_three_boxes():
    search = SelectiveSearch(sigma=0.0)
    segment = search.segments(halves() / 255, 50.0)
    assert np.unique(segment[:, :30]).tolist() == [segment[0, 0]]
    assert np.unique(segment[:, 30:]).tolist() == [1 - segment[0, 0]]
    boxes = search(halves())
    assert sorted(boxes.tolist()) == [[0, 0, 30, 40], [0, 0, 60, 40], [30, 0, 60, 40]]
    blurred = torch.from_numpy(SelectiveSearch()(halves()))  # the blur makes segments of the edge
    assert (box_iou(torch.tensor([[0.0, 0, 30, 40], [30, 0, 60, 40]]), blurred).amax(1) > 0.8).all()


@pytest.mark.parametrize("color", [(0, 0, 0), (120, 120, 120), (255, 255, 255), RED])
def test_a_uniform_image_is_one_box(color):
    image = np.broadcast_to(np.array(color, np.uint8), (24, 31, 3))
    boxes = SelectiveSearch(spaces=SPACES)(image)
    assert boxes.tolist() == [[0, 0, 31, 24]]
    assert boxes.dtype == np.float32


def test_the_same_image_has_the_same_boxes(scene):
    boxes = SelectiveSearch(most=1000)(scene)
    assert (SelectiveSearch(most=1000)(scene) == boxes).all()
    assert (SelectiveSearch(most=20)(scene) == boxes[:20]).all()
    other = SelectiveSearch(most=1000, order_seed=1)(scene)
    assert not (other == boxes).all()
    assert sorted(other.tolist()) == sorted(boxes.tolist())


def test_no_box_comes_twice_or_is_narrow_or_leaves_the_image(scene):
    boxes = SelectiveSearch(least=9)(scene)
    assert len(np.unique(boxes, axis=0)) == len(boxes) <= 300
    assert (boxes[:, 2:] - boxes[:, :2] >= 9).all()
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= 96).all()
    assert len(SelectiveSearch(least=5)(scene)) > len(boxes)
    assert len(SelectiveSearch(least=97)(scene)) == 0


def test_the_first_boxes_are_larger_than_the_last(scene):
    sides = np.diff(SelectiveSearch()(scene).reshape(-1, 2, 2), axis=1).prod(-1)[:, 0]
    assert sides[:20].mean() > 2 * sides[-20:].mean()


def quarters():
    """Four segments of 6x8 pixels in a square, their histograms of one channel of four bins, and the bins."""
    segment = np.repeat(np.repeat([[0, 1], [2, 3]], 6, 0), 8, 1)
    bins = np.random.default_rng(0).integers(0, 4, (*segment.shape, 1))
    return segment, bins, _histograms(segment, bins, 4)


def test_similarities_by_hand():
    segment, _, histogram = quarters()
    assert histogram.sum(1) == pytest.approx(1)
    a, b = np.array([0, 0]), np.array([1, 3])
    shared = np.minimum(histogram[a], histogram[b]).sum(1)
    assert _regions(segment, histogram, False, False).similarity(a, b) == pytest.approx(shared)
    # Two of four equal parts: size 1 - 1/2; side by side they fill their box, across it is half empty.
    assert _regions(segment, histogram[:, :0], True, False).similarity(a, b) == pytest.approx([0.5, 0.5])
    assert _regions(segment, histogram[:, :0], False, True).similarity(a, b) == pytest.approx([1.0, 0.5])


def test_a_merged_region_has_the_histogram_of_its_pixels():
    segment, bins, histogram = quarters()
    regions = _regions(segment, histogram.copy(), True, True)
    regions._merge(0, 1)
    regions._merge(0, 2)
    union = np.where(segment == 3, 1, 0)
    assert regions.histogram_RB[0] == pytest.approx(_histograms(union, bins, 4)[0], abs=1e-6)
    assert regions.size_R[0] == 3 * 48
    assert regions.box_R4[0].tolist() == [0, 0, 16, 12]
    assert regions.near_RR[0].nonzero()[0].tolist() == [3]


def test_every_region_of_the_hierarchy_gives_a_box():
    """The most alike are merged first: the two reds, though each is larger than the blue between the others."""
    segment = np.repeat([[0, 1, 2, 3]], 6, 0).repeat([9, 9, 3, 3], 1)
    histogram = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.4, 0.6]], np.float32)
    boxes = _regions(segment, histogram, False, False).grouped()
    assert boxes[:, [0, 2]].tolist() == [[0, 9], [9, 18], [18, 21], [21, 24], [0, 18], [18, 24], [0, 24]]


def test_gray_and_scaled_images(scene):
    gray = SelectiveSearch()(scene[..., :1])
    assert len(gray) > 10
    image = halves(at=24)
    boxes = torch.from_numpy(SelectiveSearch(width=180, sigma=0.0)(image))
    assert (boxes[:, 2:] <= torch.tensor([60, 40])).all()
    assert (box_iou(torch.tensor([[0.0, 0, 24, 40], [24, 0, 60, 40]]), boxes).amax(1) > 0.8).all()


def test_it_finds_the_objects_of_shapes(scenes):
    assert recall({name: x[:12] for name, x in scenes.items()}, SelectiveSearch()) >= 0.9


@pytest.mark.slow
def test_recall_on_500_images():
    assert recall(Shapes(samples=500).splits()["train"].tensors, SelectiveSearch(most=300)) >= 0.98


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"spaces": ("cmyk",)}, "spaces must be one of"), ({"spaces": ()}, "spaces must be"),
        ({"similarities": ("colour+shape",)}, "similarities must be one of"), ({"similarities": ()}, "similarities"),
        ({"scales": (50, 0)}, "scales must be above 0"), ({"scales": ()}, "scales"), ({"min_size": 0}, "min_size"),
        ({"sigma": -1.0}, "sigma must be"), ({"width": 4}, "width must be"), ({"least": 0}, "least must be"),
        ({"most": 0}, "most must be"), ({"order_seed": -1}, "order_seed"),
    ],
)  # fmt: skip
def test_what_it_refuses(arguments, text):
    with pytest.raises(ValueError, match=text):
        SelectiveSearch(**arguments)


def test_without_scikit_image_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^proposals selective_search needs skimage: pip install 'dlx\[detection\]'$"):
        SelectiveSearch()
