"""Puzzle-GAN: the order of patches, composites, both losses by hand, whose turn moves what, what it is asked for."""

import json
import math
import statistics
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image as Pillow

from dlx.config import build, compose
from dlx.models.generative.puzzle_gan import PuzzleGAN, scores
from dlx.tasks.spec import Image, Images


def spec(side=16, channels=3, width=None):
    ones = (0.5,) * channels
    return Images(image=Image(channels=channels, height=side, width=width or side, mean=ones, std=ones))


def make(**given):
    return PuzzleGAN(**{"spec": spec(), "latent_dim": 3, "embedding": 5, "width": 4, **given})


def batch(count=6, shape=(3, 16, 16), progress=0.0):
    x = torch.rand(count, *shape) * 2 - 1
    return {"image": x, "index": torch.arange(count), "progress": torch.tensor(progress)}


def rows_of(data, rows):
    return {name: value[rows] if value.dim() else value for name, value in data.items()}


def test_parameters_at_64_pixels_are_those_of_the_papers_networks():
    with torch.device("meta"):
        system = PuzzleGAN(spec=spec(64))
    widths = [3, 64, 128, 256, 512]
    norm = 2 * sum(widths[2:])
    down = 25 * sum(a * b for a, b in pairwise(widths)) + 64 + norm
    up = [512, 256, 128, 64]
    first = {"mask": 128 * 512 * 16, "image": 256 * 512 * 16}
    doublings = {
        name: 25 * sum(times * a * b for a, b in zip(up, [*up[1:], out], strict=True))
        for name, times, out in (("mask", 2, 1), ("image", 3, 3))
    }
    decoders = sum(first.values()) + sum(doublings.values()) + 2 * 2 * sum(up)
    count = {name: sum(p.numel() for p in getattr(system, name).parameters()) for name in system.players}
    assert count["generator"] == down + 512 * 128 * 16 + 128 + decoders
    assert count["discriminator"] == down + 512 * 16 + 1


@pytest.mark.parametrize(("height", "width", "channels"), [(8, 8, 1), (28, 28, 1), (32, 48, 3), (128, 128, 3)])
def test_it_makes_images_and_masks_of_the_datas_size(height, width, channels):
    system = make(spec=spec(height, channels, width), width=2).eval()
    patches, mask = system.puzzle(torch.rand(2, channels, height, width))
    image, made_mask = system.generator(patches, system.draw_latent(2))
    assert image.shape == (2, channels, height, width)
    assert mask.shape == made_mask.shape == (2, 1, height, width)
    assert 0 <= made_mask.min() <= made_mask.max() <= 1
    assert image.abs().max() <= 1


@pytest.mark.parametrize("training", [False, True])
def test_the_order_of_the_patches_does_not_matter(training):
    system = make().train(training)
    patches, _ = system.puzzle(torch.rand(4, 3, 16, 16) * 2 - 1)
    z_BZ = system.draw_latent(4)
    first = system.generator(patches, z_BZ)
    for order in ([1, 2, 0], [2, 1, 0]):
        for one, other in zip(first, system.generator(patches[:, order], z_BZ), strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_the_generator_is_not_told_where_the_patches_are():
    """The same patches from elsewhere give the same picture: an image, moved."""
    system = make(spec=spec(32)).eval()
    x = torch.full((1, 3, 32, 32), -0.5)
    x[:, :, 4:7, 6:12] = torch.rand(3, 3, 6)
    x[:, :, 12:20, 18:22] = torch.rand(3, 8, 4)
    moved = x.roll((4, 4), (2, 3))
    (a, mask_a), (b, mask_b) = system.puzzle(x), system.puzzle(moved)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    assert torch.equal(mask_a.roll((4, 4), (2, 3)), mask_b)


def test_each_turn_moves_its_own_network_alone():
    system, data = make(), batch()
    for turn in system.objectives():
        loss, _ = system.training_loss(data, turn)
        slopes = torch.autograd.grad(loss, list(system.parameters()), allow_unused=True)
        slope_of = dict(zip(system.parameters(), slopes, strict=True))
        own = set(getattr(system, turn.name).parameters())
        assert set(turn.params) == own
        assert all(slope_of[p] is not None for p in own)
        if turn.name == "discriminator":
            assert all(slope_of[p] is None for p in system.generator.parameters())
    assert [turn.every for turn in system.objectives()] == [1, 2]


def test_the_discriminator_sees_real_made_and_two_composites(monkeypatch):
    system, data = make(), batch()
    seen = []
    discriminate = system.discriminate
    monkeypatch.setattr(system, "discriminate", lambda x: (seen.append(x), discriminate(x))[1])
    loss, _ = system.training_loss(data, system.objectives()[0])
    x, mask = data["image"], system.puzzle(data["image"])[1]
    other = x.roll(1, 0)
    real, _, foreign_parts, foreign_ground = seen
    assert torch.equal(real, x)
    assert torch.equal(foreign_parts, x * (1 - mask) + other * mask)
    assert torch.equal(foreign_ground, other * (1 - mask) + x * mask)
    system.train()
    expected = F.softplus(-discriminate(real)).mean() + sum(F.softplus(discriminate(y)).mean() for y in seen[1:])
    torch.testing.assert_close(loss, expected)


def test_a_discriminator_that_guesses_loses_4_ln_2():
    system = make()
    torch.nn.init.zeros_(system.discriminator[-2].weight)
    torch.nn.init.zeros_(system.discriminator[-2].bias)
    loss, _ = system.training_loss(batch(), system.objectives()[0])
    assert loss.item() == pytest.approx(4 * math.log(2))


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 1e-2), (0.5, 1e-3), (1.0, 1e-4)])
def test_the_generators_loss_by_hand(progress, weight):
    system = make()
    x, made = torch.full((2, 3, 16, 16), 0.5), torch.full((2, 3, 16, 16), -0.25)
    mask, made_mask = torch.zeros(2, 1, 16, 16), torch.full((2, 1, 16, 16), 0.4)
    mask[:, :, :4, :4] = 1
    loss, logs = system.generator_loss(x, mask, made, made_mask, torch.tensor(progress))
    on_mask = 16 * 0.6 + 240 * 0.4
    on_parts = 3 * (16 * (0.5 + 0.25 * 0.4) + 240 * 0.25 * 0.4)  # both images are 0 outside of their own mask
    assert logs["generator/mask"].item() == pytest.approx(on_mask)
    assert logs["generator/parts"].item() == pytest.approx(on_parts)
    expected = F.softplus(-system.discriminate(made)).mean() + weight * (on_mask + on_parts)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)


