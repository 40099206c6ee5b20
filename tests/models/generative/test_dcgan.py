"""DCGAN: published parameter counts, shapes at many sizes, initial weights, real and fake apart in batch norm."""

import json
import math

import pytest
import torch
from torch import nn

from dlx.models.generative.dcgan import DCGAN
from dlx.tasks.spec import Image, Images


def spec(side, channels=3, width=None):
    ones = (0.5,) * channels
    return Images(image=Image(channels=channels, height=side, width=width or side, mean=ones, std=ones))


@pytest.mark.parametrize(
    ("width", "generator", "discriminator"), [(64, 3_576_704, 2_765_568), (128, 12_658_432, 11_036_160)]
)
def test_parameters_at_64_pixels_are_the_published_ones(width, generator, discriminator):
    with torch.device("meta"):
        system = DCGAN(spec=spec(64), generator_width=width, discriminator_width=width)
    count = {name: sum(p.numel() for p in getattr(system, name).parameters()) for name in system.players}
    assert count == {"generator": generator, "discriminator": discriminator}


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 16), (28, 28), (32, 32), (48, 96), (64, 64)])
def test_it_makes_and_judges_images_of_the_datas_size(height, width):
    system = DCGAN(spec=spec(height, 1, width), latent_dim=5, generator_width=4, discriminator_width=4)
    made = system.sample(3)["image"]
    assert made.shape == (3, 1, height, width)
    assert made.abs().max() <= 1
    assert system.discriminate(made).shape == (3,)


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="spec must have images whose sides can be halved, got 7 x 8"):
        DCGAN(spec=spec(7, 1, 8))


def test_weights_begin_as_the_paper_says():
    system = DCGAN(spec=spec(64))
    for module in system.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert module.weight.mean().abs() < 1e-3
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1, abs=0.01)
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.5)
    first = system.discriminator[0]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in first[:2])
    assert not isinstance(system.generator[-2], nn.BatchNorm2d)


def test_a_batch_norm_never_sees_real_and_fake_at_once(monkeypatch):
    system = DCGAN(spec=spec(16, 1), latent_dim=5, generator_width=4, discriminator_width=4)
    seen = []
    for module in system.discriminator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    batch = {"image": torch.rand(6, 1, 16, 16) * 2 - 1, "index": torch.arange(6)}
    system.training_loss(batch, system.objectives()[0])
    assert seen == [6] * len(seen)
    assert len(seen) == 4  # two layers, real and fake


def test_with_a_gradient_penalty_the_critic_has_no_batch_norm():
    system = DCGAN(spec=spec(16, 1), loss="wasserstein", penalty=10.0, critic_steps=5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in system.discriminator.modules())
    assert not system.compiles


@pytest.mark.slow
def test_a_classifier_reads_all_digits_from_its_samples_at_three_seeds(dlx_call):
    words = ("model.generator_width=16", "model.discriminator_width=16", "trainer.epochs=40")
    assert dlx_call("train", "model=cnn", "name=reader").code == 0
    found = []
    for seed in range(3):
        assert dlx_call("train", "model=dcgan", *words, f"seed={seed}", f"name=gan-{seed}").code == 0
        call = dlx_call("eval", f"gan-{seed}", "--analysis", "judge", "run=reader", "--json")
        metrics = json.loads(call.out)["metrics"]
        found.append((metrics["judge/entropy"], metrics["judge/frechet"] / metrics["judge/frechet_of_real"]))
    assert min(entropy for entropy, _ in found) >= 0.9 * math.log(10), found
