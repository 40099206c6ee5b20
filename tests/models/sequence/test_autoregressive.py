"""AR-n: known coefficients, the closed form against numpy and gradients, what a window sees, errors steps ahead."""

import json

import numpy as np
import pytest
import torch

from dlx.models.sequence.autoregressive import Autoregressive
from dlx.models.sequence.latent_autoregressive import LatentAutoregressive
from dlx.tasks.spec import RealSequence, Series


def ar2(count, length, noise=1.0, seed=0):
    """x_t = 0.75 x_{t-1} - 0.5 x_{t-2} + noise, as windows [N, T, 1] that share no value."""
    draws = np.random.default_rng(seed).normal(0, noise, count * length)
    x = np.zeros(count * length)
    for t in range(2, len(x)):
        x[t] = 0.75 * x[t - 1] - 0.5 * x[t - 2] + draws[t]
    return torch.from_numpy(x).float().view(count, length, 1)


@pytest.mark.parametrize("seed", range(3))
def test_known_coefficients_are_recovered(seed, training):
    x = ar2(100, 200, seed=seed)
    model = Autoregressive(spec=Series(series=RealSequence(length=200)), window=2)
    assert model.objectives() == []
    assert list(model.parameters()) == []
    model.fit(training({"series": x[:50]}, {"series": x[50:]}))
    assert model.out.weight[:, 0].tolist() == pytest.approx([-0.5, 0.75], abs=0.02)  # the oldest first
    assert abs(model.out.bias.item()) < 0.03
    assert model.metrics(model.evaluate({"series": x}))["mse"] == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("window", [1, 3, None])
def test_the_closed_form_is_numpys_least_squares(window, training):
    x = torch.randn(20, 12, 2).cumsum(1)
    weight = torch.rand(20)
    model = Autoregressive(spec=Series(series=RealSequence(length=12, size=2)), window=window)
    model.fit(training({"series": x[:7], "weight": weight[:7]}, {"series": x[7:], "weight": weight[7:]}))
    n, given = window or 11, window or 1
    padded = np.concatenate([np.zeros((20, n, 2)), x.numpy()], 1)
    rows, aims = [], []
    for sample, w in zip(padded, weight.sqrt().numpy(), strict=True):
        for t in range(given, 12):
            rows.append(w * np.append(sample[t : t + n].ravel(), 1))
            aims.append(w * sample[n + t])
    expected = np.linalg.lstsq(np.array(rows), np.array(aims), rcond=None)[0]
    np.testing.assert_allclose(model.out.weight, expected[:-1], atol=1e-4)
    np.testing.assert_allclose(model.out.bias, expected[-1], atol=1e-4)


def test_by_gradient_it_goes_to_the_closed_form(training):
    x, spec = ar2(50, 40), Series(series=RealSequence(length=40))
    solved, learned = Autoregressive(spec=spec, window=3), Autoregressive(spec=spec, window=3, by="gradient")
    solved.fit(training({"series": x}))
    optimizer = torch.optim.LBFGS(learned.parameters(), max_iter=100, line_search_fn="strong_wolfe")
    (objective,) = learned.objectives()

    def loss():
        optimizer.zero_grad()
        value, _ = learned.training_loss({"series": x}, objective)
        value.backward()
        return value

    optimizer.step(loss)
    torch.testing.assert_close(learned.out.weight.T, solved.out.weight, atol=1e-3, rtol=0)
    learned.fit(training())  # nothing to do


@pytest.mark.parametrize("window", [1, 3, None])
@pytest.mark.parametrize("kind", ["streams", "series"])
def test_a_window_sees_its_steps_alone(window, kind, specs, random_batch):
    spec = specs[kind]
    model = Autoregressive(spec=spec, window=window, hidden=(5,)).eval()
    (entry,) = spec.entries.values()
    (x, _) = random_batch(spec).values()
    changed = x.clone()
    changed[:, 4] = (x[:, 4] + 1) % 7 if kind == "streams" else x[:, 4] + 1
    moved = (model(x) - model(changed)).abs().amax((0, 2)).nonzero()[:, 0].tolist()
    assert moved == list(range(4, min(entry.length, 4 + (window or entry.length))))


