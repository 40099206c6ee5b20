"""Each optimizer file against its update rule, written out: 100 steps of random gradients in float64."""

import math

import pytest
import torch

from dlx.config import compose, own_block
from dlx.random import generator


def sgd(w, g, s, t, o):
    return w - o["lr"] * g


def momentum(w, g, s, t, o):
    s["b"] = g if t == 1 else o["momentum"] * s["b"] + g
    return w - o["lr"] * s["b"]


def nesterov(w, g, s, t, o):
    s["b"] = g if t == 1 else o["momentum"] * s["b"] + g
    return w - o["lr"] * (g + o["momentum"] * s["b"])


def adagrad(w, g, s, t, o):
    s["S"] = s.get("S", 0) + g * g
    return w - o["lr"] * g / (s["S"].sqrt() + o["eps"])


def adadelta(w, g, s, t, o):
    rho, eps = o["rho"], o["eps"]
    s["v"] = rho * s.get("v", torch.zeros_like(g)) + (1 - rho) * g * g
    u = s.get("u", torch.zeros_like(g))
    delta = (u + eps).sqrt() / (s["v"] + eps).sqrt() * g
    s["u"] = rho * u + (1 - rho) * delta * delta
    return w - o["lr"] * delta


def rmsprop(w, g, s, t, o):
    s["v"] = o["alpha"] * s.get("v", torch.zeros_like(g)) + (1 - o["alpha"]) * g * g
    return w - o["lr"] * g / (s["v"].sqrt() + o["eps"])


def moments(g, s, t, o):
    b1, b2 = o["betas"]
    s["m"] = b1 * s.get("m", torch.zeros_like(g)) + (1 - b1) * g
    s["v"] = b2 * s.get("v", torch.zeros_like(g)) + (1 - b2) * g * g
    return s["m"] / (1 - b1**t), s["v"] / (1 - b2**t)


def adam(w, g, s, t, o):
    m, v = moments(g, s, t, o)
    return w - o["lr"] * m / (v.sqrt() + o["eps"])


def adamw(w, g, s, t, o):
    return adam(w * (1 - o["lr"] * o["weight_decay"]), g, s, t, o)


def radam(w, g, s, t, o):
    m, _ = moments(g, s, t, o)
    b2 = o["betas"][1]
    limit = 2 / (1 - b2) - 1
    rho = limit - 2 * t * b2**t / (1 - b2**t)
    if rho <= 5:
        return w - o["lr"] * m
    r = math.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
    return w - o["lr"] * r * m * math.sqrt(1 - b2**t) / (s["v"].sqrt() + o["eps"])


RULES = {rule.__name__: rule for rule in (sgd, momentum, nesterov, adagrad, adadelta, rmsprop, adam, adamw, radam)}


@pytest.mark.parametrize("name", RULES)
def test_the_file_names_the_rule(name):
    options = own_block(compose([f"optim={name}"]), "optimizer")
    target = getattr(torch.optim, options.pop("_target_").rpartition(".")[2])
    rng = generator(0, name)
    params = [torch.randn(shape, generator=rng, dtype=torch.double) for shape in ((3, 4), (5,), ())]
    expected, states = [p.clone() for p in params], [{} for _ in params]
    trained = [p.clone().requires_grad_() for p in params]
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    optimizer = target(trained, **arguments)
    for step in range(1, 101):
        for number, p in enumerate(trained):
            p.grad = torch.randn(p.shape, generator=rng, dtype=torch.double)
            expected[number] = RULES[name](expected[number], p.grad, states[number], step, options)
        optimizer.step()
    for p, e in zip(trained, expected, strict=True):
        torch.testing.assert_close(p.detach(), e, atol=1e-12, rtol=0)
