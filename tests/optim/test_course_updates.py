"""The updates as the course's notes write them, beside the options' own: the same, or how far apart and when.

The notes put epsilon inside the root, sqrt(v + eps), in Adagrad, RMSprop and Adam; torch adds it to the root. Momentum
is a = beta a + g in both (tests/optim/test_update_rules.py has the rules of torch; Nesterov's change of variables too).
"""

import math

import pytest
import torch

F64 = torch.float64
STEPS = 60


def run(optimizer_class, start, gradients, **settings):
    """Where the optimizer is after each step: [steps, ...]."""
    w, path = start.clone().requires_grad_(), []
    optimizer = optimizer_class([w], **settings)
    for g in gradients:
        w.grad = g.clone()
        optimizer.step()
        path.append(w.detach().clone())
    return torch.stack(path)


# As in the notes; `denominator` is what torch divides by otherwise.


def inside(v, eps):
    return (v + eps).sqrt()


def outside(v, eps):
    return v.sqrt() + eps


def adagrad(w, gradients, *, lr, eps, denominator=inside):
    total, path = torch.zeros_like(w), []
    for g in gradients:
        total = total + g**2
        w = w - lr * g / denominator(total, eps)
        path.append(w)
    return torch.stack(path)


def rmsprop(w, gradients, *, lr, eps, alpha=0.99, denominator=inside):
    v, path = torch.zeros_like(w), []
    for g in gradients:
        v = alpha * v + (1 - alpha) * g**2
        w = w - lr * g / denominator(v, eps)
        path.append(w)
    return torch.stack(path)


def adam(w, gradients, *, lr, eps, betas=(0.9, 0.999), denominator=inside):
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for t, g in enumerate(gradients, start=1):
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
        w = w - lr * m / (1 - betas[0] ** t) / denominator(v / (1 - betas[1] ** t), eps)
        path.append(w)
    return torch.stack(path)


ADAPTIVE = [
    pytest.param(torch.optim.Adagrad, adagrad, id="adagrad"),
    pytest.param(torch.optim.RMSprop, rmsprop, id="rmsprop"),
    pytest.param(torch.optim.Adam, adam, id="adam"),
]


def problem(scale=1.0):
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(STEPS + 1, 8, generator=generator, dtype=F64)
    return draws[0], draws[1:].sign() * (0.5 + draws[1:].abs()) * scale


@pytest.mark.parametrize(("optimizer_class", "rule"), ADAPTIVE)
def test_without_epsilon_the_notes_and_torch_are_one(optimizer_class, rule):
    start, gradients = problem()
    found = run(optimizer_class, start, gradients, lr=0.01, eps=0.0)
    assert (found - rule(start, gradients, lr=0.01, eps=0.0)).abs().max() <= 1e-12


@pytest.mark.parametrize(("optimizer_class", "rule"), ADAPTIVE)
def test_epsilon_inside_the_root_differs_by_the_order_of_epsilon(optimizer_class, rule):
    """Beside a root r, epsilon outside shortens a step by its share eps / r, and inside by eps / (2 r^2): both vanish
    with epsilon, and so does what lies between them, in proportion."""
    start, gradients = problem()
    low, high = 0.5, gradients.abs().max().item()  # no gradient is smaller, or larger
    # The least root and the largest step, in units of lr: RMSprop's mean of squares begins with a hundredth of g^2.
    root, size = {adagrad: (low, 1), rmsprop: (low / 10, 10), adam: (low, high / low)}[rule]
    apart = {}
    for eps in (1e-8, 1e-6, 1e-4):
        found = run(optimizer_class, start, gradients, lr=0.01, eps=eps)
        assert (found - rule(start, gradients, lr=0.01, eps=eps, denominator=outside)).abs().max() <= 1e-12
        apart[eps] = (found - rule(start, gradients, lr=0.01, eps=eps)).abs().max().item()
        assert apart[eps] <= STEPS * 0.01 * size * eps * (1 / root + 1 / (2 * root**2))
    assert apart[1e-6] / apart[1e-8] == pytest.approx(100, rel=0.01)
    assert apart[1e-4] / apart[1e-6] == pytest.approx(100, rel=0.2)


