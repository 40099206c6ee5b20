import math

import pytest
import torch

from dlx.data.copy_memory import CopyMemory


def test_ten_symbols_come_again_after_the_mark():
    dataset = CopyMemory(delay=7, samples=50)
    batch = dataset.splits()["train"].take(torch.arange(50))
    tokens, labels = batch["tokens"].long(), batch["labels"].long()
    assert tokens.shape == labels.shape == (50, 27)
    assert ((tokens[:, :10] >= 1) & (tokens[:, :10] <= 8)).all()
    assert (tokens[:, 10:16] == 0).all()
    assert (tokens[:, 16] == 9).all()
    assert (tokens[:, 17:] == 0).all()
    assert (labels[:, :-10] == 0).all()
    assert torch.equal(labels[:, -10:], tokens[:, :10])


def test_the_baseline_of_the_literature():
    assert CopyMemory(delay=100).baseline == pytest.approx(0.1733, abs=1e-4)
    assert CopyMemory(delay=1000).baseline == pytest.approx(10 * math.log(8) / 1020)


def test_splits_differ():
    splits = CopyMemory(delay=3, samples=40).splits()
    assert {name: len(source) for name, source in splits.items()} == {"train": 40, "val": 4, "test": 4}
    assert not torch.equal(splits["val"].tensors["tokens"], splits["test"].tensors["tokens"])


@pytest.mark.parametrize("given", [{"delay": 0}, {"samples": 9}])
def test_values_out_of_range_name_their_argument(given):
    with pytest.raises(ValueError, match=rf"^{next(iter(given))} "):
        CopyMemory(**given)
