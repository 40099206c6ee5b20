"""What holds for all networks of masked layers: no pixel sees itself or what is to come; the cache changes nothing."""

import math
from functools import partial
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dlx.models.generative.masked import MaskedConv, Stack, groups
from dlx.models.generative.pixel_cnn import PixelCNN
from dlx.models.generative.pixel_rnn import PixelRNN
from dlx.tasks.density import log_probs
from dlx.tasks.spec import Image, Images

SYSTEMS = {
    "plain": PixelCNN,
    "gated": partial(PixelCNN, gated=True),
    "row": PixelRNN,
    "diagonal": partial(PixelRNN, layer="diagonal"),
}
KINDS = {"binary": (1, 2), "gray": (1, 4), "rgb": (3, 4)}
every_system = pytest.mark.parametrize("name", SYSTEMS)
every_kind = pytest.mark.parametrize("kind", KINDS)


def spec_of(kind, height, width):
    channels, levels = KINDS[kind]
    plain = {"mean": (0.0,) * channels, "std": (1.0,) * channels, "scale": levels - 1.0}
    return Images(image=Image(channels=channels, height=height, width=width, **plain))


def build(name, kind, height=4, width=5, **sizes):
    sizes = {"hidden": 12, "depth": 2, "head_width": 24, **sizes}
    return SYSTEMS[name](spec=spec_of(kind, height, width), **sizes)


def noise(system, size=8):
    C, H, W = system.input.shape
    return torch.randint(system.levels, (size, C, H, W)) / (system.levels - 1)


def jacobian(system, x_BCHW):
    """The largest |d logit of dimension i / d x_j| of any image and level, [D, D], in raster order."""

    def logits(x_BCHW):
        return system.logits(x_BCHW).sum(0)  # images do not see each other

    found_DKBCHW = torch.autograd.functional.jacobian(logits, x_BCHW)
    return found_DKBCHW.abs().movedim(3, -1).flatten(3).amax((1, 2))


@every_kind
@every_system
def test_no_logit_sees_its_own_value_or_one_to_come(name, kind):
    """Though the weights that a mask covers are not 0."""
    system = build(name, kind)
    seen_DD = jacobian(system, noise(system))
    assert seen_DD.triu().max() == 0
    assert seen_DD.tril(-1).max() > 1e-3
    beside = seen_DD.diagonal(-1)[seen_DD.new_tensor(range(1, system.dimensions)) % system.colours != 0]
    assert (beside > 0).all()  # G sees R of its pixel, B sees G


@every_kind
@every_system
def test_the_cache_draws_the_same_levels(name, kind):
    system = build(name, kind)
    drawn = []
    for use_cache in (True, False):
        torch.manual_seed(1)
        *_, made = system.sample(6, use_cache=use_cache)
        drawn.append(system.flat_levels(made["image"]))
    assert torch.equal(*drawn)
    assert len(drawn[0].unique()) == system.levels


@every_kind
@every_system
def test_log_prob_is_the_product_of_the_samplers_conditionals(name, kind):
    system = build(name, kind)
    x_BCHW, cache, total_B = noise(system), {}, 0
    levels_BD = system.flat_levels(x_BCHW)
    with torch.no_grad():
        for step in range(system.dimensions):
            blind = system.image_of(levels_BD.where(torch.arange(system.dimensions) < step, system.levels - 1))
            logits_BK = system.next_logits(blind, step, cache)  # what is to come is another image's
            total_B = total_B + log_probs(logits_BK.unsqueeze(1), levels_BD[:, step : step + 1])[:, 0]
        torch.testing.assert_close(total_B, system.log_prob({"image": x_BCHW}), atol=1e-5, rtol=1e-5)


@every_system
def test_half_an_image_is_completed_with_the_same_levels(name):
    system = build(name, "rgb")
    start_BD = system.flat_levels(noise(system))
    given = 2 * 5 * 3
    drawn = []
    for use_cache in (True, False):
        torch.manual_seed(2)
        *_, made = system.complete(start_BD, given, use_cache=use_cache)
        drawn.append(system.flat_levels(made["image"]))
    assert torch.equal(*drawn)
    assert torch.equal(drawn[0][:, :given], start_BD[:, :given])


@every_system
def test_probabilities_of_all_images_sum_to_one(name):
    system = build(name, "binary", 3, 3).double()
    x_BCHW = torch.tensor(list(product((0.0, 1.0), repeat=9)), dtype=torch.float64).view(-1, 1, 3, 3)
    with torch.no_grad():
        log_prob_B = log_probs(system.logits(x_BCHW).double(), system.flat_levels(x_BCHW)).sum(1)
    assert log_prob_B.exp().sum().item() == pytest.approx(1, abs=1e-6)  # log_probs is in float32


