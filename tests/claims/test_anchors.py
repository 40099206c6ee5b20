"""What anchors reach and whose names are right, by hand; and what the verdict needs."""

import pytest
import torch

from dlx.claims.anchors import HALF, HIGH, OVERLAPS, Anchors, best_overlaps, right_names, share_from, within
from dlx.config import compose
from dlx.config.errors import UserError


def reach(at_half, at_high):
    return [at_high if number >= HIGH else at_half for number in range(len(OVERLAPS))]


MEASURED = {
    "reach": {"24": reach(0.7, 0.2), "all": reach(0.9, 0.4), "ratios": reach(0.9, 0.4), "paper": reach(0.0, 0.0)},
    "recall_50": [0.4, 0.99], "named": 0.97, "map50": 0.98,
}  # fmt: skip


def test_anchors_that_leave_the_image_are_left_out():
    boxes = torch.tensor([[0.0, 0, 10, 10], [-1, 0, 5, 5], [3, 3, 20, 12], [3, 3, 12, 21]])
    assert within(boxes, 20, 20).tolist() == boxes[[0, 2]].tolist()


def test_the_best_overlap_of_each_object():
    truth = torch.tensor([[0.0, 0, 10, 10, 1], [20, 20, 30, 30, 0]])
    found = best_overlaps([torch.tensor([[0.0, 0, 10, 8], [0, 0, 10, 5]]), torch.zeros(0, 4)], [truth, truth[:1]])
    assert found.tolist() == pytest.approx([0.8, 0.0, 0.0])
    shares = share_from(found)
    assert shares[HALF] == pytest.approx(1 / 3)
    assert shares[-1] == 0.0
    assert (OVERLAPS[HALF], OVERLAPS[HIGH]) == pytest.approx((0.5, 0.7))


def test_names_count_where_a_region_is_on_an_object():
    truth = torch.tensor([[0.0, 0, 10, 10, 1]])
    regions = torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 6], [0, 0, 2, 2]])
    assert right_names(regions, torch.tensor([1, 0, 1]), truth).tolist() == [True, False]
    assert len(right_names(regions, torch.tensor([1, 0, 1]), truth[:0])) == 0


@pytest.mark.parametrize(
    "changed", [{"named": 0.5}, {"recall_50": [0.4, 0.9]}, {"reach": {**MEASURED["reach"], "paper": reach(1.0, 1.0)}}]
)
def test_it_does_not_hold_otherwise(changed):
    claim = Anchors(numbers=(1, 5))
    verdict = claim.verdict(MEASURED)
    assert verdict.held
    assert "1: 40.0%, 5: 99.0%" in verdict.line
    assert not claim.verdict({**MEASURED, **changed}).held


def test_another_model_is_refused():
    base = compose(["experiment=anchors", "model=yolo"])
    with pytest.raises(UserError, match="reads the parts of faster_rcnn, got yolo"):
        Anchors().variants(base)


def test_numbers_must_rise():
    with pytest.raises(ValueError, match="numbers must be at least 2"):
        Anchors(numbers=(5, 1))
