"""AdamP and SGDP are the paper's rule, and what they promise about the length of weights holds."""

import copy
import io
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dlx.optim.adamp import SGDP, AdamP

F64 = torch.float64
# Three of one shape are projected together, one of 36,000 numbers alone; vectors and scalars never are.
SHAPES = [(4, 3), (4, 3), (4, 3), (6, 2, 3, 3), (6, 2, 3, 3), (300, 120), (5,), ()]
STEPS = 12


def projected(p, w, g, *, delta, wd_ratio, eps):
    """The step p, without its radial part where the rule says so; the factor of the decay; the view that fired."""
    if w.dim() < 2:
        return p, 1.0, "none"
    for view, rows in (("channel", w.shape[0]), ("layer", 1)):
        p_rows, w_rows, g_rows = (x.reshape(rows, -1) for x in (p, w, g))
        cosines = [
            abs(float(a @ b)) / (max(float(a.norm()), eps) * max(float(b.norm()), eps))
            for a, b in zip(g_rows, w_rows, strict=True)
        ]
        if max(cosines) < delta / math.sqrt(w_rows.shape[1]):
            out = []
            for p_row, w_row in zip(p_rows, w_rows, strict=True):
                direction = w_row / (w_row.norm() + eps)
                out.append(p_row - direction * (direction @ p_row))
            return torch.stack(out).reshape(p.shape), wd_ratio, view
    return p, 1.0, "none"


def adamp(w, gradients, *, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, nesterov=False, **bounds):
    bounds = {"delta": 0.1, "wd_ratio": 0.1, **bounds}
    (b1, b2), m, v = betas, torch.zeros_like(w), torch.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        p = (b1 * m + (1 - b1) * g if nesterov else m) / (v.sqrt() / math.sqrt(1 - b2**t) + eps)
        p, factor, view = projected(p, w, g, eps=eps, **bounds)
        w = w * (1 - lr * weight_decay * factor) - lr / (1 - b1**t) * p
        yield w, view


def sgdp(w, gradients, *, lr, momentum, dampening=0.0, eps=1e-8, weight_decay=0.0, nesterov=False, **bounds):
    bounds = {"delta": 0.1, "wd_ratio": 0.1, **bounds}
    buffer = torch.zeros_like(w)
    for g in gradients:
        buffer = momentum * buffer + (1 - dampening) * g
        p, factor, view = projected(g + momentum * buffer if nesterov else buffer, w, g, eps=eps, **bounds)
        w = w * (1 - lr * weight_decay * factor / (1 - momentum)) - lr * p
        yield w, view


def gradient(w, step, generator):
    """By turns orthogonal to each row, to the tensor only, to nothing, and zero."""
    g = torch.randn(w.shape, generator=generator, dtype=F64) * 10.0 ** (step % 3 - 1)
    kind = step % 4
    if w.dim() < 2 or kind == 2:
        return g + w if kind == 2 else g
    if kind == 3:
        return torch.zeros_like(g)
    rows = (w.shape[0], -1) if kind == 0 else (1, -1)
    g_rows, w_rows = g.reshape(rows), w.reshape(rows)
    return (g_rows - w_rows * ((g_rows * w_rows).sum(1) / (w_rows**2).sum(1)).unsqueeze(1)).reshape(w.shape)


ADAMP = [
    {"lr": 1e-2},
    {"lr": 1e-2, "weight_decay": 0.5, "nesterov": True, "betas": (0.8, 0.9), "eps": 1e-3},
    {"lr": 1e-3, "weight_decay": 0.1, "delta": 0.3, "wd_ratio": 0.7},
]
SGDP_ = [
    {"lr": 1e-2, "momentum": 0.9},
    {"lr": 1e-2, "momentum": 0.9, "nesterov": True, "weight_decay": 0.5},
    {"lr": 1e-1, "momentum": 0.5, "dampening": 0.3, "weight_decay": 0.1, "delta": 0.3, "wd_ratio": 0.7, "eps": 1e-3},
]


@pytest.mark.parametrize(
    ("optimizer_class", "rule", "settings"), [(AdamP, adamp, ADAMP), (SGDP, sgdp, SGDP_)], ids=["adamp", "sgdp"]
)
def test_the_rule_written_out(optimizer_class, rule, settings):
    """Three groups of different settings, against one tensor at a time, after each step."""
    generator = torch.Generator().manual_seed(0)
    groups = [[torch.randn(s, generator=generator, dtype=F64).requires_grad_() for s in SHAPES] for _ in settings]
    for group in groups:  # a layout in memory of its own
        group[4].data = group[4].data.contiguous(memory_format=torch.channels_last)
    optimizer = optimizer_class(
        [{"params": group, **own} for group, own in zip(groups, settings, strict=True)], lr=settings[0]["lr"]
    )
    flat = [(p, own) for group, own in zip(groups, settings, strict=True) for p in group]
    seen = [[] for _ in flat]
    rules = [rule(p.detach().clone(), gradients, **own) for (p, own), gradients in zip(flat, seen, strict=True)]
    views = {}
    for step in range(STEPS):
        for (p, _), gradients in zip(flat, seen, strict=True):
            p.grad = gradient(p.detach(), step, generator)
            gradients.append(p.grad.clone())
        optimizer.step()
        for (p, own), written in zip(flat, rules, strict=True):
            expected, view = next(written)
            assert (p.detach() - expected).abs().max() <= 1e-12, (p.shape, own, step)
            views.setdefault(min(p.dim(), 2), []).append(view)
    # All that can happen did, and never to a vector or a scalar.
    assert set(views[2]) == {"channel", "layer", "none"}
    assert set(views[0] + views[1]) == {"none"}