@every_system
def test_samples_come_as_often_as_they_are_probable(name):
    system = build(name, "binary", 2, 2)
    for parameter in system.parameters():
        nn.init.normal_(parameter, std=0.4)
    x_BCHW = torch.tensor(list(product((0.0, 1.0), repeat=4))).view(-1, 1, 2, 2)
    *_, made = system.sample(20_000)
    number_B = (system.flat_levels(made["image"]) * torch.tensor([8, 4, 2, 1])).sum(1)
    share = torch.bincount(number_B, minlength=16) / 20_000
    with torch.no_grad():
        expected = system.log_prob({"image": x_BCHW}).exp()
    assert ((share - expected).abs() < 4.5 * (expected * (1 - expected) / 20_000).sqrt() + 1e-4).all()


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("kind", ["A", "B"])
@pytest.mark.parametrize("rows", [False, True])
def test_a_mask_is_that_of_the_paper_tap_by_tap(kind, rows, colours):
    layer = MaskedConv(6, 12, (5, 3), kind, colours=colours, copies=2, rows=rows)
    for out, inside, row, column in product(range(12), range(6), range(5), range(3)):
        out_colour, in_colour = out % 6 * colours // 6, inside * colours // 6
        if (row, column) == (2, 1) and not rows:
            seen = in_colour < out_colour if kind == "A" else in_colour <= out_colour
        elif rows:
            seen = row < 2 or (row == 2 and kind == "B")
        else:
            seen = row < 2 or (row == 2 and column < 1)
        assert layer.mask[out, inside, row, column].item() == seen


def test_a_masked_convolution_is_a_convolution_with_zeros():
    layer = MaskedConv(3, 4, 5, "A", colours=3)
    x_BCHW = torch.randn(2, 3, 6, 7)
    weight = layer.weight.detach().clone()
    weight[:, :, 3:] = 0
    weight[:, :, 2, 3:] = 0
    weight[:, :, 2, 2] *= groups(3, 3) < groups(4, 3).unsqueeze(1)
    torch.testing.assert_close(layer(x_BCHW), F.conv2d(x_BCHW, weight, layer.bias, padding=2))


def test_the_mask_is_no_weight_and_covered_weights_get_no_gradient():
    layer = MaskedConv(2, 4, 3, colours=2)
    assert set(layer.state_dict()) == {"weight", "bias"}
    layer(torch.randn(2, 2, 5, 5)).square().sum().backward()
    assert layer.weight.grad[layer.mask == 0].abs().max() == 0
    assert (layer.weight.grad[layer.mask == 1] != 0).all()


@every_system
def test_no_layer_normalizes_over_the_batch(name):
    """Its statistics would mix pixels with those to come."""
    system = build(name, "gray")
    assert not any("Norm" in type(layer).__name__ for layer in system.modules())
    x_BCHW = noise(system)
    with torch.no_grad():
        torch.testing.assert_close(system.logits(x_BCHW)[:1], system.logits(x_BCHW[:1]))


@every_kind
@every_system
def test_before_training_each_level_is_about_as_probable(name, kind):
    system = build(name, kind, hidden=12)
    nll = -system.log_prob({"image": noise(system, 64)}).mean().item()
    assert nll == pytest.approx(system.dimensions * math.log(system.levels), rel=0.1)


@every_system
def test_every_parameter_gets_a_gradient(name):
    system = build(name, "rgb")
    system.training_loss({"image": noise(system)}, system.objectives()[0])[0].backward()
    assert [key for key, p in system.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("kind", ["binary", "rgb"])
@every_system
def test_one_batch_is_learned_by_heart(name, kind):
    """8 images that differ in their first dimensions: then nothing is left to chance, so that ln 8 is the least."""
    system = build(name, kind, 3, 3, hidden=48, head_width=48)
    levels_BD = system.flat_levels(noise(system))
    levels_BD[:, :3] = torch.tensor(list(product((0, system.levels - 1), repeat=3)))
    x_BCHW = system.image_of(levels_BD)
    optimizer = torch.optim.Adam(system.parameters(), lr=5e-3)
    for _ in range(300):
        loss = -system.log_prob({"image": x_BCHW}).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < math.log(8) + 0.1:
            break
    assert math.log(8) - 1e-4 <= loss.item() < math.log(8) + 0.1


@every_system
def test_memory_format_changes_nothing(name):
    system = build(name, "rgb")
    x_BCHW = noise(system)
    with torch.no_grad():
        expected = system.logits(x_BCHW)
        last = system.to(memory_format=torch.channels_last).logits(x_BCHW.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected, atol=1e-5, rtol=1e-5)


def test_a_stack_with_a_residual_adds_its_input():
    stack = Stack(nn.ReLU(), nn.ReLU(), residual=True)
    x_BCHW = torch.randn(2, 3, 4, 4)
    assert torch.equal(stack(x_BCHW), x_BCHW + x_BCHW.relu())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"kernel": 2}, "kernel must be odd, so that it has a center, got 2"),
        ({"first_kernel": 1}, "first_kernel must be at least 3, got 1"),
        ({"first_kernel": 4}, "first_kernel must be odd, so that it has a center, got 4"),
        ({"hidden": 2}, "hidden must be at least 3, got 2"),
        ({"head_width": 1}, "head_width must be at least 3, got 1"),
    ],
)
@every_system
def test_wrong_arguments_are_said_on_the_meta_device_too(name, arguments, message):
    for device in ("cpu", "meta"):
        with torch.device(device), pytest.raises(ValueError, match="^" + message):
            build(name, "rgb", **arguments)