@pytest.mark.parametrize("make", [Autoregressive, LatentAutoregressive])
@pytest.mark.parametrize("kind", ["streams", "series"])
def test_a_cache_goes_on_where_it_stopped(make, kind, specs, random_batch):
    model = make(spec=specs[kind]).eval()
    (x, _) = random_batch(specs[kind]).values()
    cache = {}
    parts = [model.features(part, cache) for part in x.split([5, 1, 1, x.shape[1] - 7], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), model.features(x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("make", [Autoregressive, LatentAutoregressive])
def test_the_same_text_with_a_cache_and_without(make, specs):
    model = make(spec=specs["streams"]).eval()
    made = []
    with torch.no_grad():
        for use_cache in (True, False):
            torch.manual_seed(1)
            *_, last = model.sample(3, length=20, use_cache=use_cache)
            made.append(last["tokens"])
    assert torch.equal(*made)


def test_the_state_is_made_of_the_one_before_and_the_step(specs, random_batch):
    model = LatentAutoregressive(spec=specs["series"], state=4, between=3)
    (x, _) = random_batch(specs["series"]).values()
    h = torch.zeros(len(x), 4)
    for t in range(3):
        h = torch.tanh(model.to_state(torch.tanh(model.from_step(x[:, t]) + model.from_state(h))))
    torch.testing.assert_close(model.features(x)[:, 2], h)


@pytest.mark.parametrize(
    "make",
    [
        lambda spec: Autoregressive(spec=spec, window=2, hidden=(16,)),
        lambda spec: LatentAutoregressive(spec=spec, state=16),
    ],
)
def test_one_batch_is_learned_by_heart(make, specs, random_batch):
    spec = specs["streams"]
    model, batch = make(spec), random_batch(spec, 2)
    batch["tokens"][:] = torch.tensor([1, 2, 3, 4, 5, 6, 1, 2, 3, 4])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        loss, _ = model.training_loss(batch, model.objectives()[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05


def test_errors_ahead_are_those_of_a_rollout_by_hand():
    """x_t = 0.9 x_{t-1} + 1, told by a model that has 0.8 for 0.9, from the value before the last 4."""
    spec = Series(series=RealSequence(length=8))
    model = Autoregressive(spec=spec, window=1)
    model.out.weight.fill_(0.8)
    model.out.bias.fill_(1.0)
    x = torch.zeros(3, 8, 1)
    for t in range(1, 8):
        x[:, t] = 0.9 * x[:, t - 1] + 1
    x *= torch.tensor([1.0, 2.0, -1.0]).view(3, 1, 1)
    ahead, errors = x[:, 3], []  # the windows hold 8 steps, of which each is predicted once: from there on alone
    for t in range(4, 8):
        ahead = 0.8 * ahead + 1
        errors.append((ahead - x[:, t]).square().mean().item())
    batch = {"series": x}
    found = model.metrics(model.evaluate(batch))
    assert set(found) == set(model.metric_names) == {"loss", "mse", "r2", "mse_1", "mse_4"}
    assert found["mse_1"] == pytest.approx(errors[0])
    assert found["mse_4"] == pytest.approx(errors[3])
    parts = [model.evaluate({"series": x[:1]}), model.evaluate({"series": x[1:]})]
    assert model.metrics({key: parts[0][key] + parts[1][key] for key in parts[0]}) == pytest.approx(found)
    changed = x.clone()
    changed[:, 4:] += 5  # the values that are predicted are not read
    torch.testing.assert_close(model.rollout(changed[:, :4], 4), model.rollout(x[:, :4], 4))


def test_errors_ahead_of_a_known_process(training):
    """By the true coefficients the error k steps ahead is the sum of squares of the first k impulse responses."""
    x = ar2(400, 100, seed=3)
    model = Autoregressive(spec=Series(series=RealSequence(length=100)), window=2)
    model.fit(training({"series": x}))
    response = [1.0, 0.75]
    for _ in range(62):
        response.append(0.75 * response[-1] - 0.5 * response[-2])
    found = model.metrics(model.evaluate({"series": x}))
    for steps in (1, 4, 16, 64):
        assert found[f"mse_{steps}"] == pytest.approx(sum(r * r for r in response[:steps]), rel=0.25)
    assert "ahead" in model.showcase({"series": x})


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("series", {"window": 0}, "window must be at least 1, got 0"),
        ("series", {"window": 12}, "window must be below 12, the steps of the data's sequences, got 12"),
        ("series", {"hidden": (0,)}, r"hidden must hold widths of at least 1, got \[0\]"),
        ("series", {"by": "least_squares", "hidden": (3,)}, "by must be gradient unless"),
        ("series", {"by": "least_squares", "loss": "l1"}, "by must be gradient unless"),
        ("streams", {"by": "least_squares"}, "by must be gradient unless"),
        ("series", {"loss": "cross_entropy"}, "loss must be one of mse, l1, huber"),
    ],
)
def test_wrong_arguments_are_said(kind, arguments, message, specs):
    with pytest.raises(ValueError, match="^" + message):
        Autoregressive(spec=specs[kind], **arguments)
    with pytest.raises(ValueError, match="state must be at least 1, got 0"):
        LatentAutoregressive(spec=specs[kind], state=0)


def test_predict_tells_the_value_after_a_series_in_a_file(dlx_call, here):
    trained = dlx_call("train", "model=autoregressive", "data.size=2000", "model.window=2", "--json")
    run = json.loads(trained.out)["run"]
    (here / "series.csv").write_text("value\n0\n0\n1\n2\n")
    (answer,) = json.loads(dlx_call("predict", run, "series.csv", "--json").out)["predictions"]
    assert answer["next"][0] == pytest.approx(0.75 * 2 - 0.5 * 1, abs=0.15)
    (here / "none.csv").write_text("")
    refused = dlx_call("predict", run, "none.csv")
    assert (refused.code, refused.err) == (2, "error: none.csv: holds no rows\n")
