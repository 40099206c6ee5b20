import pytest
import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx

from dlx.batched.fx_passes import optimize_graph

M, B, D, H, K = 3, 5, 4, 6, 2


def inputs():
    generator = torch.Generator().manual_seed(0)
    shapes = [(M, B, D), (M, H, D), (M, H), (M, K, H), (M, K)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def gradients(x, *weights):
    """What vmap and autograd make of two linear layers and a loss."""

    def loss(x, w1, b1, w2, b2):
        hidden = F.relu(F.linear(x, w1, b1))
        output = F.linear(hidden, w2, b2)
        return F.cross_entropy(output, torch.zeros(B, dtype=torch.int64)), F.log_softmax(output, -1).sum()

    leaves = [weight.detach().requires_grad_() for weight in weights]
    losses, sums = torch.func.vmap(loss)(x, *leaves)
    return losses.detach(), sums.detach(), *torch.autograd.grad(losses.sum(), leaves)


def operations(program):
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


def traced(function):
    return make_fx(lambda *given: function(*given))(*inputs())


def test_gradients_are_the_same_with_far_fewer_operations():
    program = traced(gradients)
    expected, before = program(*inputs()), len(operations(program))
    tidy = optimize_graph(program)
    for _ in range(2):  # a constant that the first call changed would show in the second
        for found, right in zip(tidy(*inputs()), expected, strict=True):
            torch.testing.assert_close(found, right)
    names = operations(tidy)
    assert len(names) < 0.6 * before
    assert names.count("aten.baddbmm.default") == 2
    assert names.count("aten._log_softmax.default") == 1
    assert not {"aten.alias.default", "aten.mul.Scalar", "aten.zeros.default"} & set(names)


def test_a_softmax_over_few_classes_has_the_samples_innermost():
    nodes = [node for node in optimize_graph(traced(gradients)).graph.nodes if "softmax" in str(node.target)]
    assert [(str(node.target), 1 in node.args) for node in nodes] == [
        ("aten._log_softmax.default", True),
        ("aten._log_softmax_backward_data.default", True),
    ]


def test_a_weights_gradient_lies_in_memory_as_the_weight_does():
    assert all(tensor.is_contiguous() for tensor in optimize_graph(traced(gradients))(*inputs()))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, *_: (x * 1, x * 1 + 1, torch.zeros(3), x.view(M, B, D)),
        lambda x, w, *_: (torch.bmm(x, w.transpose(1, 2)).transpose(1, 2), x.transpose(1, 2).transpose(1, 2)),
        lambda x, w, b, *_: (b + torch.bmm(x, w.transpose(1, 2)).sum(1), torch.bmm(x, w.mT) + torch.bmm(x, w.mT)),
        lambda x, w, b, *_: (torch.bmm(x, w.mT) + b.double().unsqueeze(1), b.unsqueeze(1) + 2 * torch.bmm(x, w.mT)),
        lambda x, *_: (x.log_softmax(-1).sum(1), x.softmax(-1).argmax(-1), x.softmax(-1).sum(0).view(-1)),
        lambda x, w, b, *_: (
            torch.baddbmm(b.unsqueeze(1), x, w.mT).softmax(-1).exp().view(-1),
            torch.baddbmm(b.unsqueeze(1), x, w.mT).log_softmax(-1).mT.reshape(-1),
            torch.baddbmm(b.unsqueeze(1), x, w.mT).argmax(-1),
        ),
        lambda x, w, b, *_: torch.baddbmm(b.unsqueeze(1), x, w.mT).view(-1).log_softmax(0),
        lambda x, *_: (x.max(-1).values, x.max(-1).indices, torch.ones_like(x).cumsum(0)),
    ],
)
def test_results_stay_what_they_are(function):
    program = traced(function)
    expected = program(*inputs())
    for found, right in zip(optimize_graph(program)(*inputs()), expected, strict=True):
        torch.testing.assert_close(found, right)


def test_what_changes_a_tensor_in_place_is_left_in_order():
    def changes(x, *_):
        before = x.view(M, B, D) * 1
        again = x + 1
        x.add_(1)
        return before, again, x + 1

    program, given = traced(changes), inputs()
    expected, kept = program(*inputs()), given[0].clone()
    for found, right in zip(optimize_graph(program)(*given), expected, strict=True):
        torch.testing.assert_close(found, right)
    torch.testing.assert_close(given[0], kept + 1)
