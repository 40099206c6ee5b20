"""Crops against unfolding by hand, which cell an object is in, and what the verdict needs."""

import pytest
import torch

from dlx.claims.convolutionalization import Convolutionalization, flops, named_rightly, windows
from dlx.config import compose
from dlx.config.errors import UserError

MEASURED = {
    "parameters": [10, 10], "same": 1e-14, "window": 1e-14, "cells": [5, 5], "stride": 4, "found": 0.99,
    "flops": [100, 900], "seconds": [1e-3, 9e-3], "side": 32,
}  # fmt: skip


def test_the_crops_are_all_windows_row_by_row():
    x = torch.arange(3 * 8 * 8.0).view(1, 3, 8, 8)
    found = windows(x, 4, 2)
    assert found.shape == (9, 3, 4, 4)
    assert torch.equal(found[5], x[0, :, 2:6, 4:8])


def test_an_object_is_in_the_cell_whose_window_is_around_it():
    heat = torch.zeros(1, 2, 3, 3)  # windows of 8 pixels at steps of 4: their middles are 4, 8 and 12
    heat[0, 1, 2, 0] = 1
    boxes = torch.tensor([[[2.0, 9, 7, 14, 1], [9, 2, 14, 7, 0], [0, 0, 3, 3, 1], [0, 0, 0, 0, -1]]])
    assert named_rightly(heat, boxes, 8, 4) == pytest.approx(2 / 3)


def test_flops_are_those_of_the_layer():
    assert flops(torch.nn.Conv2d(3, 5, 3), torch.zeros(1, 3, 10, 10)) == 2 * 5 * 3 * 9 * 64


@pytest.mark.parametrize(
    "changed", [{"parameters": [10, 11]}, {"same": 1e-3}, {"window": 1e-3}, {"flops": [9, 8]}, {"found": 0.4}]
)
def test_it_does_not_hold_where_they_differ(changed):
    claim = Convolutionalization()
    assert claim.verdict(MEASURED).held
    assert not claim.verdict({**MEASURED, **changed}).held


def test_the_objects_of_the_larger_pictures_have_the_same_sizes():
    base = compose(["experiment=convolutionalization"])
    config = compose(Convolutionalization(larger=64).larger_words(base, 32), base=base)
    assert config["dataset"]["extent"] == [0.25, 0.4]
    assert config["dataset"]["objects"] == [6, 6]


def test_another_model_is_refused():
    with pytest.raises(UserError, match="reads the layers of cnn, got vgg"):
        Convolutionalization().variants(compose(["experiment=convolutionalization", "model=vgg", "~model.variant"]))


@pytest.mark.parametrize(
    ("arguments", "text"), [({"larger": 0}, "larger must be at least 1"), ({"scenes": 5}, "scenes must be at least 20")]
)
def test_a_value_out_of_range_is_named(arguments, text):
    with pytest.raises(ValueError, match=text):
        Convolutionalization(**arguments)