def scale_invariant(optimizer_of, steps=200):
    """Weights before and after each step of a layer before batch norm, under the noise of minibatches."""
    generator = torch.Generator().manual_seed(0)
    x, teacher = (
        torch.randn(512, 16, generator=generator, dtype=F64),
        torch.randn(16, 4, generator=generator, dtype=F64),
    )
    label = (x @ teacher).argmax(1)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(16, 12, bias=False), nn.BatchNorm1d(12, affine=False), nn.ReLU(), nn.Linear(12, 4)
    ).double()
    weight = net[0].weight
    optimizer, path = optimizer_of(net.parameters()), [weight.detach().clone()]
    for _ in range(steps):
        index = torch.randint(512, (32,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(net(x[index]), label[index]).backward()
        optimizer.step()
        path.append(weight.detach().clone())
    return torch.stack(path)


# w / (|w| + eps) is no unit vector: of the radial part 2 eps / |w| stays, 4e-8 by default.
EPS = 1e-13


def excess(path):
    """What the squared length of each row gains beyond that of its step, relative to it."""
    before, after = path[:-1], path[1:]
    gained = after.square().sum(-1) - before.square().sum(-1) - (after - before).square().sum(-1)
    return (gained / before.square().sum(-1)).abs()


@pytest.mark.parametrize(
    ("with_projection", "without"),
    [
        (lambda p: AdamP(p, lr=1e-2, eps=EPS), lambda p: torch.optim.Adam(p, lr=1e-2)),
        (lambda p: AdamP(p, lr=1e-2, eps=EPS, nesterov=True), lambda p: torch.optim.NAdam(p, lr=1e-2)),
        (lambda p: SGDP(p, lr=0.5, eps=EPS, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9)),
    ],
    ids=["adamp", "nesterov", "sgdp"],
)
def test_a_step_is_orthogonal_to_scale_invariant_weights(with_projection, without):
    """|w'|^2 = |w|^2 + |w' - w|^2 in each step and row: the length grows, but only by what is sideways."""
    path, plain = scale_invariant(with_projection), scale_invariant(without)
    assert excess(path).max() <= 1e-11
    assert excess(plain).median() >= 1e-4
    lengths, plain_lengths = (p.norm(dim=-1).mean(-1) for p in (path, plain))
    assert (path[1:].norm(dim=-1) >= path[:-1].norm(dim=-1) - 1e-9).all()
    assert lengths[-1] / lengths[0] < plain_lengths[-1] / plain_lengths[0]


def linear_problem(optimizer_of, dtype, steps=300):
    generator = torch.Generator().manual_seed(3)
    x, teacher = (
        torch.randn(256, 20, generator=generator, dtype=dtype),
        torch.randn(20, generator=generator, dtype=dtype),
    )
    torch.manual_seed(0)
    net = nn.Linear(20, 6, dtype=dtype)
    target = torch.stack([x @ teacher.roll(k) for k in range(6)], 1)
    optimizer = optimizer_of(net.parameters())
    for _ in range(steps):
        index = torch.randint(256, (32,), generator=generator)
        optimizer.zero_grad()
        F.mse_loss(net(x[index]), target[index]).backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-13), (torch.float32, 1e-5)], ids=["64", "32"])
def test_a_plain_linear_layer_learns_as_with_adamw(dtype, tolerance):
    """Nothing looks scale-invariant, so it is AdamW, to rounding (a quotient is a product with the reciprocal)."""
    found = linear_problem(lambda p: AdamP(p, lr=1e-2, weight_decay=0.1), dtype)
    expected = linear_problem(lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1), dtype)
    assert (found - expected).abs().max() <= tolerance
    always = linear_problem(lambda p: AdamP(p, lr=1e-2, weight_decay=0.1, delta=100.0), dtype)
    assert (always - expected).abs().max() >= 1e-2


def test_without_projection_sgdp_is_sgd():
    found = linear_problem(lambda p: SGDP(p, lr=1e-2, momentum=0.9, nesterov=True), F64)
    expected = linear_problem(lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True), F64)
    assert (found - expected).abs().max() <= 1e-13


@pytest.mark.parametrize("optimizer_class", [AdamP, SGDP])
def test_a_vector_is_never_projected(optimizer_class):
    """Its gradient is orthogonal to it, or zero; the radial part of the running mean stays in the step."""
    ends = []
    for shape in ((2,), (1, 2)):
        w = torch.tensor([1.0, 0.0], dtype=F64).view(shape).requires_grad_()
        optimizer = optimizer_class([w], lr=0.1, **({"momentum": 0.9} if optimizer_class is SGDP else {}))
        for g in ([1.0, 0.0], [0.0, 0.0]):
            w.grad = torch.tensor(g, dtype=F64).view(shape)
            before = w.detach().clone()
            optimizer.step()
        ends.append((w.detach() - before).flatten()[0].item())
    assert ends[0] < -0.01
    assert abs(ends[1]) < 1e-8


