import torch
import torch.nn.functional as F

from dlx.tasks.patches import box_mask, candidate_boxes, crop_patches, edge_energy, key_boxes, overlaps


def iou(a, b):
    shared = [max(0, min(a[k] + a[k + 2], b[k] + b[k + 2]) - max(a[k], b[k])) for k in (0, 1)]
    both = shared[0] * shared[1]
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def test_candidates_lie_inside_and_have_a_quarter_to_two_fifths_of_the_sides():
    boxes = candidate_boxes(32, 64)
    assert boxes[:, 0].min() == boxes[:, 1].min() == 0
    assert (boxes[:, 0] + boxes[:, 2]).max() == 32
    assert (boxes[:, 1] + boxes[:, 3]).max() == 64
    assert boxes[:, 2:].unique(dim=0).tolist() == [[8, 16], [10, 21], [13, 26]]


def test_overlaps_are_intersections_over_unions():
    boxes = candidate_boxes(10, 8)
    expected = torch.tensor([[iou(a, b) >= 0.1 for b in boxes.tolist()] for a in boxes.tolist()])
    assert torch.equal(overlaps(boxes), expected)


def test_the_key_boxes_are_the_best_ones_that_hardly_overlap():
    """As a search in plain Python finds them."""
    x = torch.rand(4, 3, 12, 12)
    boxes = candidate_boxes(12, 12)
    energy = edge_energy(x)
    for row, chosen in enumerate(key_boxes(x, boxes, overlaps(boxes), 3).tolist()):
        scores = [float(energy[row, y : y + h, x : x + w].sum() / (h + w)) for y, x, h, w in boxes.tolist()]
        free = list(range(len(boxes)))
        for number in chosen:
            best = max(scores[k] for k in free)
            assert scores[number] >= best - 1e-4
            assert number in free
            free = [k for k in free if iou(boxes[k].tolist(), boxes[number].tolist()) < 0.1]


def test_they_are_where_the_edges_are():
    x = torch.zeros(1, 1, 32, 32)
    x[:, :, 3:7, 20:24] = 1
    boxes = candidate_boxes(32, 32)
    y, left, h, w = boxes[key_boxes(x, boxes, overlaps(boxes), 3)][0, 0].tolist()
    assert y <= 3
    assert y + h >= 7
    assert left <= 20
    assert left + w >= 24


def test_a_patch_is_its_box_scaled_to_the_image():
    x = torch.rand(2, 3, 16, 24)
    boxes = torch.tensor([[[0, 0, 16, 24], [4, 6, 8, 12]], [[0, 12, 8, 12], [8, 0, 8, 12]]])
    patches = crop_patches(x, boxes)
    assert patches.shape == (2, 2, 3, 16, 24)
    torch.testing.assert_close(patches[0, 0], x[0], atol=1e-5, rtol=1e-5)
    expected = F.interpolate(x[:1, :, 4:12, 6:18], (16, 24), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(patches[0, 1, :, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], atol=1e-4, rtol=1e-4)


def test_the_mask_is_the_union_of_the_boxes():
    mask = box_mask(torch.tensor([[[0, 0, 2, 3], [1, 2, 2, 2]]]), 4, 5)
    expected = [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]]
    assert mask.shape == (1, 1, 4, 5)
    assert mask[0, 0].int().tolist() == expected
