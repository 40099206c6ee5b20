"""Centered RMSprop with eps inside the root: against the rule by hand, and where torch's differs."""

import pytest
import torch

from dlx.optim.centered_rmsprop import CenteredRMSprop


def test_it_is_the_rule():
    torch.manual_seed(0)
    w = torch.randn(3, 2, dtype=torch.float64)
    p = torch.nn.Parameter(w.clone())
    optimizer = CenteredRMSprop([p], lr=0.1, alpha=0.9, eps=0.01)
    mean = square = torch.zeros_like(w)
    for _ in range(8):
        grad = torch.randn_like(w)
        mean, square = 0.9 * mean + 0.1 * grad, 0.9 * square + 0.1 * grad**2
        w = w - 0.1 * grad / (square - mean**2 + 0.01).sqrt()
        p.grad = grad
        optimizer.step()
    torch.testing.assert_close(p.data, w)


def test_a_steady_gradient_is_divided_by_the_root_of_eps_and_torchs_by_eps():
    steps = {}
    for name, make in (("own", CenteredRMSprop), ("torch", lambda p, **k: torch.optim.RMSprop(p, centered=True, **k))):
        p = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        optimizer = make([p], lr=1.0, alpha=0.5, eps=0.01)
        for _ in range(60):
            before = p.item()
            p.grad = torch.ones_like(p)
            optimizer.step()
        steps[name] = before - p.item()
    assert steps == pytest.approx({"own": 10, "torch": 100}, rel=1e-3)


@pytest.mark.parametrize("bad", [{"lr": -1.0}, {"alpha": 1.0}, {"eps": 0.0}])
def test_bad_settings_name_the_argument(bad):
    with pytest.raises(ValueError, match=f"^{next(iter(bad))} must be"):
        CenteredRMSprop([torch.nn.Parameter(torch.zeros(1))], **bad)
