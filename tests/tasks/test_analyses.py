import pytest
import torch

from dlx.config.errors import UserError
from dlx.tasks.analyses import evenly


def test_few_samples_are_taken_evenly_of_all_classes():
    label_N = torch.tensor([0] * 50 + [1] * 30 + [2] * 2)
    chosen = evenly(label_N, 20)
    assert len(chosen.unique()) == 20
    assert label_N[chosen].bincount().tolist() == [9, 9, 2]
    assert torch.equal(chosen, evenly(label_N, 20))
    assert not torch.equal(chosen[:9].sort().values, torch.arange(9))  # no first ones


def test_all_are_taken_where_nothing_is_said_or_more_is_asked_for():
    label_N = torch.randint(3, (40,))
    assert torch.equal(evenly(label_N, None), torch.arange(40))
    assert torch.equal(evenly(label_N, 100).sort().values, torch.arange(40))


def test_one_sample_is_too_few():
    with pytest.raises(UserError, match="samples: must be at least 2, got 1"):
        evenly(torch.zeros(3), 1)
