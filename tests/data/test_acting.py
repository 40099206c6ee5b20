"""Acting: when environments act, how the agent explores, what is stored at the end of an episode, what is logged."""

import math

import pytest
import torch

from dlx.config import compose
from dlx.data.acting import TEST, VAL
from dlx.data.cartpole import LIMIT, CartPole
from dlx.data.chain import Chain
from dlx.random import reseed
from dlx.training.prepare import prepare


class Agent:
    """Acts by a function of observations."""

    device = torch.device("cpu")

    def __init__(self, spec, act):
        self.spec, self.act = spec, act


def upright(seen):
    x, v, angle, turn = seen.unbind(1)
    return (0.1 * x + 0.3 * v + 4 * angle + turn > 0).long()


def constant(action):
    return lambda seen: torch.full((len(seen),), action)


@pytest.mark.parametrize(("environments", "every", "expected"), [
    (1, 1, [10, 11, 12, 13]), (1, 4, [10, 14, 18, 22]), (4, 4, [12, 16, 20, 24]), (4, 1, [12, 12, 12, 16]),
])  # fmt: skip
def test_there_are_so_many_transitions_for_an_update(environments, every, expected):
    data = CartPole(environments=environments, update_every=every, warmup=10)
    agent, played = Agent(data.spec, constant(0)), []
    for step in range(4):
        data.prepare(step, agent)
        played.append(data.played)
    assert played == expected
    assert data.replay.filled == played[-1]


def test_epsilon_falls_as_it_is_said():
    data = CartPole(warmup=10, epsilon_start=0.9, epsilon_end=0.01, epsilon_steps=2500)
    assert data.epsilon == 1  # the first transitions are of a random policy
    data.played = 2500
    assert data.epsilon == pytest.approx(0.01 + 0.89 * math.exp(-1))
    data = CartPole(warmup=10, epsilon_start=1, epsilon_end=0.1, epsilon_steps=1000, epsilon_schedule="linear")
    for played, expected in ((500, 0.55), (1000, 0.1), (9000, 0.1)):
        data.played = played
        assert data.epsilon == pytest.approx(expected)


def test_it_explores_as_often_as_epsilon_says():
    data = CartPole(warmup=1, epsilon_start=0.4, epsilon_end=0.4, environments=4000, replay=40_000)
    agent = Agent(data.spec, constant(1))
    reseed(0, "act")
    for step in (0, 12_001):
        data.prepare(step, agent)
    action = data.replay.tensors["action"][4000 : data.replay.filled]  # the first were random
    assert action.float().mean() == pytest.approx(1 - 0.4 / 2, abs=0.02)


def test_a_time_limit_is_stored_as_no_end_and_its_last_observation_is_kept():
    data = CartPole(warmup=1, epsilon_start=0, epsilon_end=0)
    agent = Agent(data.spec, upright)
    data.warmup = 0  # nothing random
    data.prepare(LIMIT + 10, agent)
    memory = data.replay.tensors
    assert memory["terminated"].sum() == 0
    seen, after = memory["observation"], memory["next_observation"]
    assert torch.equal(seen[1:LIMIT], after[: LIMIT - 1])
    assert seen[LIMIT].abs().max() < 0.05  # a new episode
    assert not torch.equal(after[LIMIT - 1], seen[LIMIT])


def test_a_fall_is_stored_as_an_end():
    data = CartPole(warmup=1, epsilon_start=0, epsilon_end=0)
    data.warmup = 0
    logs = data.prepare(30, Agent(data.spec, constant(1)))
    memory = data.replay.tensors
    ends = memory["terminated"][:30, 0].nonzero()[:, 0]
    assert 2 <= len(ends) <= 3
    assert (memory["next_observation"][ends, 2].abs() > 0.2).all()
    assert logs["return"] == ends[-1] - (ends[-2] if len(ends) > 1 else -1)  # of the last whole episode
    assert logs["epsilon"] == 0


def test_rewards_are_learned_from_by_their_sign_where_asked():
    data = Chain(lure=0.05, clip_reward=True, warmup=1, environments=8, replay=1000)
    data.prepare(100, Agent(data.spec, constant(0)))
    assert set(data.replay.tensors["reward"].unique().tolist()) <= {0.0, 1.0}
    assert (data.running_N % 1).any()  # what is logged is not clipped


def test_evaluations_always_play_the_same_episodes():
    splits = CartPole(episodes=7, val_episodes=3).sources
    assert splits["val"].tensors["episode"].tolist() == [VAL, VAL + 1, VAL + 2]
    assert splits["test"].tensors["episode"].tolist() == [TEST + n for n in range(7)]


def test_its_state_is_all_of_it():
    def play(data, steps):
        for step in steps:
            reseed(0, "act", step)
            data.prepare(step, Agent(data.spec, upright))
        return data

    whole, cut, rest = (CartPole(warmup=20, environments=3, update_every=3) for _ in range(3))
    play(whole, range(40))
    play(cut, range(25))
    rest.load_state(cut.state())
    play(rest, range(25, 40))
    assert rest.played == whole.played
    for name, tensor in whole.replay.tensors.items():
        assert torch.equal(rest.replay.tensors[name], tensor), name
    assert torch.equal(rest.last_N, whole.last_N)
    fresh = CartPole()
    fresh.load_state(CartPole().state())  # before its first step
    assert fresh.environment is None


@pytest.mark.parametrize("key", ["replay", "environments", "warmup", "update_every", "epsilon_steps", "episodes"])
def test_bad_settings_name_the_argument(key):
    with pytest.raises(ValueError, match=f"^{key} must be at least 1"):
        CartPole(**{key: 0})


def test_more_environments_than_the_memory_holds():
    with pytest.raises(ValueError, match=r"^replay must be at least 8, got 5"):
        CartPole(environments=8, replay=5)


def test_nothing_is_played_before_the_start():
    prepared = prepare(compose(["model=dqn"]))
    assert prepared.dataset.played == 0
    assert prepared.dataset.replay.tensors == {}
    assert prepared.steps_per_epoch == 1000
