"""GAN: whose turn moves what, losses at the start, the paper's networks, modes of a ring."""

import json
import math
import statistics

import pytest
import torch

from dlx.models.generative.gan import GAN, Maxout
from dlx.tasks.spec import Image, Images, Points, Reals

IMAGES = Images(image=Image(channels=1, height=28, width=28, mean=(0.1,), std=(0.3,)))
POINTS = Points(features=Reals(size=2))
SMALL = {"latent_dim": 2, "hidden": (16,), "discriminator": (16,), "pieces": 0, "dropout": 0.0}


def test_the_papers_networks_for_mnist():
    system = GAN(spec=IMAGES)
    count = {name: sum(p.numel() for p in getattr(system, name).parameters()) for name in system.players}
    assert count["generator"] == 100 * 1200 + 1200 + 1200 * 1200 + 1200 + 1200 * 784 + 784
    assert count["discriminator"] == 5 * 240 * (784 + 1) + 5 * 240 * (240 + 1) + 240 + 1


def test_maxout_is_the_largest_of_its_pieces():
    layer, x_BF = Maxout(3, 4, 5), torch.randn(6, 3)
    pieces = (x_BF @ layer.linear.weight.T + layer.linear.bias).view(6, 4, 5)
    torch.testing.assert_close(layer(x_BF), pieces.max(-1).values)


@pytest.mark.parametrize("loss", ["non_saturating", "minimax", "least_squares", "wasserstein"])
def test_each_turn_moves_its_own_network_alone(loss):
    system = GAN(spec=POINTS, loss=loss, penalty=1.0, **SMALL)
    batch = {"features": torch.randn(8, 2), "index": torch.arange(8)}
    for turn in system.objectives():
        found, _ = system.training_loss(batch, turn)
        slopes = torch.autograd.grad(found, list(system.parameters()), allow_unused=True)
        params = dict(zip(system.parameters(), slopes, strict=True))
        own = set(getattr(system, turn.name).parameters())
        assert set(turn.params) == own
        assert all(params[p] is not None for p in own)
        if turn.name == "discriminator":
            assert all(params[p] is None for p in system.generator.parameters())


def test_a_discriminator_that_guesses_has_the_losses_of_theory():
    system = GAN(spec=POINTS, **SMALL)
    torch.nn.init.zeros_(system.discriminator[-1].weight)
    torch.nn.init.zeros_(system.discriminator[-1].bias)
    batch = {"features": torch.randn(8, 2), "index": torch.arange(8)}
    losses = {turn.name: system.training_loss(batch, turn)[0].item() for turn in system.objectives()}
    assert losses == pytest.approx({"discriminator": 2 * math.log(2), "generator": math.log(2)})


def test_a_steady_critic_takes_several_turns_for_one_of_the_generator():
    turns = GAN(spec=POINTS, critic_steps=3, **SMALL).objectives()
    assert [(turn.name, turn.every) for turn in turns] == [("discriminator", 1), ("generator", 3)]


@pytest.mark.parametrize(
    "bad",
    [{"loss": "hinge"}, {"penalty": -1.0}, {"critic_steps": 0}, {"hidden": ()}, {"dropout": 1.0}, {"latent": "x"}],
)
def test_bad_settings_name_the_argument(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        GAN(spec=POINTS, **{**SMALL, **bad})


def test_trained_through_the_command_line_it_tells_modes_and_draws_them(dlx_call, tmp_path):
    call = dlx_call("train", "model=gan", "trainer.max_steps=20", "data.samples=600", "name=g", "--json")
    assert call.code == 0, call.err
    metrics = json.loads(call.out)["metrics"]
    assert {"test/modes", "test/quality", "test/spread"} <= set(metrics)
    call = dlx_call("sample", "g", "-n", "5", "--json")
    assert call.code == 0, call.err


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "modes", "quality"), [("ring", 7 / 8, 0.85), ("grid", 15 / 25, 0.8)])
def test_it_finds_the_modes_of_a_mixture_at_four_of_five_seeds(shape, modes, quality, dlx_call):
    found = []
    for seed in range(5):
        call = dlx_call("train", "model=gan", f"data.shape={shape}", f"seed={seed}", "--json")
        assert call.code == 0, call.err
        metrics = json.loads(call.out)["metrics"]
        found.append((metrics["test/modes"], metrics["test/quality"]))
    print(shape, found)  # noqa: T201
    assert statistics.mean(a >= modes and b >= quality for a, b in found) >= 0.8, found