@pytest.mark.parametrize("g", [1.0, 1e-2, 1e-4, 1e-6])
def test_the_first_step_says_which_epsilon_it_is(g):
    """At the first step v is g^2 (Adam corrected, Adagrad summed), so the steps are known exactly. With eps = 1e-8 they
    part below |g| = sqrt(eps): at 1e-6 torch steps by 0.99 lr and the notes by 0.01 lr."""
    lr, eps = 0.1, 1e-8
    start, gradients = torch.zeros(1, dtype=F64), torch.tensor([[g]], dtype=F64)
    torch_step, notes_step = lr * g / (g + eps), lr * g / math.sqrt(g**2 + eps)
    for optimizer_class, rule in ((torch.optim.Adam, adam), (torch.optim.Adagrad, adagrad)):
        assert -run(optimizer_class, start, gradients, lr=lr, eps=eps).item() == pytest.approx(torch_step, rel=1e-9)
        assert -rule(start, gradients, lr=lr, eps=eps).item() == pytest.approx(notes_step, rel=1e-9)
    if g == 1.0:
        assert torch_step / notes_step == pytest.approx(1 - eps / 2, abs=1e-12)
    if g == 1e-6:
        assert (torch_step / lr, notes_step / lr) == pytest.approx((0.990, 0.0100), rel=1e-3)


def test_epsilon_outside_is_its_square_inside_for_vanishing_gradients():
    """What the notes' epsilon must be for the same largest factor 1/eps on tiny gradients: the square of torch's."""
    start, gradients = problem(scale=1e-14)
    found = run(torch.optim.Adam, start * 0, gradients, lr=0.1, eps=1e-8)
    squared, same = (adam(start * 0, gradients, lr=0.1, eps=eps) for eps in (1e-16, 1e-8))
    assert (found - squared).abs().max() <= 1e-5 * found.abs().max()
    assert found.norm() / same.norm() == pytest.approx(1e4, rel=1e-4)


def test_adadelta_is_zeilers_algorithm():
    """Algorithm 1 of the paper: E[g^2], then the step RMS[dx] / RMS[g] g with epsilon inside both roots, then E[dx^2];
    its "no learning rate" is lr = 1, and its rho 0.95."""
    start, gradients = problem()
    rho, eps = 0.95, 1e-6
    x, mean_g, mean_dx, path = start, torch.zeros_like(start), torch.zeros_like(start), []
    for g in gradients:
        mean_g = rho * mean_g + (1 - rho) * g**2
        dx = -(mean_dx + eps).sqrt() / (mean_g + eps).sqrt() * g
        mean_dx = rho * mean_dx + (1 - rho) * dx**2
        x = x + dx
        path.append(x)
    found = run(torch.optim.Adadelta, start, gradients, lr=1.0, rho=rho, eps=eps)
    assert (found - torch.stack(path)).abs().max() <= 1e-12
    # Where nothing has moved yet, epsilon alone sets the size: sqrt(eps / (1 - rho)) for any |g| >> eps.
    assert (found[0] - start).abs().max() == pytest.approx(math.sqrt(eps / (1 - rho)), rel=1e-3)


def momentum_of_the_notes(w, gradients, lrs, beta):
    """a = beta a + g, w = w - lr a."""
    a, path = torch.zeros_like(w), []
    for g, lr in zip(gradients, lrs, strict=True):
        a = beta * a + g
        w = w - lr * a
        path.append(w)
    return torch.stack(path)


def momentum_of_sutskever(w, gradients, lrs, beta):
    """v = beta v - lr g, w = w + v: the rate is inside the running sum."""
    v, path = torch.zeros_like(w), []
    for g, lr in zip(gradients, lrs, strict=True):
        v = beta * v - lr * g
        w = w + v
        path.append(w)
    return torch.stack(path)


