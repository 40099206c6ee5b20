import pytest
import torch

from dlx.data.adding import Adding


@pytest.mark.parametrize("length", [2, 7, 50])
def test_the_target_is_the_sum_of_one_number_of_each_half(length):
    batch = Adding(length=length, samples=200).splits()["train"].take(torch.arange(200))
    number, marked = batch["sequence"].unbind(2)
    assert batch["sequence"].shape == (200, length, 2)
    assert (marked[:, : length // 2].sum(1) == 1).all()
    assert (marked[:, length // 2 :].sum(1) == 1).all()
    assert torch.allclose((number * marked).sum(1, keepdim=True), batch["target"])


def test_the_error_of_the_mean_is_a_sixth():
    target = Adding(samples=50_000).splits()["train"].tensors["target"]
    assert (target - 1).square().mean().item() == pytest.approx(1 / 6, abs=0.003)


@pytest.mark.parametrize("given", [{"length": 1}, {"samples": 9}])
def test_values_out_of_range_name_their_argument(given):
    with pytest.raises(ValueError, match=rf"^{next(iter(given))} "):
        Adding(**given)
