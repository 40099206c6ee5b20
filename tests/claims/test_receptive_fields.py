"""What masked networks see: a triangle counted by hand, verdicts that fail where one sees less, or what is to come."""

import pytest
import torch

from dlx.claims.receptive_fields import ReceptiveFields
from dlx.config import compose


@pytest.fixture(scope="module")
def measured():
    return ReceptiveFields(side=9, cnn_depth=6).measure(compose(["experiment=receptive_fields"]), {})


def test_it_holds_where_each_sees_what_it_should(measured):
    verdict = ReceptiveFields().verdict(measured)
    assert verdict.held, verdict.line


def test_a_row_lstm_sees_a_triangle(measured):
    """d rows above: d + 2 columns to the left, d to the right."""
    seen_HW = torch.tensor(measured["Row LSTM"]["map"]) > 0
    for row in range(5):
        d = 4 - row
        expected = [-d - 2 <= column - 4 <= (d if d else -1) for column in range(9)]
        assert seen_HW[row].tolist() == expected


def test_the_blind_spot_lies_above_to_the_right(measured):
    """From the second row above on, each row shows one column more."""
    seen_HW = torch.tensor(measured["PixelCNN"]["map"]) > 0
    assert seen_HW[4].tolist() == [True] * 4 + [False] * 5
    for row in range(4):
        assert seen_HW[row].tolist() == [column - 4 <= 4 - row for column in range(9)]


@pytest.mark.parametrize(
    ("name", "changed"),
    [("Diagonal BiLSTM", {"past": 0.99}), ("PixelCNN", {"past": 1.0}), ("Row LSTM", {"future": 1})],
)
def test_it_does_not_hold_where_one_sees_something_else(name, changed, measured):
    assert not ReceptiveFields().verdict({**measured, name: {**measured[name], **changed}}).held


@pytest.mark.parametrize(
    ("arguments", "text"),
    [({"side": 6}, "side must be odd and at least 5, got 6"), ({"images": 0}, "images must be at least 1, got 0")],
)
def test_a_value_out_of_range_is_named(arguments, text):
    with pytest.raises(ValueError, match=text):
        ReceptiveFields(**arguments)
