"""Markov pixels: tables against dictionaries, the two ways to learn them, free numbers, what they reach on digits."""

import json
import math
from collections import Counter

import pytest
import torch
from test_every_density import spec_of
from test_independent_pixels import descend, images, training

from dlx.models.generative.markov_pixels import MarkovPixels

GIVEN = ("above", "left", "previous")


def before(given, channel, row, column, width):
    """The pixel that one is given, or None."""
    if given == "above":
        return (channel, row - 1, column) if row else None
    if given == "left" or column:
        return (channel, row, column - 1) if column else None
    return (channel, row - 1, width - 1) if row else None


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("shape", [(1, 3, 4, 2), (1, 2, 3, 4), (3, 3, 2, 3)])
def test_log_prob_is_that_of_counts_by_dictionaries(shape, given):
    channels, height, width, levels = shape
    spec, x_BCHW = images(*shape)
    model = MarkovPixels(spec=spec, given=given, smoothing=0.5)
    assert model.objectives() == []
    model.fit(training({"image": x_BCHW[:7]}, {"image": x_BCHW[7:]}))
    rows = (x_BCHW * (levels - 1)).round().long()
    expected, free = torch.zeros(len(rows)), 0
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                other = before(given, c, i, j, width)
                own = rows[:, c, i, j].tolist()
                condition = rows[:, other[0], other[1], other[2]].tolist() if other else [None] * len(own)
                both, alone = Counter(zip(condition, own, strict=True)), Counter(condition)
                for b, pair in enumerate(zip(condition, own, strict=True)):
                    expected[b] += math.log((both[pair] + 0.5) / (alone[pair[0]] + 0.5 * levels))
                free += (levels - 1) * (levels if other else 1)
    torch.testing.assert_close(model.log_prob({"image": x_BCHW}), expected, atol=1e-4, rtol=1e-5)
    assert model.free_numbers == free


def test_a_chain_of_n_binary_pixels_has_2n_minus_1_numbers():
    assert MarkovPixels(spec=spec_of(1, 8, 8, 2), given="previous").free_numbers == 2 * 64 - 1


@pytest.mark.parametrize("given", GIVEN)
def test_by_gradient_it_goes_to_the_counts(given):
    spec, x_BCHW = images(levels=2, height=3, width=3, count=60)
    counted, learned = (
        MarkovPixels(spec=spec, given=given, smoothing=1e-6),
        MarkovPixels(spec=spec, given=given, by="gradient"),
    )
    counted.fit(training({"image": x_BCHW}))
    loss = descend(learned, x_BCHW, steps=800)
    assert loss == pytest.approx(-counted.log_prob({"image": x_BCHW}).mean().item(), abs=2e-3)
    seen_DG = counted.table.sum(-1) > 0
    expected = counted.table[seen_DG] / counted.table[seen_DG].sum(-1, keepdim=True)
    torch.testing.assert_close(learned.table[seen_DG].softmax(-1), expected, atol=0.02, rtol=0)
    learned.fit(training())  # nothing to do


def test_weights_count_as_so_many_samples():
    spec, x_BCHW = images(count=4)
    weighted, repeated = MarkovPixels(spec=spec), MarkovPixels(spec=spec)
    weighted.fit(training({"image": x_BCHW, "weight": torch.tensor([1.0, 2.0, 0.0, 3.0])}))
    repeated.fit(training({"image": x_BCHW[[0, 1, 1, 3, 3, 3]]}))
    torch.testing.assert_close(weighted.table, repeated.table)


@pytest.mark.parametrize(("given", "nats"), [("above", 22.5), ("previous", 24.11)])
def test_binary_digits(given, nats, dlx_call):
    call = dlx_call("train", "model=markov_pixels", f"model.given={given}", "--json")
    assert call.code == 0, call.err
    assert json.loads(call.out)["metrics"]["test/nll"] == pytest.approx(nats, abs=0.3)


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((1, 2, 2, 2), {"given": "right"}, "given must be above, left or previous, got 'right'"),
        ((1, 2, 2, 2), {"by": "hand"}, "by must be counts or gradient, got 'hand'"),
        ((1, 2, 2, 2), {"smoothing": -1.0}, "smoothing must be above 0, .* got -1"),
        ((3, 64, 64, 256), {}, "spec must be of images whose tables have at most 134,217,728 entries, got 805,306,368"),
    ],
)
def test_wrong_arguments_are_said(shape, arguments, message):
    with pytest.raises(ValueError, match="^" + message):
        MarkovPixels(spec=spec_of(*shape), **arguments)
