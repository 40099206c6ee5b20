import pytest
import torch

from dlx.data.ar_process import ARProcess, largest_root


def test_least_squares_find_the_coefficients():
    x = ARProcess().splits()["train"].stream[:, 0].double()
    past = torch.stack([x[1:-1], x[:-2]], 1)
    found = torch.linalg.lstsq(past, x[2:].unsqueeze(1)).solution[:, 0]
    assert found.tolist() == pytest.approx([0.75, -0.5], abs=0.02)
    assert (x[2:] - past @ found).std().item() == pytest.approx(1, abs=0.02)
    assert x.var().item() == pytest.approx(1.5 / (0.5 * (1.5**2 - 0.75**2)), rel=0.05)  # Yule and Walker


def test_windows_share_one_step():
    source = ARProcess(size=320, length=16).splits()["train"]
    batch = source.take(torch.tensor([0, 1]))["series"]
    assert batch.shape == (2, 16, 1)
    assert batch[0, -1] == batch[1, 0]


def test_the_noise_has_its_size():
    small = ARProcess(noise=0.1).splits()["test"].stream
    assert torch.allclose(small * 10, ARProcess().splits()["test"].stream, atol=1e-4)


def test_the_root_of_one_coefficient_is_itself():
    assert largest_root((-0.9,)) == pytest.approx(0.9)
    assert largest_root((0.75, -0.5)) == pytest.approx(0.5**0.5)


@pytest.mark.parametrize(
    ("given", "name"),
    [({"coefficients": (1.0,)}, "coefficients"), ({"coefficients": (0.5, 0.6)}, "coefficients"),
     ({"coefficients": ()}, "coefficients"), ({"noise": 0}, "noise"), ({"size": 319}, "size"),
     ({"length": 1}, "length")],
)  # fmt: skip
def test_values_out_of_range_name_their_argument(given, name):
    with pytest.raises(ValueError, match=rf"^{name} "):
        ARProcess(**given)