def test_momentum_is_the_notes_also_while_the_rate_falls():
    """With a constant rate the two ways of writing it are one; after a drop the notes' (torch's) slows at once."""
    start, gradients = problem()
    constant, falling = [0.05] * STEPS, [0.05] * (STEPS // 2) + [0.005] * (STEPS // 2)
    w = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([w], lr=0.05, momentum=0.9)
    path = []
    for g, lr in zip(gradients, falling, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        w.grad = g.clone()
        optimizer.step()
        path.append(w.detach().clone())
    found = torch.stack(path)
    assert (found - momentum_of_the_notes(start, gradients, falling, 0.9)).abs().max() <= 1e-12
    same = momentum_of_the_notes(start, gradients, constant, 0.9)
    assert (same - momentum_of_sutskever(start, gradients, constant, 0.9)).abs().max() <= 1e-12
    apart = (found - momentum_of_sutskever(start, gradients, falling, 0.9)).abs().amax(1)
    assert apart[: STEPS // 2].max() <= 1e-12
    assert apart[STEPS // 2] >= 0.05


CURVATURE = torch.tensor([1.0, 100.0], dtype=F64)


def descend(optimizer_class, steps, *, scale=1.0, **settings):
    """The path on f = x' diag(1, 100) x / 2 from (1, 1), with the loss multiplied by `scale`."""
    w = torch.ones(2, dtype=F64, requires_grad=True)
    optimizer, path = optimizer_class([w], **settings), []
    for _ in range(steps):
        w.grad = scale * CURVATURE * w.detach()
        optimizer.step()
        path.append(w.detach().clone())
    return torch.stack(path)


@pytest.mark.parametrize(("momentum", "expected"), [(0.0, 653), (0.9, 138)])
def test_momentum_shortens_a_valley(momentum, expected):
    """Steps until f < 1e-6 at rate 0.01. Plain: x_t = 0.99^t and, from t = 1 on, y_t = 0, a formula."""
    path = descend(torch.optim.SGD, 1000, lr=0.01, momentum=momentum)
    below = (0.5 * (CURVATURE * path**2).sum(1) < 1e-6).nonzero()
    assert below[0].item() + 1 == expected
    if not momentum:
        assert expected == math.ceil(math.log(math.sqrt(2e-6)) / math.log(0.99))


@pytest.mark.parametrize(
    ("optimizer_class", "settings"),
    [
        (torch.optim.Adam, {"lr": 0.01}),
        (torch.optim.RMSprop, {"lr": 0.01}),
        (torch.optim.Adadelta, {"lr": 1.0}),
        (torch.optim.Adagrad, {"lr": 0.1}),
    ],
)
def test_adaptive_steps_do_not_see_the_scale_of_the_loss(optimizer_class, settings):
    """A loss times 1000 changes nothing but what epsilon does, and nothing at all without it (Adadelta needs one: with
    0 its first step is 0, and so are all others)."""
    steps = 100
    if optimizer_class is torch.optim.Adadelta:
        plain, scaled = (descend(optimizer_class, steps, scale=s, **settings) for s in (1.0, 1000.0))
        assert (plain - scaled).abs().max() <= 1e-3 * (1 - plain).abs().max()
    else:
        plain, scaled = (descend(optimizer_class, steps, scale=s, eps=0.0, **settings) for s in (1.0, 1000.0))
        assert (plain - scaled).abs().max() <= 1e-12
        default = (descend(optimizer_class, steps, scale=s, **settings) for s in (1.0, 1000.0))
        assert next(default).sub(next(default)).abs().max() <= 1e-4
    assert (1 - plain).abs().max() >= 1e-2  # they did move


def test_sgd_sees_the_scale_of_the_loss():
    plain, scaled = (descend(torch.optim.SGD, 3, scale=s, lr=1e-5) for s in (1.0, 1000.0))
    assert ((1 - scaled) / (1 - plain))[0].tolist() == pytest.approx([1000, 1000])


def test_adagrads_rate_falls_as_one_over_the_root_of_time():
    """Under gradients of a constant size g, step t is lr g / (g sqrt(t))."""
    path = run(torch.optim.Adagrad, torch.zeros(1, dtype=F64), torch.full((400, 1), 3.0, dtype=F64), lr=0.1)
    sizes = -path[:, 0].diff(prepend=torch.zeros(1, dtype=F64))
    t = torch.arange(1, 401, dtype=F64)
    assert (sizes * t.sqrt() - 0.1).abs().max() <= 1e-9


@pytest.mark.parametrize("beta2", [0.9, 0.99, 0.999])
def test_radam_waits_five_steps(beta2):
    """Under a constant gradient m / (1 - beta1^t) is g: five steps of lr g, then of lr r_t, whatever g is."""
    lr, g = 0.1, 50.0
    path = run(
        torch.optim.RAdam, torch.zeros(1, dtype=F64), torch.full((8, 1), g, dtype=F64), lr=lr, betas=(0.9, beta2)
    )
    sizes = -path[:, 0].diff(prepend=torch.zeros(1, dtype=F64))
    assert sizes[:5].tolist() == pytest.approx([lr * g] * 5)
    assert (sizes[5:] < lr).all()
    assert (sizes[5:].diff() > 0).all()
    if beta2 == 0.999:
        assert sizes[5].item() / lr == pytest.approx(0.0258, abs=5e-5)
