"""What a GPU's path does with a bad step, shown on the CPU: the flag stays on the device until a row is due."""

import pytest
import torch

from dlx.training.diverged import BadStep, Diverged
from dlx.training.loop import Loop
from dlx.training.state import State


@pytest.fixture
def loop():
    loop = Loop.__new__(Loop)
    loop.state = State()
    loop.bad = BadStep(torch.device("cpu"))
    return loop


def test_the_first_bad_step_and_its_samples_are_kept(loop):
    losses = [1.0, float("nan"), float("inf"), 0.5]
    for number, loss in enumerate(losses):
        loop.state.step = number
        loop._note("train/loss", torch.tensor(loss))
        loop.bad.flag(loop.state.step + 1, torch.tensor(loss), None, torch.arange(16) + 100 * number)
    with pytest.raises(Diverged, match=r"not finite at step 2 \(samples \[100, 101, 102, 103, 104, 105, 106, 107\]"):
        loop.read_pending()


def test_a_gradient_can_be_the_bad_one(loop):
    loop.bad.flag(loop.state.step + 1, torch.tensor(1.0), torch.tensor(float("inf")), torch.arange(16))
    with pytest.raises(Diverged, match="at step 1 "):
        loop.read_pending()


def test_nothing_bad_gives_the_means(loop):
    for loss in (1.0, 2.0):
        loop._note("train/loss", torch.tensor(loss))
        loop.bad.flag(loop.state.step + 1, torch.tensor(loss), torch.tensor(1.0), torch.arange(16))
    assert loop.read_pending() == {"train/loss": 1.5}


def test_a_smaller_last_batch_is_flagged_too(loop):
    loop.bad.flag(loop.state.step + 1, torch.tensor(1.0), None, torch.arange(16))
    loop.state.step = 1
    loop.bad.flag(loop.state.step + 1, torch.tensor(float("nan")), None, torch.tensor([7, 9]))
    with pytest.raises(Diverged, match=r"at step 2 \(samples \[7, 9\]"):
        loop.read_pending()
