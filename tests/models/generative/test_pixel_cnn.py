"""PixelCNN: its blind spot, and none in the gated one; blocks and gates beside formulas; what it reaches on digits.

What holds for all masked networks is in test_masked.py."""

import json
import statistics

import pytest
import torch
import torch.nn.functional as F
from test_masked import build, jacobian, noise, spec_of

from dlx.config import build as build_config
from dlx.config import compose
from dlx.models.generative.pixel_cnn import GatedLayer, PixelCNN, block


def share_of_past(gated):
    system = build("gated" if gated else "plain", "binary", 8, 8, depth=4, first_kernel=5)
    seen_DD = jacobian(system, noise(system))
    assert seen_DD.triu().max() == 0
    return (seen_DD > 0).sum().item() / (64 * 63 / 2)


def test_five_plain_layers_have_a_blind_spot():
    """By counting: 1,705 of the 2,016 pairs of a pixel and one before it."""
    assert share_of_past(gated=False) == 1705 / 2016 == pytest.approx(0.846, abs=5e-4)


def test_deeper_plain_layers_keep_it_and_gated_ones_have_none():
    for name, has_blind_spot in (("plain", True), ("gated", False)):
        system = build(name, "binary", 6, 8, depth=6, first_kernel=5)
        seen_DD = jacobian(system, noise(system)) > 0
        assert (not seen_DD[3 * 8, 2 * 8 + 7]) == has_blind_spot  # one row above, far to the right
        assert torch.equal(seen_DD, torch.ones_like(seen_DD).tril(-1)) == (not has_blind_spot)


def test_a_block_is_that_of_figure_5():
    layers = block(4, 3, 1)
    x_BCHW = torch.randn(2, 8, 5, 5)
    down, wide, up = (layer for layer in layers if hasattr(layer, "weight"))
    kernel = wide.weight.detach().clone()
    kernel[:, :, 2] = kernel[:, :, 1, 2] = 0
    y_BCHW = F.conv2d(x_BCHW.relu(), down.weight, down.bias)
    y_BCHW = F.conv2d(y_BCHW.relu(), kernel, wide.bias, padding=1)
    y_BCHW = F.conv2d(y_BCHW.relu(), up.weight, up.bias)
    torch.testing.assert_close(layers(x_BCHW), x_BCHW + y_BCHW)


@pytest.mark.parametrize("first", [False, True])
def test_a_gated_layer_is_that_of_figure_2(first):
    layer = GatedLayer(4, 4, 3, colours=1, first=first)
    v_BCHW, h_BCHW = torch.randn(2, 2, 4, 5, 5)
    vertical, horizontal = layer.vertical.weight.detach().clone(), layer.horizontal.weight.detach().clone()
    vertical[:, :, 2] = horizontal[..., 2] = 0
    if first:
        vertical[:, :, 1] = horizontal[..., 1] = 0
    v_gates = F.conv2d(v_BCHW, vertical, layer.vertical.bias, padding=1)
    h_gates = F.conv2d(h_BCHW, horizontal, layer.horizontal.bias, padding=(0, 1)) + layer.across(v_gates)
    v_made, h_made = (x[:, :4].tanh() * x[:, 4:].sigmoid() for x in (v_gates, h_gates))
    h_made = F.conv2d(h_made, layer.out.weight, layer.out.bias)
    found_v, found_h = layer(v_BCHW, h_BCHW)
    torch.testing.assert_close(found_v, v_made)
    torch.testing.assert_close(found_h, h_made if first else h_BCHW + h_made)


@pytest.mark.parametrize("colours", [1, 3])
def test_parameters_by_hand(colours):
    system = PixelCNN(spec=spec_of("rgb" if colours == 3 else "gray", 6, 6), hidden=6, depth=2, head_width=9)
    h = 6
    first = colours * 2 * h * 49 + 2 * h
    blocks = (2 * h * h + h) + (h * h * 9 + h) + (h * 2 * h + 2 * h)
    head = 2 * h * 9 + 9 + 9 * 4 * colours + 4 * colours
    assert sum(p.numel() for p in system.parameters()) == first + 2 * blocks + head


def test_the_recipe_for_cifar10_takes_one_step():
    """15 blocks of 128, 1,024 features before the 256 levels of R, G and B (table 1), 3.14 bits."""
    config = compose(["experiment=pixel_cnn_cifar10"])
    spec = build_config(config, "dataset").spec
    assert (config["optimizer"]["_target_"], config["dataset"]["batch_size"]) == ("torch.optim.RMSprop", 16)
    with torch.device("meta"):
        system = build_config(config, "model", spec=spec)
        assert system.logits(torch.zeros(2, 3, 32, 32)).shape == (2, 3072, 256)
    h, width = 128, 1024
    blocks = (2 * h * h + h) + (h * h * 9 + h) + (h * 2 * h + 2 * h)
    head = 2 * h * width + width + width * 768 + 768
    assert sum(p.numel() for p in system.parameters()) == 3 * 2 * h * 49 + 2 * h + 15 * blocks + head
    small = PixelCNN(spec=spec, hidden=6, depth=1, head_width=6)
    optimizer = build_config(config, "optimizer", params=small.parameters())
    loss, _ = small.training_loss({"image": torch.rand(1, 3, 32, 32)}, small.objectives()[0])
    loss.backward()
    optimizer.step()
    assert small.bits(loss.item()) == pytest.approx(8, abs=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("words", [("model=pixel_cnn",), ("model=pixel_cnn", "model.gated=true")])
def test_what_it_reaches_on_binary_digits(words, dlx_call):
    found = []
    for seed in range(3):
        call = dlx_call("train", *words, f"seed={seed}", "--json")
        assert call.code == 0, call.err
        found.append(json.loads(call.out)["metrics"]["test/nll"])
    assert statistics.mean(found) <= 19.5, found
