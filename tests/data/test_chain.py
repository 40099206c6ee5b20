"""The chain: rewards and ends by hand."""

import pytest
import torch

from dlx.data.chain import Chain, Chains


def test_a_walk_to_the_end():
    chains = Chains(torch.tensor([1]), states=3, lure=0.1, limit=9)
    assert chains.observation.tolist() == [[0, 1, 0]]
    told = [chains.step(torch.tensor([action])) for action in (0, 0, 1, 1, 1)]
    rewards, ends, cuts = zip(*([float(part) for part in row] for row in told), strict=True)
    assert rewards == pytest.approx((0, 0.1, 0, 0, 1))
    assert ends == (0, 0, 0, 0, 1)
    assert not any(cuts)
    chains.step(torch.tensor([0]))
    assert chains.place_N.tolist() == [2]  # what is over stands still
    chains.restart(torch.tensor([5]))
    assert chains.place_N.tolist() == [5 % 3]


def test_a_time_limit_cuts_off():
    chains = Chains(torch.tensor([0, 0]), states=4, lure=0.1, limit=2)
    chains.step(torch.tensor([0, 1]))
    _, terminated, truncated = chains.step(torch.tensor([0, 1]))
    assert not terminated.any()
    assert truncated.all()


def test_its_pictures_and_settings():
    assert Chains(torch.arange(4), states=4, lure=0.0, limit=2).draw().shape == (4, 20, 80, 3)
    assert Chain(states=4).spec.observation.size == 4
    for bad in ({"states": 1}, {"limit": 0}, {"warmup": 0}):
        with pytest.raises(ValueError, match=f"^{next(iter(bad))} must be at least"):
            Chain(**bad)