class ScalarReads(TorchDispatchMode):
    """Notes each tensor of which a number is read back."""

    def __init__(self):
        super().__init__()
        self.read = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            self.read.append(args[0].data_ptr())
        return func(*args, **(kwargs or {}))


def parameters(device="cpu"):
    params = [torch.ones(shape, device=device, requires_grad=True) for shape in SHAPES]
    for p in params:
        p.grad = torch.full_like(p, 0.5)
    return params


@pytest.mark.parametrize("optimizer_class", [AdamP, SGDP])
def test_no_number_is_read_back_from_the_device(optimizer_class):
    settings = {"lr": 0.1, "weight_decay": 0.1}
    optimizer = optimizer_class(parameters(), **settings)
    with ScalarReads() as reads:
        optimizer.step()
    # The counts of steps live on the CPU, whatever the device of the parameters.
    counts = {state["step"].data_ptr() for state in optimizer.state.values() if "step" in state}
    assert set(reads.read) == counts
    # On the meta device there are no numbers to read: whatever depends on one raises.
    elsewhere = optimizer_class(parameters("meta"), **settings)
    elsewhere.step()
    assert all(state["step"].is_cpu for state in elsewhere.state.values() if "step" in state)
    with pytest.raises(RuntimeError):
        elsewhere.param_groups[0]["params"][0].sum().item()


@pytest.mark.parametrize(("optimizer_class", "rule"), [(AdamP, adamp), (SGDP, sgdp)])
def test_weights_that_begin_at_zero(optimizer_class, rule):
    """A row of zeros (the last norm of a residual block, a new head) has no direction: its cosine counts as 0."""
    settings = {"lr": 0.1, "weight_decay": 0.1} | ({"momentum": 0.9} if optimizer_class is SGDP else {})
    start = torch.tensor([[0.0, 0.0], [1.0, 1e-9]], dtype=F64)
    w, gradients, views = start.clone().requires_grad_(), [], []
    optimizer = optimizer_class([w], **settings)
    for g in ([[1.0, 2.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, -1.0]]):
        w.grad = torch.tensor(g, dtype=F64)
        gradients.append(w.grad)
        optimizer.step()
        *_, (expected, view) = rule(start, gradients, **settings)
        views.append(view)
        assert (w.detach() - expected).abs().max() <= 1e-12
    assert views[0] == "channel"


@pytest.mark.parametrize("optimizer_class", [AdamP, SGDP])
def test_a_resumed_optimizer_takes_the_same_steps(optimizer_class):
    generator = torch.Generator().manual_seed(0)
    params = [torch.randn(shape, generator=generator).requires_grad_() for shape in SHAPES]
    settings = {"lr": 0.01, "weight_decay": 0.1, "nesterov": True}
    if optimizer_class is SGDP:
        settings["momentum"] = 0.9
    optimizer = optimizer_class(params, **settings)

    def steps(params, optimizer, seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(3):
            for p in params:
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()

    steps(params, optimizer, 1)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    others = copy.deepcopy(params)
    resumed = optimizer_class(others, lr=0.5)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    steps(params, optimizer, 2)
    steps(others, resumed, 2)
    assert all(torch.equal(a, b) for a, b in zip(params, others, strict=True))
    if optimizer_class is AdamP:
        assert {state["step"].item() for state in resumed.state.values()} == {6.0}


def test_a_parameter_that_joins_later_starts_its_own_count():
    w, late = torch.ones(2, 2, dtype=F64, requires_grad=True), torch.ones(2, 2, dtype=F64, requires_grad=True)
    optimizer = AdamP([w, late], lr=0.1)
    for step in range(3):
        w.grad = torch.ones_like(w)
        late.grad = torch.ones_like(w) if step == 2 else None
        optimizer.step()
    *_, (expected, _) = adamp(torch.ones(2, 2, dtype=F64), [torch.ones(2, 2, dtype=F64)], lr=0.1)
    assert (late.detach() - expected).abs().max() <= 1e-12


@pytest.mark.parametrize(
    ("optimizer_class", "settings"),
    [
        (AdamP, {"lr": -1.0}),
        (AdamP, {"lr": math.nan}),
        (AdamP, {"betas": (0.9, 1.0)}),
        (AdamP, {"eps": -1e-8}),
        (AdamP, {"weight_decay": -0.1}),
        (AdamP, {"delta": -0.1}),
        (AdamP, {"wd_ratio": -0.1}),
        (SGDP, {"momentum": 1.0}),
        (SGDP, {"dampening": 1.5}),
        (SGDP, {"nesterov": True}),
    ],
)
def test_a_value_out_of_range_is_named(optimizer_class, settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"^{name} "):
        optimizer_class([torch.zeros(2, 2, device="meta", requires_grad=True)], **settings)
