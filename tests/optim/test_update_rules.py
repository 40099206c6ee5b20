"""Each optimizer option is the rule of its paper, written out here in plain tensor arithmetic.

Where papers and lectures differ, the rule is torch's: epsilon stands outside the root, but inside it for Adadelta.
"""

import importlib
import math
from pathlib import Path

import pytest
import torch
import yaml

CONF = Path(__file__).parents[2] / "conf" / "optimizer"
STEPS, SHAPES = 100, [(4, 3), (5,), ()]


def option(name):
    """The class and the settings of conf/optimizer/NAME.yaml. PyYAML reads 3e-3, without a dot, as text."""
    settings = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    module, _, cls = settings.pop("_target_").rpartition(".")
    settings = {k: float(v) if isinstance(v, str) else v for k, v in settings.items()}
    return getattr(importlib.import_module(module), cls), {
        k: v for k, v in settings.items() if k not in ("no_decay", "players")
    }


def sgd(w, gradients, *, lr):
    for g in gradients:
        w = w - lr * g
    return w


def momentum(w, gradients, *, lr, momentum, nesterov=False):
    a = torch.zeros_like(w)
    for g in gradients:
        a = momentum * a + g
        w = w - lr * (g + momentum * a if nesterov else a)
    return w


def adagrad(w, gradients, *, lr, eps=1e-10):
    total = torch.zeros_like(w)
    for g in gradients:
        total = total + g**2
        w = w - lr * g / (total.sqrt() + eps)
    return w


def adadelta(w, gradients, *, lr, rho=0.9, eps=1e-6):
    v, u = torch.zeros_like(w), torch.zeros_like(w)
    for g in gradients:
        v = rho * v + (1 - rho) * g**2
        step = (u + eps).sqrt() / (v + eps).sqrt() * g
        u = rho * u + (1 - rho) * step**2
        w = w - lr * step
    return w


def rmsprop(w, gradients, *, lr, alpha=0.99, eps=1e-8):
    v = torch.zeros_like(w)
    for g in gradients:
        v = alpha * v + (1 - alpha) * g**2
        w = w - lr * g / (v.sqrt() + eps)
    return w


def adamw(w, gradients, *, lr, weight_decay, beta1=0.9, beta2=0.999, eps=1e-8):
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        w = w - lr * weight_decay * w
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        w = w - lr * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + eps)
    return w


def adam(w, gradients, *, lr):
    return adamw(w, gradients, lr=lr, weight_decay=0.0)


def radam(w, gradients, *, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    rho_inf = 2 / (1 - beta2) - 1
    for t, g in enumerate(gradients, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
        # The paper rectifies above 4, torch and the authors' code above 5: from the sixth step on.
        assert (rho > 5) == (t >= 6)
        if rho > 5:
            r = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
            w = w - lr * r * m_hat * math.sqrt(1 - beta2**t) / (v.sqrt() + eps)
        else:
            w = w - lr * m_hat
    return w


def projected(p, w, g, eps=1e-8, delta=0.1, wd_ratio=0.1):
    """AdamP's step without its radial part, row by row or as a whole, where the gradient looks orthogonal to w."""
    for rows in (len(w), 1) if w.dim() > 1 else ():
        p_rows, w_rows, g_rows = (x.reshape(rows, -1) for x in (p, w, g))
        cosine = (g_rows * w_rows).sum(1) / (g_rows.norm(dim=1) * w_rows.norm(dim=1))
        if cosine.abs().max() < delta / math.sqrt(w_rows.shape[1]):
            unit = w_rows / (w_rows.norm(dim=1, keepdim=True) + eps)
            return (p_rows - unit * (unit * p_rows).sum(1, keepdim=True)).reshape(p.shape), wd_ratio
    return p, 1.0


def adamp(w, gradients, *, lr, weight_decay, beta1=0.9, beta2=0.999, eps=1e-8):
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        p, factor = projected(m / ((v / (1 - beta2**t)).sqrt() + eps), w, g)
        w = w * (1 - lr * weight_decay * factor) - lr / (1 - beta1**t) * p
    return w


def sgdp(w, gradients, *, lr, weight_decay, momentum, nesterov):
    a = torch.zeros_like(w)
    for g in gradients:
        a = momentum * a + g
        p, factor = projected(g + momentum * a if nesterov else a, w, g)
        w = w * (1 - lr * weight_decay * factor / (1 - momentum)) - lr * p
    return w


def lars(w, gradients, *, lr, momentum, weight_decay, trust):
    """Algorithm 1 of the paper; vectors and scalars keep the global rate."""
    v = torch.zeros_like(w)
    for g in gradients:
        local = trust * w.norm() / (g.norm() + weight_decay * w.norm()) if w.dim() > 1 else 1.0
        v = momentum * v + lr * local * (g + weight_decay * w)
        w = w - v
    return w


RULES = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": momentum,
    "adagrad": adagrad,
    "adadelta": adadelta,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
    "radam": radam,
    "adamp": adamp,
    "sgdp": sgdp,
    "lars": lars,
}


@pytest.fixture(params=SHAPES, ids=["matrix", "vector", "scalar"])
def problem(request):
    """A start and the gradients of 100 steps, in float64, over four orders of magnitude."""
    generator = torch.Generator().manual_seed(len(request.param))
    draws = torch.randn(STEPS + 1, *request.param, generator=generator, dtype=torch.float64)
    scale = 10 ** torch.empty(STEPS, dtype=torch.float64).uniform_(-3, 1, generator=generator)
    return draws[0], [g * s for g, s in zip(draws[1:], scale, strict=True)]


@pytest.mark.parametrize("name", RULES)
def test_the_option_is_the_rule(name, problem):
    start, gradients = problem
    optimizer_class, settings = option(name)
    parameter = start.clone().requires_grad_()
    optimizer = optimizer_class([parameter], **settings)
    for step, gradient in enumerate(gradients, start=1):
        parameter.grad = gradient.clone()
        optimizer.step()
        if step in (1, 2, 5, 6, 7, STEPS):
            expected = RULES[name](start, gradients[:step], **settings)
            assert (parameter.detach() - expected).abs().max() <= 1e-12, f"after step {step}"


def test_every_option_has_a_rule():
    assert {path.stem for path in CONF.glob("*.yaml")} == set(RULES)


def test_nesterov_is_momentum_with_the_gradient_of_the_look_ahead_point():
    """The lecture's form, a = mu a + grad(w - lr mu a), w = w - lr a; torch keeps the point w - lr mu a."""
    lr, mu = 0.05, 0.9
    curvature = torch.tensor([1.0, 10.0], dtype=torch.float64)
    w, a = torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    kept = w.clone().requires_grad_()
    optimizer = torch.optim.SGD([kept], lr=lr, momentum=mu, nesterov=True)
    for _ in range(50):
        a = mu * a + curvature * (w - lr * mu * a)
        w = w - lr * a
        kept.grad = curvature * kept.detach()
        optimizer.step()
        assert (kept.detach() - (w - lr * mu * a)).abs().max() <= 1e-12


@pytest.mark.parametrize(("lr", "converges"), [(0.0199, True), (0.0201, False)])
def test_sgd_is_stable_below_two_over_the_curvature(lr, converges):
    curvature = torch.tensor([1.0, 100.0], dtype=torch.float64)
    w = sgd_on_quadratic(curvature, lr)
    assert (w.norm() < 1e-2) if converges else (w.norm() > 1e2)


def sgd_on_quadratic(curvature, lr, steps=1000):
    w = torch.ones(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=lr)
    for _ in range(steps):
        w.grad = curvature * w.detach()
        optimizer.step()
    return w.detach()
