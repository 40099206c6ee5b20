"""Progressive GAN: published parameter counts, what the fade is at its ends, activations at the start, the turns, a
resume over the boundary of two stages, and that it learns."""

import json
import math
import statistics
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from run_ends import assert_same_end

from dlx.config import build, compose
from dlx.models.generative import progressive_gan as parts
from dlx.models.generative.progressive_gan import ProgressiveGAN, enlarge, leaky, pixel_norm, shrink, spread_map
from dlx.tasks.spec import Image, Images

SMALL = {"latent_dim": 8, "width": 64, "most": 8}


def spec(height, channels=3, width=None):
    half = (0.5,) * channels
    return Images(image=Image(channels=channels, height=height, width=width or height, mean=half, std=half))


def batch_of(system, size=4, progress=0.2):
    image = torch.rand(size, *system.input.shape) * 2 - 1
    counters = {"step": torch.tensor(3), "stage": torch.tensor(0), "progress": torch.tensor(progress)}
    return {"image": image, "index": torch.arange(size), **counters}


@pytest.mark.parametrize(
    ("side", "generator", "discriminator"), [(32, 20_719_628, 20_726_785), (1024, 23_079_115, 23_087_249)]
)
def test_parameters_are_the_published_ones(side, generator, discriminator):
    with torch.device("meta"):
        system = ProgressiveGAN(spec=spec(side))
    count = {name: sum(p.numel() for p in getattr(system, name).parameters()) for name in system.players}
    assert count == {"generator": generator, "discriminator": discriminator}


@pytest.mark.parametrize("level", [1, 2, 3])
def test_the_fade_begins_with_the_smaller_networks_and_ends_with_the_larger_ones(level):
    system = ProgressiveGAN(spec=spec(32), **SMALL)
    z_BZ, x = torch.randn(4, 8), torch.randn(4, 3, 4 * 2**level, 4 * 2**level)
    none, all_in = torch.tensor(0.0), torch.tensor(1.0)
    with torch.no_grad():
        below = system.generator(z_BZ, level - 1, all_in)
        assert torch.equal(system.generator(z_BZ, level, none), enlarge(below))
        last = system.generator.features(z_BZ, level)[-1]
        assert torch.equal(system.generator(z_BZ, level, all_in), system.generator.to_image[level](last))
        below = system.discriminator(shrink(x), level - 1, all_in)
        torch.testing.assert_close(system.discriminator(x, level, none), below)
        for parameter in system.discriminator.from_image[level - 1].parameters():
            parameter.zero_()
        full = system.discriminator(x, level, all_in)
        for parameter in system.discriminator.from_image[level - 1].parameters():
            parameter.fill_(3.0)
        assert torch.equal(system.discriminator(x, level, all_in), full)


def test_real_images_lose_the_detail_that_is_not_there_yet():
    system = ProgressiveGAN(spec=spec(16), **SMALL)
    image = torch.randn(2, 3, 16, 16)
    assert torch.equal(system.seen(image, 2, torch.tensor(1.0)), image)
    assert torch.equal(system.seen(image, 2, torch.tensor(0.0)), enlarge(shrink(image)))
    half = system.seen(image, 2, torch.tensor(0.5))
    torch.testing.assert_close(half, (image + enlarge(shrink(image))) / 2)
    torch.testing.assert_close(
        system.seen(image, 0, torch.tensor(1.0)), image.unfold(2, 4, 4).unfold(3, 4, 4).mean((4, 5))
    )


def test_each_pixel_has_a_mean_square_of_1():
    x = 7 * torch.randn(3, 5, 4, 4) + 2
    torch.testing.assert_close(pixel_norm(x).square().mean(1), torch.ones(3, 4, 4))
    for maps in ProgressiveGAN(spec=spec(32), **SMALL).generator.features(torch.randn(3, 8), 3):
        torch.testing.assert_close(maps.square().mean(1), torch.ones(3, *maps.shape[2:]))


