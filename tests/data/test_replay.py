"""Replay memory: the last transitions, drawn uniformly from what is filled."""

import pytest
import torch

from dlx.data.cartpole import CartPole
from dlx.data.replay import FrameReplay, Replay


def rows(*numbers):
    value = torch.tensor([float(n) for n in numbers])
    return {
        "observation": value.unsqueeze(1).expand(-1, 4), "action": value.long(), "reward": value.unsqueeze(1),
        "next_observation": value.unsqueeze(1).expand(-1, 4) + 1, "terminated": torch.zeros(len(numbers), 1),
    }  # fmt: skip


def held(memory):
    return sorted(memory.tensors["action"][: memory.filled].tolist())


def test_the_oldest_goes_first():
    memory = Replay(5, 10, CartPole.spec)
    memory.add(**rows(0, 1, 2))
    assert held(memory) == [0, 1, 2]
    memory.add(**rows(3, 4, 5))  # over the end
    assert held(memory) == [1, 2, 3, 4, 5]
    memory.add(**rows(6))
    assert held(memory) == [2, 3, 4, 5, 6]
    assert memory.tensors["next_observation"].shape == (5, 4)


def test_a_transition_stays_together():
    memory = Replay(50, 10, CartPole.spec)
    for n in range(70):
        memory.add(**rows(n))
    drawn = memory.take(torch.arange(1000), 3)
    assert torch.equal(drawn["reward"][:, 0], drawn["action"].float())
    assert torch.equal(drawn["next_observation"], drawn["observation"] + 1)
    assert drawn["action"].min() >= 20


def test_it_draws_uniformly_from_what_is_filled_alone():
    memory = Replay(1000, 10, CartPole.spec)
    for n in range(8):
        memory.add(**rows(n))
    count = torch.bincount(memory.take(torch.arange(80_000), 5)["action"], minlength=8)
    assert ((count - 10_000).abs() < 5 * 10_000**0.5).all()


def test_a_position_gives_another_transition_in_each_epoch():
    memory = Replay(1000, 10, CartPole.spec)
    memory.add(**rows(*range(1000)))
    index = torch.arange(100)
    one, other = (memory.take(index, draw)["action"] for draw in (1 << 60, 12345))
    assert torch.equal(one, memory.take(index, 1 << 60)["action"])
    assert (one == other).float().mean() < 0.05


def test_an_empty_memory_gives_zeros_of_the_right_shape():
    drawn = Replay(10, 20, CartPole.spec).take(torch.arange(3))
    assert {name: (tuple(t.shape), t.dtype) for name, t in drawn.items()}["action"] == ((3,), torch.int64)
    assert drawn["observation"].shape == (3, 4)


def test_its_state_is_all_of_it():
    memory, other = Replay(5, 10, CartPole.spec), Replay(5, 10, CartPole.spec)
    memory.add(**rows(*range(4)))
    other.load_state(memory.state())
    for one in (memory, other):
        one.add(**rows(8, 9))
    assert held(other) == held(memory) == [1, 2, 3, 8, 9]
    with pytest.raises(ValueError, match="it held 5 transitions, not 6"):
        Replay(6, 10, CartPole.spec).load_state(memory.state())


class Screens:
    """Stacks of frames of N environments, with the whole of each transition."""

    def __init__(self, count, stack):
        self.rng = torch.Generator().manual_seed(0)
        self.seen = self.frame(count).unsqueeze(1).repeat(1, stack, 1, 1)

    def frame(self, count):
        return torch.randint(256, (count, 2, 2), generator=self.rng, dtype=torch.uint8)

    def step(self, number):
        count, stack = self.seen.shape[:2]
        after = torch.cat([self.seen[:, 1:], self.frame(count).unsqueeze(1)], 1)
        row = {
            "observation": self.seen, "action": number * count + torch.arange(count), "next_observation": after,
            "reward": torch.zeros(count, 1), "terminated": torch.zeros(count, 1),
        }  # fmt: skip
        ended = torch.rand(count, generator=self.rng) < 0.2
        fresh = self.frame(count).unsqueeze(1).repeat(1, stack, 1, 1)
        self.seen = torch.where(ended.view(-1, 1, 1, 1), fresh, after)
        return row


@pytest.mark.parametrize(("count", "size", "steps"), [(1, 40, 30), (1, 40, 130), (3, 41, 60), (3, 200, 50)])
def test_a_memory_of_frames_gives_the_same_transitions(count, size, steps):
    """Also across starts of episodes, and around the end of the ring."""
    screens, frames = Screens(count, 4), FrameReplay(size, 10, None)
    added = {}
    for number in range(steps):
        row = screens.step(number)
        frames.add(**row)
        for n in range(count):
            added[int(row["action"][n])] = {name: value[n] for name, value in row.items()}
    drawn = frames.take(torch.arange(3000), 4)
    assert frames.tensors["frame"].shape == (size, 2, 2)
    assert set(drawn) == set(row)
    for position, action in enumerate(drawn["action"].tolist()):
        for name, value in drawn.items():
            assert torch.equal(value[position], added[action][name]), (name, action)
    there = set(range(max(0, steps * count - size), steps * count))
    oldest = sorted(there)[: 3 * count] if len(there) == size else []
    assert set(drawn["action"].tolist()) == there - set(oldest)
