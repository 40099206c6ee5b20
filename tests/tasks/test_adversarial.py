"""The gradient penalty against its closed form; the losses of discriminator and generator."""

import math

import pytest
import torch
from torch import nn

from dlx.tasks.adversarial import discriminator_loss, generator_loss, gradient_penalty


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