def test_activations_begin_with_a_variance_of_1_at_each_size():
    """He's: the mean square, here over 12 draws of the weights. The outermost pixels see zeros beside the image, and
    are left out."""
    found = {}

    def note(name, x):
        found.setdefault(name, []).append(x.square().mean().item())

    for _ in range(12):
        system = ProgressiveGAN(spec=spec(32), most=64, latent_dim=64)
        with torch.no_grad():
            maps = system.generator.features(torch.randn(2, 64), 3)
            for level, block in enumerate(system.generator.blocks, 1):
                x = enlarge(maps[level - 1])
                for number, conv in enumerate(block.children()):
                    x = leaky(conv(x))
                    note(f"generator {level}.{number}", x[..., 1:-1, 1:-1])
                    x = pixel_norm(x)
            for level, own in enumerate(system.discriminator.from_image):
                x = leaky(own(torch.randn(2, 3, 4 * 2**level, 4 * 2**level)))
                note(f"critic {level}", x)
                for number, conv in enumerate(system.discriminator.blocks[level - 1].children() if level else ()):
                    x = leaky(conv(x))
                    note(f"critic {level}.{number}", x[..., 1:-1, 1:-1])
    means = {name: statistics.fmean(values) for name, values in found.items()}
    assert len(means) == 6 + 10
    assert {name: value for name, value in means.items() if not 0.8 < value < 1.2} == {}


@pytest.mark.parametrize("gain", [1.0, parts.GAIN])
def test_equalized_weights_are_scaled_where_they_are_used(gain):
    layer, x = parts.Equalized(6, 5, 3, gain=gain), torch.randn(2, 6, 8, 8)
    expected = torch.nn.functional.conv2d(x, layer.weight * gain / math.sqrt(6 * 9), padding=1)
    torch.testing.assert_close(layer(x), expected)
    assert parts.Equalized(300, 200).weight.std().item() == pytest.approx(1, abs=0.02)


def test_the_spread_of_identical_images_is_0_and_of_others_by_hand():
    x = torch.randn(1, 3, 4, 4).repeat(8, 1, 1, 1)
    assert spread_map(x, 4)[:, 3].abs().max() < 2e-4  # the root of the constant that keeps its slope finite
    x = torch.randn(8, 3, 4, 4)
    found = spread_map(x, 4)
    assert torch.equal(found[:, :3], x)
    for first in (0, 4):
        expected = x[first : first + 4].std(0, unbiased=False).mean()
        torch.testing.assert_close(found[first : first + 4, 3], expected.expand(4, 4, 4))
    assert spread_map(x[:6], 4).shape == (6, 4, 4, 4)  # groups of three
    assert spread_map(x[:1], 4)[:, 3].max() < 2e-4


def test_a_player_moves_only_its_own_layers_of_the_size_and_below():
    system = ProgressiveGAN(spec=spec(16), **SMALL)
    names = {p: name for name, p in system.named_parameters()}
    for level in range(3):
        for turn in system.objectives(level):
            loss, _ = system.training_loss(batch_of(system), turn)
            slopes = torch.autograd.grad(loss, list(system.parameters()), allow_unused=True)
            moved = {names[p] for p, slope in zip(system.parameters(), slopes, strict=True) if slope is not None}
            own = {names[p] for p in turn.params}
            assert all(name.startswith(turn.name) for name in own)
            assert {name for name in moved if name.startswith(turn.name)} == own
            if turn.name == "discriminator":
                assert not any(name.startswith("generator") for name in moved)
    assert {names[p] for turn in system.objectives(2) for p in turn.params} >= {
        name for name in names.values() if "_image.0" not in name
    }


def test_the_critics_loss_is_that_of_the_paper(monkeypatch):
    """Scores of 2 for real and -1 for fake images, and a penalty of 0.5: -1 - 2 + 10 * 0.5 + 0.001 * 4."""
    system = ProgressiveGAN(spec=spec(8), **SMALL)
    critic, generator = system.objectives(1)
    batch = batch_of(system)
    scores = iter([torch.full((4,), 2.0), torch.full((4,), -1.0), torch.full((4,), -1.0)])
    monkeypatch.setattr(system.discriminator, "forward", lambda *given: next(scores))
    monkeypatch.setattr("dlx.models.generative.progressive_gan.gradient_penalty", lambda *given: torch.tensor(0.5))
    assert system.training_loss(batch, critic)[0].item() == pytest.approx(2.004)
    assert system.training_loss(batch, generator)[0].item() == pytest.approx(1)


def test_stages_are_a_part_for_4x4_and_two_for_each_larger_size():
    system = ProgressiveGAN(spec=spec(32), **SMALL)
    assert system.stage_starts(700) == [0, 100, 300, 500]
    assert ProgressiveGAN(spec=spec(32), grow=False, **SMALL).stage_starts(700) == [0]
    with pytest.raises(ValueError, match="grow must leave a step for each of 4 stages, got 3 steps"):
        system.stage_starts(3)


