"""Votes and averages, by hand."""

import math

import pytest
import torch

from dlx.tasks.vote import FLOOR, combine_votes

LOGITS_MBK = torch.tensor([[[0.0, 0.0], [2.0, 0.0]], [[math.log(9), 0.0], [0.0, 2.0]], [[0.0, 1.0], [0.0, 2.0]]])


def test_the_average_is_of_probabilities():
    expected_BK = LOGITS_MBK.softmax(-1).mean(0)
    torch.testing.assert_close(combine_votes(LOGITS_MBK, torch.ones(3), "average", classes=True).exp(), expected_BK)
    found_BK = combine_votes(LOGITS_MBK, torch.tensor([1.0, 3.0, 0.0]), "average", classes=True).exp()
    assert found_BK[0, 0].item() == pytest.approx((0.5 + 3 * 0.9) / 4)


def test_a_majority_is_of_labels():
    found_BK = combine_votes(LOGITS_MBK, torch.ones(3), "majority", classes=True).exp()
    torch.testing.assert_close(found_BK, torch.tensor([[2 / 3, 1 / 3], [1 / 3, 2 / 3]]))
    weighted_BK = combine_votes(LOGITS_MBK, torch.tensor([1.0, 1.0, 3.0]), "majority", classes=True).exp()
    torch.testing.assert_close(weighted_BK, torch.tensor([[0.4, 0.6], [0.2, 0.8]]))
    one_BK = combine_votes(LOGITS_MBK[:1], torch.ones(1), "majority", classes=True)
    torch.testing.assert_close(one_BK.exp(), torch.tensor([[1.0, FLOOR], [1.0, FLOOR]]))


def test_values_are_averaged_or_added_up():
    value_MBK = torch.tensor([[[1.0]], [[4.0]]])
    weight_M = torch.tensor([3.0, 1.0])
    assert combine_votes(value_MBK, weight_M, "average", classes=False).item() == pytest.approx(1.75)
    assert combine_votes(value_MBK, weight_M, "sum", classes=False).item() == pytest.approx(7)


def test_members_may_count_for_each_sample_otherwise():
    weight_MB = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    found_BK = combine_votes(LOGITS_MBK, weight_MB, "average", classes=True).exp()
    torch.testing.assert_close(found_BK, torch.stack([LOGITS_MBK[0, 0].softmax(-1), LOGITS_MBK[1, 1].softmax(-1)]))
