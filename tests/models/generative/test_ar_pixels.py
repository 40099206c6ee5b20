"""AR-n of pixels: its weights are those that the course counts, and each regression is a regression."""

import json
import statistics

import pytest
import torch
import torch.nn.functional as F
from test_every_density import build, spec_of
from test_independent_pixels import descend, images, training

from dlx.models.generative.ar_pixels import ARPixels
from dlx.models.generative.markov_pixels import MarkovPixels


@pytest.mark.parametrize(
    ("shape", "order", "parameters"),
    [
        ((1, 8, 8, 2), None, 64 * 63 // 2 + 64),
        ((1, 8, 8, 2), 1, 63 + 64),  # 2n - 1, as a Markov chain
        ((1, 8, 8, 2), 8, 8 * 7 // 2 + 8 * 56 + 64),
        ((3, 2, 2, 4), 3, (3 + 3 * 9 + 12) * 4),
    ],
)
def test_parameters(shape, order, parameters):
    model = ARPixels(spec=spec_of(*shape), order=order)
    assert sum(p.numel() for p in model.parameters()) == model.free_numbers == parameters


@pytest.mark.parametrize("order", [None, 1, 3])
@pytest.mark.parametrize("shape", [(1, 3, 3, 2), (3, 2, 2, 4)])
def test_each_value_is_a_regression_on_the_last_n(shape, order):
    model = build(ARPixels, {"order": order}, spec_of(*shape))
    x_BCHW = model.image_of(torch.randint(model.levels, (6, model.dimensions)))
    x_BD, logits, used = x_BCHW.permute(0, 2, 3, 1).flatten(1), model.logits(x_BCHW), 0
    for i in range(model.dimensions):
        count = min(i, order or model.dimensions)
        weight_NK = model.weight[used : used + count]
        used += count
        expected = F.linear(x_BD[:, i - count : i], weight_NK.T, model.bias[i])
        torch.testing.assert_close(logits[:, i], expected)
    assert used == len(model.weight)


def test_of_order_1_it_is_the_markov_chain():
    """A regression on one binary pixel is a table of two rows."""
    spec, x_BCHW = images(levels=2, height=3, width=3, count=60)
    chain = MarkovPixels(spec=spec, given="previous", smoothing=1e-6)
    chain.fit(training({"image": x_BCHW}))
    loss = descend(ARPixels(spec=spec, order=1), x_BCHW, steps=800)
    assert loss == pytest.approx(-chain.log_prob({"image": x_BCHW}).mean().item(), abs=2e-3)


def test_before_training_all_images_are_equally_probable():
    spec, x_BCHW = images(levels=4)
    found = ARPixels(spec=spec).log_prob({"image": x_BCHW})
    torch.testing.assert_close(found, torch.full((len(x_BCHW),), -6 * torch.tensor(4.0).log()))


@pytest.mark.parametrize(
    ("shape", "order", "message"),
    [
        ((1, 2, 2, 2), 0, "order must be at least 1, got 0"),
        ((1, 2, 2, 2), 4, "order must be below 4, the values of an image, or null for all of them, got 4"),
        ((3, 32, 32, 256), None, "spec must be of images with at most 134,217,728 weights, .* got 2,415,919,104"),
    ],
)
def test_wrong_arguments_are_said(shape, order, message):
    with pytest.raises(ValueError, match="^" + message):
        ARPixels(spec=spec_of(*shape), order=order)


@pytest.mark.slow
def test_binary_digits(dlx_call):
    """All of the past: at most 18.5 nats."""
    found = []
    for seed in range(3):
        call = dlx_call("train", "model=ar_pixels", f"seed={seed}", "--json")
        assert call.code == 0, call.err
        found.append(json.loads(call.out)["metrics"]["test/nll"])
    assert statistics.mean(found) <= 18.5, found
