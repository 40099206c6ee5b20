"""CartPole: its dynamics are gymnasium's, episodes are functions of their seeds, and pictures show the state."""

import pytest
import torch

from dlx.data.cartpole import FARTHEST, LIMIT, STEEPEST, CartPole, CartPoles, has_fallen, move, picture


def test_a_step_by_hand():
    """From rest, upright, pushed right: 10 N on 1.1 kg, of which the pole takes its part."""
    after = move(torch.zeros(4, dtype=torch.float64), torch.tensor(1))
    push = 10 / 1.1
    bend = -push / (0.5 * (4 / 3 - 0.1 / 1.1))
    expected = [0, 0.02 * (push - 0.05 * bend / 1.1), 0, 0.02 * bend]
    assert after.tolist() == pytest.approx(expected, abs=1e-12)
    assert move(after, torch.tensor(1))[0] == pytest.approx(0.02 * expected[1])  # positions move by the old velocity


def test_its_dynamics_are_gymnasiums_over_3000_steps():
    gymnasium = pytest.importorskip("gymnasium")
    made = gymnasium.make("CartPole-v1")
    assert made.spec.max_episode_steps == LIMIT
    assert made.unwrapped.x_threshold == FARTHEST
    assert made.unwrapped.theta_threshold_radians == STEEPEST
    rng = torch.Generator().manual_seed(0)
    farthest, ends = 0.0, 0
    made.reset(seed=0)
    state = torch.tensor(made.unwrapped.state, dtype=torch.float64)
    for step in range(3000):
        # Now and then a policy that keeps it up for long, so that episodes differ in length.
        action = int(torch.randint(2, (), generator=rng)) if step % 3 else int(state[2] + state[3] > 0)
        state = move(state, torch.tensor(action))
        seen, reward, terminated, truncated, _ = made.step(action)
        farthest = max(farthest, float((state - torch.from_numpy(seen)).abs().max()))
        assert reward == 1
        assert terminated == bool(has_fallen(state))
        if terminated or truncated:
            ends += 1
            made.reset(seed=step)
            state = torch.tensor(made.unwrapped.state, dtype=torch.float64)
    assert ends > 20
    assert farthest < 5e-7  # gymnasium shows float32


def upright(carts: CartPoles) -> torch.Tensor:
    """Actions of a hand-made controller that never lets the pole fall."""
    x, v, angle, turn = carts.observation.unbind(1)
    return (0.1 * x + 0.3 * v + 4 * angle + turn > 0).long()


def test_a_controller_keeps_it_up_until_the_time_limit_cuts_it_off():
    carts = CartPoles(torch.arange(8))
    for step in range(LIMIT):
        assert not carts.over.any()
        reward, terminated, truncated = carts.step(upright(carts))
        assert (reward == 1).all()
        assert not terminated.any()
        assert truncated.all() == (step + 1 == LIMIT)
    before = carts.observation
    reward, terminated, truncated = carts.step(upright(carts))  # what is over stands still
    assert torch.equal(carts.observation, before)
    assert not torch.stack([reward > 0, terminated, truncated]).any()


def test_a_fall_terminates_and_is_no_time_limit():
    carts = CartPoles(torch.arange(8))
    total = torch.zeros(8)
    while not carts.over.all():
        reward, _, truncated = carts.step(torch.ones(8, dtype=torch.int64))
        total += reward
        assert not truncated.any()
    assert ((total >= 8) & (total <= 11)).all()  # one way only: it falls after about 9 steps
    assert has_fallen(carts.observation).all()


def test_an_episode_is_a_function_of_its_seed():
    together, alone = CartPoles(torch.arange(5)), CartPoles(torch.tensor([3]))
    assert torch.equal(together.observation[3], alone.observation[0])
    assert together.observation.abs().max() < 0.05
    assert len({tuple(row) for row in together.observation.tolist()}) == 5
    many = CartPoles(torch.arange(20_000)).observation
    assert many.mean().abs() < 5e-4
    assert many.std() == pytest.approx(0.1 / 12**0.5, rel=0.02)


def test_only_what_is_over_begins_anew():
    carts = CartPoles(torch.tensor([0, 1]))
    carts.observation = torch.tensor([[0, 0, 0.2, 1.0], [0, 0, 0, 0.0]])
    _, terminated, _ = carts.step(torch.tensor([1, 1]))
    assert terminated.tolist() == [True, False]
    kept = carts.observation[1].clone()
    carts.restart(torch.tensor([7, 8]))
    assert torch.equal(carts.observation, torch.stack([CartPoles(torch.tensor([7])).observation[0], kept]))
    assert carts.steps_N.tolist() == [0, 1]
    assert not carts.over.any()


def test_a_picture_shows_where_the_cart_is_and_how_the_pole_leans():
    def orange(state):
        pixels = picture(state).float()
        return ((pixels - torch.tensor([233.0, 150, 40])).abs().sum(2) < 60).nonzero().float()

    left, right = orange([-1.5, 0, 0, 0]), orange([1.5, 0, 0, 0])
    assert left[:, 1].mean() < right[:, 1].mean() - 60
    assert orange([0, 0, 0.2, 0])[:, 1].mean() > orange([0, 0, -0.2, 0])[:, 1].mean() + 5  # it leans to the right
    assert picture([0, 0, 0, 0]).dtype == torch.uint8
    assert CartPoles(torch.arange(3)).draw().shape == (3, 100, 150, 3)
    assert CartPoles(torch.arange(1)).draw().shape == (1, 200, 300, 3)


def test_its_settings_are_those_of_an_environment():
    with pytest.raises(ValueError, match=r"^epsilon_start must be"):
        CartPole(epsilon_start=1.5)
