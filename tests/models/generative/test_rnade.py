"""RNADE: densities that integrate to one, torch's own mixture beside it, images as levels, what it reaches on rings."""

import itertools
import json
import math
import statistics

import pytest
import torch
from test_every_density import spec_of
from torch.distributions import Categorical, MixtureSameFamily, Normal

from dlx.models.generative.rnade import RNADE
from dlx.tasks.spec import Points, Reals


def build(spec, **arguments):
    torch.manual_seed(0)
    model = RNADE(spec=spec, **{"hidden": 5, "components": 3, **arguments}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model


def points(size):
    return Points(features=Reals(size=size))


@pytest.mark.parametrize("ordering", ["raster", "random"])
def test_the_density_of_the_plane_integrates_to_one(ordering):
    model = build(points(2), ordering=ordering, ordering_seed=1).double()
    line = torch.linspace(-12, 12, 600, dtype=torch.float64)
    with torch.no_grad():
        p = model.log_prob({"features": torch.cartesian_prod(line, line)}).exp()
    assert (p.sum() * (line[1] - line[0]) ** 2).item() == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("ordering", ["raster", "random"])
def test_log_prob_is_that_of_torchs_mixtures_in_the_papers_loop(ordering):
    model = build(points(4), ordering=ordering)
    x_BD, a_BF, expected_B = torch.randn(6, 4), model.bias.expand(6, -1), torch.zeros(6)
    for step, position in enumerate(model.order.tolist()):
        h_BF = torch.relu(model.rescale[step] * a_BF)
        logits, mean, log_std = (h_BF @ model.out_weight[step] + model.out_bias[step]).chunk(3, 1)
        normal = Normal(mean, log_std.exp() + model.least_std)
        expected_B = expected_B + MixtureSameFamily(Categorical(logits=logits), normal).log_prob(x_BD[:, position])
        a_BF = a_BF + x_BD[:, position : position + 1] * model.weight[step]
    torch.testing.assert_close(model.log_prob({"features": x_BD}), expected_B, rtol=1e-4, atol=1e-4)


def test_a_coordinate_depends_on_none_that_comes_later():
    model = build(points(5), ordering="random").double()
    z_BD = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    conditional_BD = model.conditionals(z_BD)
    for step in range(5):
        (gradient,) = torch.autograd.grad(conditional_BD[:, step].sum(), z_BD, retain_graph=True)
        assert not gradient[:, step + 1 :].any()
        assert gradient[:, step].all()


@pytest.mark.parametrize(
    "spec", [points(4), spec_of(1, 3, 2, 17), spec_of(3, 2, 2, 4)], ids=["points", "gray", "colour"]
)
def test_the_same_samples_with_a_cache_and_without(spec):
    model = build(spec, ordering="random")
    made = []
    for use_cache in (True, False):
        torch.manual_seed(1)
        made.append(next(iter(model.sample(50, use_cache=use_cache).values())))
    torch.testing.assert_close(*made, rtol=1e-3, atol=1e-4)
    assert made[0].shape == (50, *model.input.shape)


def test_samples_are_of_the_density():
    """The mean log p of samples is the negative entropy, found on a grid."""
    model = build(points(2)).double()
    line = torch.linspace(-12, 12, 600, dtype=torch.float64)
    with torch.no_grad():
        log_p = model.log_prob({"features": torch.cartesian_prod(line, line)})
        p = log_p.exp() / log_p.exp().sum()
        mean, variance = (p * log_p).sum(), (p * log_p.square()).sum() - (p * log_p).sum().square()
        torch.manual_seed(2)
        sampled = model.log_prob(model.sample(5000)).mean()
    assert abs(sampled - mean) < 4 * (variance / 5000).sqrt()


def test_of_images_it_is_below_the_log_probability_of_the_levels():
    """P(levels) of two pixels of three levels by a fine grid over u; the mean of log p(levels + u) is below it."""
    model = build(spec_of(1, 1, 2, 3))
    levels_ND = torch.tensor(list(itertools.product(range(3), repeat=2)))
    x_NCHW = (levels_ND.float() / 2).view(-1, 1, 1, 2)
    u_UD = torch.cartesian_prod(*[(torch.arange(60) + 0.5) / 60] * 2)
    z_NUD = 4 * ((levels_ND[:, None] + u_UD) / 3 - 0.5)
    with torch.no_grad():
        log_p_NU = model.conditionals(z_NUD.flatten(0, 1)).sum(1).view(9, -1) + 2 * math.log(4 / 3)
        exact_N = log_p_NU.logsumexp(1) - math.log(len(u_UD))
        drawn = {"image": x_NCHW.repeat(4000, 1, 1, 1), "index": torch.arange(36_000)}
        bound_N = model.log_prob(drawn).view(-1, 9).mean(0)
    assert exact_N.exp().sum() < 1  # what lies outside the levels is missing
    assert ((bound_N - log_p_NU.mean(1)).abs() < 5 * log_p_NU.std(1) / 4000**0.5).all()
    assert (log_p_NU.mean(1) < exact_N).all()


def test_metrics_of_images_do_not_depend_on_the_batch_size():
    model = build(spec_of(1, 3, 2, 17))
    batch = {"image": torch.randint(17, (20, 1, 3, 2)) / 16, "index": torch.arange(20)}
    with torch.no_grad():
        whole = model.evaluate(batch)["nll"]
        parts = [
            model.evaluate({name: value[i : i + 3] for name, value in batch.items()})["nll"] for i in range(0, 20, 3)
        ]
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-6)
    model.train()
    assert model.log_prob(batch).sum() != model.log_prob(batch).sum()  # a training step draws anew


def test_it_learns_two_points_apart():
    torch.manual_seed(0)
    model = RNADE(spec=points(2), hidden=8, components=4)
    x_B2 = torch.randn(400, 1) * 0.1 + torch.where(torch.rand(400, 1) < 0.5, 1.0, -1.0).expand(-1, 2)
    x_B2 = x_B2 + 0.1 * torch.randn(400, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(200):
        loss, _ = model.training_loss({"features": x_B2}, None)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    covariance = 0.01 * torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    entropy = 0.5 * torch.logdet(2 * math.pi * math.e * covariance).item() + math.log(2)
    assert loss.item() < entropy + 0.1


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pictures(size):
    model = build(points(size))
    with torch.no_grad():
        assert set(model.showcase({"features": torch.randn(50, size), "index": torch.arange(50)})) == {"samples"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"components": 0}, "components must be at least 1, got 0"),
        ({"least_std": 0.0}, "least_std must be above 0, got 0"),
        ({"ordering": "spiral"}, "ordering must be raster or random, got 'spiral'"),
    ],
)
def test_wrong_arguments_are_said(arguments, message):
    with pytest.raises(ValueError, match="^" + message):
        RNADE(spec=points(2), **arguments)


@pytest.mark.slow
def test_rings(dlx_call):
    """Within a tenth of a nat of the density that the points are drawn from."""
    from dlx.data.toy_density import ToyDensity

    found = []
    for seed in range(3):
        call = dlx_call("train", "model=rnade", f"seed={seed}", "--json")
        assert call.code == 0, call.err
        found.append(json.loads(call.out)["metrics"]["test/nll"])
    data = ToyDensity()
    entropy = -data.log_density(data.splits()["test"].tensors["features"]).mean().item()
    assert entropy < statistics.mean(found) <= entropy + 0.1, found
