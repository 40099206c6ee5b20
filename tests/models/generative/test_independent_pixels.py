"""Independent pixels: counts against counts in plain Python, the two ways to learn them, what it reaches on digits."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from test_every_density import spec_of

from dlx.models.generative.independent_pixels import IndependentPixels


def training(*batches):
    """What `System.fit` is given."""
    return SimpleNamespace(train=SimpleNamespace(eval_batches=lambda: iter([dict(batch) for batch in batches])))


def images(channels=1, height=3, width=2, levels=3, count=30):
    torch.manual_seed(0)
    raw = torch.randint(levels, (count, channels, height, width)) * torch.randint(2, (count, 1, 1, 1))
    return spec_of(channels, height, width, levels), raw.float() / (levels - 1)


def descend(model, x_BCHW, steps=400, lr=0.3):
    """The table after full-batch training with a learning rate that falls to 0, and its last loss."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    (objective,) = model.objectives()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
        loss, _ = model.training_loss({"image": x_BCHW}, objective)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("smoothing", [1.0, 0.1])
@pytest.mark.parametrize("shape", [(1, 3, 2, 2), (1, 3, 2, 5), (3, 2, 2, 4)])
def test_log_prob_is_that_of_smoothed_counts(shape, smoothing):
    spec, x_BCHW = images(*shape)
    model = IndependentPixels(spec=spec, smoothing=smoothing)
    assert model.objectives() == []
    model.fit(training({"image": x_BCHW[:10]}, {"image": x_BCHW[10:]}))
    N, K = len(x_BCHW), shape[-1]
    columns = (x_BCHW * (K - 1)).round().long().flatten(1).T.tolist()
    expected = [
        sum(math.log((column.count(column[row]) + smoothing) / (N + smoothing * K)) for column in columns)
        for row in range(N)
    ]
    torch.testing.assert_close(model.log_prob({"image": x_BCHW}), torch.tensor(expected), atol=1e-4, rtol=1e-5)


def test_by_gradient_it_goes_to_the_counts():
    spec, x_BCHW = images()
    counted, learned = IndependentPixels(spec=spec, smoothing=1e-6), IndependentPixels(spec=spec, by="gradient")
    counted.fit(training({"image": x_BCHW}))
    loss = descend(learned, x_BCHW)
    assert loss == pytest.approx(-counted.log_prob({"image": x_BCHW}).mean().item(), abs=1e-3)
    expected_DK = counted.table / counted.table.sum(1, keepdim=True)
    torch.testing.assert_close(learned.table.softmax(1), expected_DK, atol=1e-2, rtol=0)
    learned.fit(training())  # nothing to do


def test_weights_count_as_so_many_samples():
    spec, x_BCHW = images(count=4)
    weighted, repeated = IndependentPixels(spec=spec), IndependentPixels(spec=spec)
    weighted.fit(training({"image": x_BCHW, "weight": torch.tensor([1.0, 2.0, 0.0, 3.0])}))
    repeated.fit(training({"image": x_BCHW[[0, 1, 1, 3, 3, 3]]}))
    torch.testing.assert_close(weighted.table, repeated.table)


def test_samples_have_the_means_of_the_pixels():
    spec, x_BCHW = images(levels=2)
    model = IndependentPixels(spec=spec)
    model.fit(training({"image": x_BCHW}))
    torch.manual_seed(1)
    *_, made = model.sample(4000)
    p = (x_BCHW.sum(0) + 1) / (len(x_BCHW) + 2)
    assert ((made["image"].mean(0) - p).abs() < 4 * (p * (1 - p) / 4000).sqrt()).all()


def test_binary_digits(dlx_call):
    """25.2 nats, and what each kind of table would take, in the report."""
    call = dlx_call("train", "model=independent_pixels", "name=a", "--json")
    assert call.code == 0, call.err
    assert json.loads(call.out)["metrics"]["test/nll"] == pytest.approx(25.2, abs=0.3)
    report = dlx_call("eval", "a")
    assert report.code == 0, report.err
    assert all(number in report.out for number in ("64", "127", "2^64 - 1"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": "hand"}, "by must be counts or gradient, got 'hand'"),
        ({"smoothing": 0.0}, "smoothing must be above 0, .* got 0"),
    ],
)
def test_wrong_arguments_are_said(arguments, message):
    with pytest.raises(ValueError, match="^" + message):
        IndependentPixels(spec=spec_of(1, 2, 2, 2), **arguments)
