"""LARS takes steps that are a share of each layer's weights, and survives a resume."""

import io

import pytest
import torch

from dlx.optim.lars import LARS

F64 = torch.float64


def test_a_step_is_a_share_of_the_weights_whatever_the_gradient():
    """At weight_decay 0 and the first step: |dw| = lr trust |w|."""
    for scale in (1e-6, 1.0, 1e6):
        w = torch.randn(4, 3, dtype=F64, requires_grad=True)
        start = w.detach().clone()
        w.grad = scale * torch.randn(4, 3, dtype=F64)
        LARS([w], lr=2.0, trust=1e-2).step()
        assert ((w - start).norm() / start.norm()).item() == pytest.approx(2e-2)


def test_vectors_and_scalars_take_a_plain_step():
    params = [torch.randn(5, dtype=F64, requires_grad=True), torch.randn((), dtype=F64, requires_grad=True)]
    start = [p.detach().clone() for p in params]
    for p in params:
        p.grad = torch.ones_like(p)
    LARS(params, lr=0.5).step()
    for p, before in zip(params, start, strict=True):
        torch.testing.assert_close(p.detach(), before - 0.5)


def test_weights_of_zero_begin_to_move():
    w = torch.zeros(2, 2, requires_grad=True)
    w.grad = torch.ones(2, 2)
    LARS([w], lr=0.1).step()
    torch.testing.assert_close(w.detach(), torch.full((2, 2), -0.1))
    w.grad = torch.zeros(2, 2)
    LARS([w], lr=0.1).step()
    assert w.isfinite().all()


def test_it_works_on_the_meta_device():
    w = torch.zeros(2, 2, device="meta", requires_grad=True)
    w.grad = torch.ones(2, 2, device="meta")
    LARS([w]).step()


def test_a_resumed_optimizer_takes_the_same_steps():
    params = [torch.randn(4, 3, requires_grad=True), torch.randn(3, requires_grad=True)]
    optimizer = LARS(params, lr=0.5, weight_decay=0.1)

    def steps(params, optimizer, seed):
        rng = torch.Generator().manual_seed(seed)
        for _ in range(5):
            for p in params:
                p.grad = torch.randn(p.shape, generator=rng)
            optimizer.step()

    steps(params, optimizer, 1)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    others = [p.detach().clone().requires_grad_() for p in params]
    resumed = LARS(others, lr=9.0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    steps(params, optimizer, 2)
    steps(others, resumed, 2)
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))


@pytest.mark.parametrize("bad", [{"lr": -1.0}, {"momentum": 1.0}, {"weight_decay": -0.1}, {"trust": 0.0}])
def test_bad_settings_name_the_argument(bad):
    with pytest.raises(ValueError, match=f"^{next(iter(bad))} must be"):
        LARS([torch.zeros(1, requires_grad=True)], **bad)