def test_scores_by_hand():
    mask, made_mask = torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4)
    mask[..., :2], made_mask[..., 1:] = 1, 0.9
    x, made = torch.zeros(1, 3, 2, 4), torch.ones(1, 3, 2, 4)
    made[..., 0] = 0.5
    iou_B, l1_B = scores(x, mask, made, made_mask)
    assert iou_B.tolist() == pytest.approx([2 / 8])
    assert l1_B.tolist() == pytest.approx([0.75])


def test_metrics_do_not_depend_on_the_batch():
    system, data = make().eval(), batch(8)
    with torch.no_grad():
        found = [system.evaluate(part) for part in (data, rows_of(data, slice(3)), rows_of(data, slice(3, 8)))]
    whole = system.metrics(found[0])
    parts = {name: found[1][name] + found[2][name] for name in found[0]}
    assert system.metrics(parts) == pytest.approx(whole, rel=1e-4)
    assert set(whole) == set(system.metric_names)


@pytest.mark.parametrize(
    "bad", [{"width": 0}, {"latent_dim": 0}, {"embedding": 0}, {"weights": (0.1, 0.2)}, {"weights": (0.1, 0.0)}]
)
def test_bad_settings_name_the_argument(bad):
    with pytest.raises(ValueError, match=f"^{next(iter(bad))} must be"):
        make(**bad)


@torch.no_grad()
def measure(system, data):
    return system.metrics(system.eval().evaluate(data))


def test_it_learns_where_parts_belong():
    """Two kinds of images, each with its parts always at the same places."""
    torch.manual_seed(0)
    x = torch.full((32, 1, 16, 16), -1.0)
    x[::2, :, 2:5, 2:5], x[::2, :, 10:13, 10:13] = 1.0, 0.5
    x[1::2, :, 10:13, 2:5], x[1::2, :, 2:5, 10:13] = 0.0, 0.8
    system = make(spec=spec(16, 1), weights=(1.0, 1.0))
    data = {"image": x, "index": torch.arange(32), "progress": torch.tensor(0.0)}
    turns = system.objectives()
    optimizers = [torch.optim.Adam(turn.params, lr=4e-3, betas=(0.5, 0.999)) for turn in turns]
    before = measure(system, data)
    system.train()
    for step in range(90):
        for turn, optimizer in zip(turns, optimizers, strict=True):
            if step % turn.every == 0:
                optimizer.zero_grad()
                system.training_loss(data, turn)[0].backward(inputs=turn.params)
                optimizer.step()
    after = measure(system, data)
    assert after["iou"] > max(0.3, before["iou"])
    assert after["l1"] < min(0.3, before["l1"] / 2)


def test_a_file_is_completed_and_predicted_on_the_command_line(dlx_call, here):
    small = ("model.width=4", "data.samples=60", "data.batch_size=8", "trainer.max_steps=4")
    call = dlx_call("train", "model=puzzle_gan", *small, "name=p", "--json")
    assert call.code == 0, call.err
    assert {"test/iou", "test/l1", "test/spread"} <= set(json.loads(call.out)["metrics"])
    Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(here / "x.png")
    for words in (("sample", "p", "-n", "3"), ("sample", "p", "--given", "image=x.png"), ("predict", "p", "x.png")):
        call = dlx_call(*words, "--json")
        assert call.code == 0, call.err
    (found,) = json.loads(call.out)["predictions"]
    assert {"iou", "l1"} <= set(found)


def test_the_authors_recipe_takes_a_step():
    words = ["experiment=puzzle_gan_celeba", "data.path=x"]
    config = compose(words)
    assert (config["optimizer"]["lr"], config["optimizer"]["betas"]) == (2e-4, [0.5, 0.999])
    assert (config["model"]["width"], config["model"]["weights"]) == (64, [1e-2, 1e-4])
    assert (config["dataset"]["batch_size"], config["trainer"]["epochs"]) == (64, 25)
    system = build(compose([*words, "model.width=2"]), "model", spec=spec(64))
    for objective in system.objectives():
        loss, _ = system.training_loss(batch(3, (3, 64, 64)), objective)
        loss.backward(inputs=objective.params)
        assert loss.isfinite()


@pytest.mark.slow
def test_parts_find_their_places(dlx_call):
    found = []
    for seed in range(3):
        call = dlx_call("train", "model=puzzle_gan", f"seed={seed}", "--json")
        assert call.code == 0, call.err
        metrics = json.loads(call.out)["metrics"]
        found.append((metrics["test/iou"], metrics["test/l1"]))
    print(found)  # noqa: T201
    assert statistics.mean(iou for iou, _ in found) >= 0.5, found
    assert statistics.mean(l1 for _, l1 in found) <= 0.15, found
