"""The gradient penalty against its closed form; losses by hand and at their optimum; spread and modes of samples."""

import math

import pytest
import torch
from torch import nn

from dlx.tasks.adversarial import (
    LOSSES,
    collapse_remarks,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    mode_counts,
    spread,
    spread_sums,
)


def test_of_a_linear_critic_it_is_the_norm_of_its_weights():
    critic = nn.Linear(6, 1, bias=False)
    real, fake = torch.randn(8, 6), torch.randn(8, 6)
    expected = (critic.weight.norm() - 1) ** 2
    assert gradient_penalty(critic, real, fake).item() == pytest.approx(expected.item(), rel=1e-5)


def test_its_own_gradient_is_that_of_finite_differences():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    real, fake = torch.randn(2, 5, 4, dtype=torch.float64)

    def penalty() -> torch.Tensor:
        torch.manual_seed(1)
        return gradient_penalty(lambda x: critic(x.double()), real, fake)

    weight = critic[0].weight
    (slope,) = torch.autograd.grad(penalty(), weight)
    for place in ((0, 0), (3, 2), (7, 3)):
        values = []
        for step in (1e-3, -1e-3):
            with torch.no_grad():
                weight[place] += step
            values.append(penalty().item())
            with torch.no_grad():
                weight[place] -= step
        assert slope[place].item() == pytest.approx((values[0] - values[1]) / 2e-3, rel=2e-2, abs=1e-4)


def test_no_gradient_reaches_the_generator_and_half_precision_changes_nothing():
    critic = nn.Linear(6, 1)
    real, fake = torch.randn(8, 6), torch.randn(8, 6, requires_grad=True)
    torch.manual_seed(0)
    plain = gradient_penalty(critic, real, fake)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        half = gradient_penalty(critic, real, fake)
    assert half.dtype == torch.float32
    assert torch.equal(plain, half)
    plain.backward()
    assert fake.grad is None
    assert critic.weight.grad is not None


def test_at_a_point_without_slope_it_is_finite():
    critic = nn.Linear(3, 1)
    nn.init.zeros_(critic.weight)
    penalty = gradient_penalty(critic, torch.zeros(2, 3), torch.zeros(2, 3))
    penalty.backward()
    assert penalty.item() == pytest.approx(1.0, abs=1e-5)
    assert torch.isfinite(critic.weight.grad).all()


def test_losses_of_a_discriminator_that_guesses():
    zeros = torch.zeros(4)
    assert discriminator_loss(zeros, zeros).item() == pytest.approx(2 * math.log(2))
    assert generator_loss(zeros).item() == pytest.approx(math.log(2))


def test_losses_are_those_of_probabilities():
    real, fake = torch.randn(2, 50, dtype=torch.float64)
    expected = -real.sigmoid().log().mean() - (1 - fake.sigmoid()).log().mean()
    torch.testing.assert_close(discriminator_loss(real, fake), expected)
    torch.testing.assert_close(generator_loss(fake), -fake.sigmoid().log().mean())


def test_the_generator_has_a_slope_where_the_discriminator_is_sure():
    fake = torch.full((1,), -20.0, requires_grad=True)
    generator_loss(fake).backward()
    assert fake.grad.item() == pytest.approx(-1)


BY_HAND = {
    "non_saturating": (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))),
    "minimax": (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1)), -math.log(1 + math.exp(-1))),
    "least_squares": ((2 - 1) ** 2 / 2 + 1 / 2, (-1 - 1) ** 2 / 2),
    "wasserstein": (-1 - 2, 1),
}


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_is_what_its_paper_says_of_2_for_real_and_minus_1_for_fake(name):
    real, fake = torch.full((3, 1, 2, 2), 2.0), torch.full((3, 1, 2, 2), -1.0)
    loss, expected = LOSSES[name], BY_HAND[name]
    assert loss.discriminator(real, fake).item() == pytest.approx(expected[0], rel=1e-6)
    assert loss.generator(fake).item() == pytest.approx(expected[1], rel=1e-6)


def test_at_the_best_discriminator_the_game_is_worth_twice_the_divergence_less_ln_4():
    """Goodfellow et al. 2014, theorem 1: the most of E ln D + E ln(1 - D) is 2 JSD(p, q) - ln 4, at D = p / (p + q)."""
    p, q = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(1.5, 0.7)
    x_N = torch.linspace(-8, 8, 8001, dtype=torch.float64)
    p_N, q_N = p.log_prob(x_N).exp(), q.log_prob(x_N).exp()
    middle_N = (p_N + q_N) / 2
    divergence = torch.trapezoid(p_N * (p_N / middle_N).log() + q_N * (q_N / middle_N).log(), x_N).item() / 2
    real, fake = p.sample((200_000,)).double(), q.sample((200_000,)).double()
    value = -discriminator_loss(p.log_prob(real) - q.log_prob(real), p.log_prob(fake) - q.log_prob(fake))
    assert value.item() == pytest.approx(2 * divergence - math.log(4), abs=0.01)
    slightly_off = -discriminator_loss(
        p.log_prob(real) - q.log_prob(real) + 0.5, p.log_prob(fake) - q.log_prob(fake) + 0.5
    )
    assert slightly_off < value


def test_spread_is_the_root_mean_squared_distance_and_does_not_depend_on_batches():
    x = torch.randn(30, 2, 3)
    pairs = (x.flatten(1).unsqueeze(0) - x.flatten(1).unsqueeze(1)).double().square().sum(-1)
    parts = [spread_sums(part, "fake") for part in x.split(7)]
    joined = {name: sum(part[name] for part in parts) for name in parts[0]}
    for sums in (spread_sums(x, "fake"), joined):
        assert spread(sums, "fake") == pytest.approx(pairs.mean().sqrt().item(), rel=1e-6)
    assert spread(spread_sums(torch.ones(5, 3), "fake"), "fake") == 0


def test_a_collapse_is_said():
    assert collapse_remarks({"spread": 0.9}) == []
    assert "collapsed" in collapse_remarks({"spread": 0.1})[0]


def test_points_count_for_the_nearest_mode_within_three_standard_deviations():
    modes = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    x = torch.tensor([[0.05, 0.0], [0.0, 0.29], [0.0, 0.31], [0.95, 0.0], [9.0, 9.0]])
    assert mode_counts(x, modes, 0.1).tolist() == [2, 1]
