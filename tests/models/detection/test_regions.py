"""Box coding, anchors, assignment and the region head against hand examples and torchvision."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.detection.roi_heads import fastrcnn_loss

from dlx.models.detection.regions import (
    SCALES,
    RegionHead,
    anchors,
    assign,
    clip,
    decode,
    encode,
    sample,
    smooth_l1,
)
from dlx.tasks.average_precision import box_iou


def test_the_box_transform_of_the_hand_example():
    delta = encode(torch.tensor([20.0, 5, 60, 45]), torch.tensor([10.0, 10, 50, 30]))
    assert delta.tolist() == pytest.approx([0.25, 0.25, 0, 0.693147], abs=1e-6)


def test_decode_is_the_inverse_of_encode():
    torch.manual_seed(0)
    low = torch.rand(2, 50, 2) * 50
    box, reference = torch.cat([low, low + 1 + 40 * torch.rand(2, 50, 2)], -1)
    assert torch.allclose(decode(encode(box, reference), reference), box, atol=1e-3)
    assert torch.isfinite(decode(torch.full((1, 4), 1e3), reference[:1])).all()


def test_the_published_nine_anchors():
    """generate_anchors.py around cell 0; its right and lower corners lie within a box, so that they are 1 less."""
    published = [
        (-84, -40, 99, 55), (-176, -88, 191, 103), (-360, -184, 375, 199), (-56, -56, 71, 71), (-120, -120, 135, 135),
        (-248, -248, 263, 263), (-36, -80, 51, 95), (-80, -168, 95, 183), (-168, -344, 183, 359),
    ]  # fmt: skip
    found = anchors(1, 1, 16, (128, 256, 512), (0.5, 1, 2))
    assert (found - torch.tensor([0.0, 0, 1, 1])).tolist() == [list(map(float, box)) for box in published]


def test_anchors_of_other_cells_are_shifted_row_by_row():
    found = anchors(2, 3, 8, (16.0,), (1.0,))
    assert found.shape == (6, 4)
    assert (found[4] - found[0]).tolist() == [8, 8, 8, 8]


def test_smooth_l1():
    x = torch.tensor([0.05, 0.1, 0.5, 1, 2])
    assert smooth_l1(x, 1.0).tolist() == pytest.approx([0.00125, 0.005, 0.125, 0.5, 1.5])
    assert smooth_l1(x, 1 / 9).tolist() == pytest.approx([0.01125, 0.045, 0.4444, 0.9444, 1.9444], abs=1e-4)


def test_states_of_regions():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 0, 0]]])
    there = torch.tensor([[True, True, False]])
    regions = torch.tensor([[[0.0, 0, 10, 9], [0, 0, 10, 5], [50, 50, 60, 60], [20, 20, 30, 24]]])
    object_, state = assign(box_iou(regions, boxes), there, high=0.7, low=0.3, best_too=False)
    assert object_[0, [0, 1, 3]].tolist() == [0, 0, 1]
    assert state.tolist() == [[1, -1, 0, -1]]
    _, state = assign(box_iou(regions, boxes), there, high=0.7, low=0.3, best_too=True)
    assert state.tolist() == [[1, -1, 0, 1]]  # the second object's best, at 0.4
    _, state = assign(box_iou(regions, boxes), there, high=0.7, low=0.5, least=0.1)
    assert state.tolist() == [[1, -1, -1, 0]]


def test_every_object_has_an_anchor():
    torch.manual_seed(0)
    low = torch.rand(8, 3, 2) * 60
    boxes = torch.cat([low, low + 6 + 28 * torch.rand(8, 3, 2)], -1)
    iou = box_iou(anchors(12, 12, 8, (16.0, 24.0, 36.0), (0.5, 1.0, 2.0)).expand(8, -1, 4), boxes)
    _, state = assign(iou, torch.ones(8, 3, dtype=torch.bool), high=0.7, low=0.3, best_too=True)
    best = iou.amax(1)
    for image in range(8):
        for m in range(3):
            assert (state[image][iou[image, :, m] >= best[image, m] - 1e-6] == 1).all()


def test_a_sample_is_balanced():
    torch.manual_seed(0)
    state = torch.cat([torch.ones(2, 30), torch.zeros(2, 100), -torch.ones(2, 20)], 1).long()
    state[1, :28] = -1
    taken = sample(state, 40, 0.25)
    assert taken.sum(1).tolist() == [40, 40]
    assert (taken & (state == 1)).sum(1).tolist() == [10, 2]
    assert not (taken & (state == -1)).any()
    assert sample(torch.zeros(1, 5).long(), 40, 0.5).sum() == 5


def head(**arguments):
    torch.manual_seed(0)
    return RegionHead(6, 3, strides=(4,), units=16, bins=3, dropout=0.0, beta=1 / 9, **arguments)


def test_losses_are_those_of_torchvision():
    """All regions are sampled, so that nothing is drawn; sums over them and the same normalization."""
    part = head(count=100, share=1.0)
    maps = torch.randn(2, 6, 12, 12)
    torch.manual_seed(1)
    low = torch.rand(2, 30, 2) * 30
    regions = torch.cat([low, low + 4 + 12 * torch.rand(2, 30, 2)], -1)
    boxes = torch.cat([regions[:, :2] + 1, torch.tensor([[[0.0], [2.0]]] * 2)], -1)
    found = part.losses([maps], regions, torch.ones(2, 30, dtype=torch.bool), boxes)
    everything = torch.cat([regions, boxes[..., :4]], 1)
    labels, aims, logits, deltas = [], [], [], []
    for image in range(2):
        iou = box_iou(everything[image : image + 1], boxes[image : image + 1, :, :4])[0]
        best, index = iou.max(1)
        labels.append(torch.where(best >= 0.5, boxes[image, index, 4].long() + 1, 0))  # there background is 0
        aims.append(encode(boxes[image, index, :4], everything[image]) / torch.tensor(SCALES))
        score, delta = part([maps[image : image + 1]], everything[image : image + 1])
        logits.append(torch.cat([score[0, :, 3:], score[0, :, :3]], 1))
        deltas.append(torch.cat([torch.zeros(32, 4), delta[0].flatten(1)], 1))
    for image in range(2):
        class_, box = fastrcnn_loss(logits[image], deltas[image], [labels[image]], [aims[image]])
        assert float(found["class"][image]) == pytest.approx(float(class_), rel=1e-4)
        assert float(found["box"][image]) == pytest.approx(float(box), rel=1e-4)


def test_region_pooling_is_a_plain_double_loop():
    part = head()
    maps = torch.randn(1, 6, 12, 12)
    regions = torch.tensor([[[4.0, 8, 30, 44], [0, 0, 8, 8]]])
    pooled = part.pool([maps], regions)
    for number, (x1, y1, x2, y2) in enumerate((regions[0] / 4).round().int().tolist()):
        height, width = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        for i in range(3):
            for j in range(3):
                rows = slice(y1 + i * height // 3, min(12, y1 - (-(i + 1) * height // 3)))
                columns = slice(x1 + j * width // 3, min(12, x1 - (-(j + 1) * width // 3)))
                assert torch.equal(pooled[number, :, i, j], maps[0, :, rows, columns].amax((1, 2)))


def test_padded_regions_are_never_learned_from():
    part = head(count=8)
    maps, boxes = torch.randn(1, 6, 12, 12), torch.tensor([[[4.0, 8, 30, 44, 1], [0, 0, 0, 0, -1]]])
    nowhere = torch.zeros(1, 20, 4)
    terms = part.losses([maps], nowhere, torch.zeros(1, 20, dtype=torch.bool), boxes)
    score, _ = part([maps], boxes[:, :1, :4])
    assert float(terms["class"]) == pytest.approx(float(F.cross_entropy(score[0], torch.tensor([1]))), rel=1e-5)


def test_clip():
    assert clip(torch.tensor([-3.0, 2, 50, 70]), torch.tensor([60, 40])).tolist() == [0, 2, 40, 60]
