"""What a GPU's path does with a bad step, shown on the CPU: the flag stays on the device until a row is due."""

import pytest
import torch

from dlx.training.job import Diverged, State
from dlx.training.step import Step


@pytest.fixture
def step():
    step = Step.__new__(Step)
    step.state = State()
    step.bad_step, step.bad_index = torch.zeros((), dtype=torch.int64), torch.zeros((), dtype=torch.int64)
    return step


def test_the_first_bad_step_and_its_samples_are_kept(step):
    losses = [1.0, float("nan"), float("inf"), 0.5]
    for number, loss in enumerate(losses):
        step.state.step = number
        step._note("train/loss", torch.tensor(loss))
        step._flag(torch.tensor(loss), None, torch.arange(16) + 100 * number)
    with pytest.raises(Diverged, match=r"not finite at step 2 \(samples \[100, 101, 102, 103, 104, 105, 106, 107\]"):
        step.read_pending()


def test_a_gradient_can_be_the_bad_one(step):
    step._flag(torch.tensor(1.0), torch.tensor(float("inf")), torch.arange(16))
    with pytest.raises(Diverged, match="at step 1 "):
        step.read_pending()


def test_nothing_bad_gives_the_means(step):
    for loss in (1.0, 2.0):
        step._note("train/loss", torch.tensor(loss))
        step._flag(torch.tensor(loss), torch.tensor(1.0), torch.arange(16))
    assert step.read_pending() == {"train/loss": 1.5}


def test_a_smaller_last_batch_is_flagged_too(step):
    step._flag(torch.tensor(1.0), None, torch.arange(16))
    step.state.step = 1
    step._flag(torch.tensor(float("nan")), None, torch.tensor([7, 9]))
    with pytest.raises(Diverged, match=r"at step 2 \(samples \[7, 9\]"):
        step.read_pending()