@pytest.mark.parametrize(("height", "width", "side"), [(28, 28, 32), (8, 12, 16), (5, 5, 8), (4, 4, 4), (32, 32, 32)])
def test_images_of_other_sizes_are_padded_and_cut(height, width, side):
    system = ProgressiveGAN(spec=spec(height, 1, width), **SMALL)
    assert system.side == side
    assert system.sample(3)["image"].shape == (3, 1, height, width)
    image = torch.rand(2, 1, height, width)
    padded = system.seen(image, system.levels, torch.tensor(1.0))
    assert padded.shape == (2, 1, side, side)
    assert torch.equal(system.in_full(padded, system.levels), image)
    assert system.discriminate(image).shape == (2,)


def test_it_shows_the_size_that_it_has_come_to():
    system = ProgressiveGAN(spec=spec(16), **SMALL)
    system.training_loss(batch_of(system, progress=0.25), system.objectives(1)[0])
    assert system.grown.item() == 0.5
    z_BZ = torch.randn(2, 8)
    with torch.no_grad():
        expected = enlarge(system.generator(z_BZ, 1, torch.tensor(0.5)))
        assert torch.equal(system.generate(z_BZ), expected)
        batch = batch_of(system, 6)
        whole = system.metrics(system.evaluate(batch))
        parts = [
            system.evaluate({k: v[rows] if v.dim() else v for k, v in batch.items()}) for rows in ([0, 1], [2, 3, 4, 5])
        ]
        assert system.metrics({k: parts[0][k] + parts[1][k] for k in parts[0]}) == pytest.approx(whole)
    system.training_loss(batch_of(system), system.objectives(0)[0])
    assert system.position() == (0, 1)


@pytest.mark.parametrize(
    "bad",
    [{"latent_dim": 0}, {"most": 0}, {"group": 0}, {"penalty": -1.0}, {"drift": -1.0}, {"fade": 1.5}, {"width": 15}],
)
def test_bad_settings_name_the_argument(bad):
    with pytest.raises(ValueError, match=f"^{next(iter(bad))} must be"):
        ProgressiveGAN(spec=spec(32), **{**SMALL, **bad})


@pytest.mark.parametrize("cut", [3, 4, 5])
def test_it_is_resumed_over_the_boundary_of_two_stages_to_the_same_bits(cut, dlx_call, sigterm_at):
    words = ["train", "model=progressive_gan", "model.width=16", "model.latent_dim=4", "trainer.max_steps=12",
             "trainer.log_every=1", "trainer.validate_every=4", "data.batch_size=8", "--json"]  # fmt: skip
    whole = dlx_call(*words)
    assert whole.code == 0, whole.err
    with sigterm_at(cut):  # the second stage begins with step 4
        ended = dlx_call(*words)
    assert ended.code == 143, ended.err
    folder = json.loads(ended.out.splitlines()[-1])["run"]
    assert dlx_call("sample", folder, "-n", "2").code == 0
    resumed = dlx_call("resume", folder, "--json")
    assert resumed.code == 0, resumed.err
    assert_same_end(Path(json.loads(resumed.out)["run"]), Path(json.loads(whole.out)["run"]))


RECIPES = {
    "progressive_gan_celeba": ["data.path=faces", "data.size=32"],
    "progressive_gan_fashion": ["data=digits"],
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_take_a_step_at_each_size(name, dlx_call, here):
    (here / "faces" / "all").mkdir(parents=True)
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)):
        PIL.Image.fromarray(pixels).save(here / "faces" / "all" / f"{number}.png")
    shrunk = ["model.width=64", "model.most=4", "model.latent_dim=4", "data.batch_size=4", "trainer.max_steps=5"]
    call = dlx_call("train", f"experiment={name}", *RECIPES[name], *shrunk, "--json")
    assert call.code == 0, call.err


def test_the_papers_recipe_is_of_the_papers_networks():
    config = compose(["experiment=progressive_gan_celeba", "data.path=x"])
    with torch.device("meta"):
        system = build(config, "model", spec=spec(1024))
    assert sum(p.numel() for p in system.parameters()) == 23_079_115 + 23_087_249
    starts = system.stage_starts(config["trainer"]["max_steps"])
    assert [16 * start for start in starts[:3]] == [0, 600_000, 1_800_000]
    assert len(starts) == 9


@pytest.mark.slow
def test_it_learns_the_digits_at_three_seeds(dlx_call):
    """Without a collapse, and nearer to the data than the data's own mean is."""
    found = []
    for seed in range(3):
        call = dlx_call("train", "model=progressive_gan", f"seed={seed}", "--json")
        assert call.code == 0, call.err
        found.append(json.loads(call.out)["metrics"]["test/spread"])
    print(found)  # noqa: T201
    assert all(0.8 < spread < 1.2 for spread in found), found
