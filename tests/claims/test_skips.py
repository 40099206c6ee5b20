"""The verdict is about accuracy at borders."""

import pytest

from dlx.claims.skips import Skips


def measured(*at_borders):
    return {
        name: {"miou": [0.9, 0.91], "boundary_accuracy": [value, value]}
        for name, value in zip(("32s", "16s", "8s"), at_borders, strict=True)
    }


@pytest.mark.parametrize(
    ("at_borders", "held"), [((0.6, 0.7, 0.8), True), ((0.6, 0.8, 0.7), False), ((0.6, 0.6, 0.8), False)]
)
def test_each_skip_must_help(at_borders, held):
    verdict = Skips().verdict(measured(*at_borders))
    assert verdict.held == held
    assert f"accuracy within 2 pixels of a border 32s {at_borders[0]:.4f} ± 0.0000" in verdict.line


def test_seeds_must_be_some():
    with pytest.raises(ValueError, match="seeds must be at least 1"):
        Skips(seeds=0)
