import pytest
import torch

from dlx.data.parity import Parity


def test_labels_are_the_running_parity():
    batch = Parity(length=9, samples=30).splits()["train"].take(torch.arange(30))
    for bits, labels in zip(batch["tokens"].tolist(), batch["labels"].tolist(), strict=True):
        assert labels == [sum(bits[: n + 1]) % 2 for n in range(9)]


@pytest.mark.parametrize("given", [{"length": 1}, {"samples": 9}])
def test_values_out_of_range_name_their_argument(given):
    with pytest.raises(ValueError, match=rf"^{next(iter(given))} "):
        Parity(**given)
