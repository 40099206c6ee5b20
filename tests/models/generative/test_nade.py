"""NADE: its parameters, a loop beside the prefix sums, parts beside the whole, what it refuses and what it reaches."""

import json
import statistics

import pytest
import torch
from test_every_density import build, spec_of

from dlx.models.generative import nade
from dlx.models.generative.nade import NADE, over_prefixes


def test_parameters_of_the_paper():
    """2 H D + H + D of binarized MNIST."""
    with torch.device("meta"):
        model = NADE(spec=spec_of(1, 28, 28, 2))
    assert sum(p.numel() for p in model.parameters()) == 2 * 500 * 784 + 500 + 784 == 785_284


@pytest.mark.parametrize("ordering", ["raster", "random"])
def test_prefix_sums_are_the_papers_loop(ordering):
    model = build(NADE, {"hidden": 6, "ordering": ordering, "ordering_seed": 3}, spec_of(1, 4, 3, 2))
    x_BCHW = torch.randint(2, (5, 1, 4, 3)).float()
    x_BD, logits_BD = x_BCHW.flatten(1), model.logits(x_BCHW)[..., 0]
    a_BF = model.bias.expand(5, -1)
    for step, position in enumerate(model.order.tolist()):
        expected_B = torch.sigmoid(a_BF) @ model.out_weight[step] + model.out_bias[step]
        torch.testing.assert_close(logits_BD[:, position], expected_B)
        a_BF = a_BF + x_BD[:, position : position + 1] * model.weight[step]


def test_a_random_ordering_is_a_permutation_of_its_seed():
    orders = [NADE(spec=spec_of(1, 4, 3, 2), ordering="random", ordering_seed=seed).order for seed in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert sorted(orders[2].tolist()) == list(range(12))


@pytest.mark.parametrize("largest", [1, 4 * 6 * 2, 4 * 6 * 5])
def test_parts_give_what_the_whole_gives_with_the_same_gradients(largest, monkeypatch):
    model = build(NADE, {"hidden": 6}, spec_of(1, 4, 3, 2)).double()
    batch = {"image": torch.randint(2, (4, 1, 4, 3)).double()}

    def loss_and_gradients():
        loss, _ = model.training_loss(batch, None)
        return loss, *torch.autograd.grad(loss, list(model.parameters()))

    whole = loss_and_gradients()
    monkeypatch.setattr(nade, "LARGEST", largest)
    for part, expected in zip(loss_and_gradients(), whole, strict=True):
        torch.testing.assert_close(part, expected)


def test_memory_does_not_grow_with_the_dimensions(monkeypatch):
    """Tensors of a part are made again in the backward pass: none of them is kept."""
    monkeypatch.setattr(nade, "LARGEST", 4 * 8 * 16)
    weight_DF = torch.randn(256, 8, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        over_prefixes(torch.rand(4, 256), weight_DF, torch.zeros(8), lambda a_BNF, _: a_BNF.sigmoid().sum(-1))
    assert sum(kept) < 4 * 256 * 8


def test_before_training_a_pixel_is_a_coin():
    torch.manual_seed(0)
    model = NADE(spec=spec_of(1, 8, 8, 2))
    found = model.log_prob({"image": torch.randint(2, (100, 1, 8, 8)).float()}).mean().item()
    assert -found == pytest.approx(64 * 0.6931, rel=0.08)


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((1, 2, 2, 2), {"hidden": 0}, "hidden must be at least 1, got 0"),
        ((1, 2, 2, 2), {"ordering": "spiral"}, "ordering must be raster or random, got 'spiral'"),
        ((1, 2, 2, 17), {}, "spec must be of binary images for NADE, got 17 gray levels"),
        ((3, 2, 2, 2), {}, "spec must be of binary images for NADE, got colour"),
    ],
)
def test_wrong_arguments_are_said(shape, arguments, message):
    with pytest.raises(ValueError, match="^" + message):
        NADE(spec=spec_of(*shape), **arguments)


def test_other_images_are_refused_in_one_line(dlx_call, here):
    call = dlx_call("train", "model=nade", "data=digits")
    assert call.code == 2
    assert "binary images for NADE, got 17 gray levels" in call.err
    assert not (here / "outputs").exists()


@pytest.mark.slow
def test_binary_digits(dlx_call):
    """At most 17.6 nats."""
    found = []
    for seed in range(3):
        call = dlx_call("train", "model=nade", f"seed={seed}", "--json")
        assert call.code == 0, call.err
        found.append(json.loads(call.out)["metrics"]["test/nll"])
    assert statistics.mean(found) <= 17.6, found
