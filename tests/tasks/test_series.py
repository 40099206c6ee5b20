"""The head of a model of series, by hand: which value is compared with which, weights, r2."""

import pytest
import torch
from torch.testing import assert_close

from dlx.tasks.series import NextValue
from dlx.tasks.spec import RealSequence

SERIES = RealSequence(length=4)
BATCH = {"series": torch.tensor([[[1.0], [2.0], [4.0], [8.0]], [[0.0], [0.0], [1.0], [0.0]]])}
LAST = BATCH["series"].clone()  # each value is predicted to stay as it is


def head(loss="mse", given=1, series=SERIES):
    return NextValue(series, "series", loss, given)


def test_the_output_after_a_step_is_compared_with_the_value_of_the_next():
    assert head().loss(LAST, BATCH).item() == pytest.approx((1 + 4 + 16 + 0 + 1 + 1) / 6)
    assert head("l1").loss(LAST, BATCH).item() == pytest.approx((1 + 2 + 4 + 0 + 1 + 1) / 6)
    assert head(given=3).loss(LAST, BATCH).item() == pytest.approx((16 + 1) / 2)


def test_weights_multiply_the_losses_of_a_window():
    weighted = head().loss(LAST, {**BATCH, "weight": torch.tensor([0.0, 3.0])}).item()
    assert weighted == pytest.approx(3 * (2 / 3) / 2)


def test_r2_is_that_of_the_values_that_are_predicted():
    values = torch.tensor([2.0, 4, 8, 0, 1, 0])
    found = head().metrics(head().statistics(LAST, BATCH))
    assert found["mse"] == pytest.approx(23 / 6)
    assert found["r2"] == pytest.approx(1 - (23 / 6) / values.var(unbiased=False).item(), abs=1e-5)


def test_r2_of_several_values_a_step_compares_each_with_its_own_mean():
    series = RealSequence(length=3, size=2)
    value = torch.randn(5, 3, 2) * torch.tensor([1.0, 10.0]) + torch.tensor([100.0, -5.0])
    means = torch.zeros(5, 3, 2) + value[:, 1:].flatten(0, 1).mean(0)
    own = head(series=series)
    assert own.metrics(own.statistics(means, {"series": value}))["r2"] == pytest.approx(0, abs=1e-4)
    perfect = torch.cat([value[:, 1:], value[:, :1]], 1)
    assert own.metrics(own.statistics(perfect, {"series": value}))["r2"] == pytest.approx(1)


def test_the_answer_is_the_value_after_the_last():
    predicted = head().predict(LAST, BATCH)
    assert_close(predicted["next"], torch.tensor([[8.0], [0.0]]))
    assert head().answer(None, BATCH, predicted)[0].json == {"next": [8.0]}


def test_wrong_settings():
    with pytest.raises(ValueError, match=r"^loss must be"):
        head("cross_entropy")
    with pytest.raises(ValueError, match="longer than the 4 steps that are given, got 4"):
        head(given=4)


def test_the_picture_shows_each_of_the_values():
    series = RealSequence(length=4, size=2, names=("level", "slope"))
    value = torch.randn(1, 4, 2)
    figure = head(series=series).showcase(value, {"series": value})["one_step"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["level", "slope"]
    one = head().showcase(LAST, BATCH)["one_step"]
    assert_close(torch.tensor(one.axes[0].lines[1].get_ydata()), torch.tensor([1.0, 2.0, 4.0]))
    assert list(one.axes[0].lines[1].get_xdata()) == [1, 2, 3]
