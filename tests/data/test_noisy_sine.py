import pytest
import torch

from dlx.data.noisy_sine import NoisySine


def test_it_is_the_sine_and_the_noise_has_its_size():
    clean, noisy = NoisySine(noise=0, size=10_000).splits(), NoisySine(size=10_000).splits()
    x = torch.cat([clean[name].stream for name in ("train", "val", "test")])[:, 0]
    assert torch.allclose(x, torch.sin(0.01 * torch.arange(1, 10_001)), atol=1e-6)
    assert (noisy["train"].stream - clean["train"].stream).std().item() == pytest.approx(0.2, rel=0.03)


def test_training_windows_begin_at_each_step():
    splits = NoisySine().splits()
    assert {name: len(source.stream) for name, source in splits.items()} == {"train": 600, "val": 200, "test": 200}
    assert len(splits["train"]) == 600 - 32 + 1
    batch = splits["train"].take(torch.tensor([0, 1]))["series"]
    assert torch.equal(batch[0, 1:], batch[1, :-1])


@pytest.mark.parametrize("given", [{"size": 100}, {"frequency": 0}, {"noise": -1}, {"length": 1}])
def test_values_out_of_range_name_their_argument(given):
    with pytest.raises(ValueError, match=rf"^{next(iter(given))} "):
        NoisySine(**given)
