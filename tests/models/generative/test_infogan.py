"""InfoGAN: the paper's network, the bound by hand, whose turn moves what, codes that are given, what Q reads."""

import json
import math
import statistics

import pytest
import torch

from dlx.config import build, compose
from dlx.models.generative.infogan import InfoGAN
from dlx.tasks.spec import Image, Images, Points, Reals

IMAGES = Images(image=Image(channels=1, height=28, width=28, mean=(0.1,), std=(0.3,)))
DIGITS = Images(image=Image(channels=1, height=8, width=8, mean=(0.1,), std=(0.3,), scale=16.0))
SMALL = {"noise_dim": 3, "network": "mlp", "hidden": (16, 16), "code_units": 8}


def make(**given):
    torch.manual_seed(0)
    return InfoGAN(spec=DIGITS, **{**SMALL, **given})


def a_batch(size=8):
    return {"image": torch.rand(size, 1, 8, 8) * 2 - 1, "index": torch.arange(size)}


def test_the_papers_generator_for_mnist_has_its_parameters():
    with torch.device("meta"):
        system = InfoGAN(spec=IMAGES)
    assert system.latent_dim == 62 + 10 + 2
    assert sum(p.numel() for p in system.generator.parameters()) == 6_652_481


@pytest.mark.parametrize("spec", [IMAGES, DIGITS])
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_it_makes_and_reads_images_of_the_datas_size(spec, network):
    system = InfoGAN(spec=spec, **{**SMALL, "network": network, "units": 8, "width": 2}).eval()
    made = system.sample(3)["image"]
    assert made.shape == (3, *spec.image.shape)
    assert made.abs().max() <= 1
    assert system.discriminate(made).shape == (3, 1)
    found = system.predict({"image": made})
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "code": (3,), "probability": (3, 10), "numbers": (3, 2),
    }  # fmt: skip
    torch.testing.assert_close(found["probability"].sum(1), torch.ones(3))


def test_a_latent_is_noise_then_categories_then_numbers():
    system = make(categories=(10, 3), continuous=2)
    z_BZ = system.draw_latent(5000)
    noise, first, second, numbers = z_BZ.split([3, 10, 3, 2], 1)
    for part in (noise, numbers):
        assert part.abs().max() < 1
        assert part.mean().abs() < 0.05
        assert part.var().item() == pytest.approx(1 / 3, rel=0.05)
    for part in (first, second):
        assert set(part.unique().tolist()) == {0, 1}
        assert (part.sum(1) == 1).all()
        torch.testing.assert_close(part.mean(0), torch.full((part.shape[1],), 1 / part.shape[1]), atol=0.03, rtol=0)
    assert torch.equal(system.code_of(z_BZ), first.argmax(1))


def test_the_largest_uniform_number_is_the_last_category():
    system = make()
    u = torch.full((1, system.uniforms), 1 - 2**-24)
    assert system.code_of(system.latent_of(u)).item() == 9


def test_the_bound_is_that_of_the_formula():
    system = make(categories=(4, 3), continuous=2, std=0.5).eval()
    z_BZ = system.draw_latent(6)
    features = torch.randn(6, 16)
    out = system.recognition(features)
    expected = torch.zeros(6)
    for row in range(6):
        for start, K in ((0, 4), (4, 3)):
            chosen = z_BZ[row, 3 + start : 3 + start + K].argmax()
            expected[row] += out[row, start : start + K].softmax(0)[chosen].log() + math.log(K)
    normal = torch.distributions.Normal(out[:, 7:], 0.5)
    categorical_B, numbers_B, square_BN = system.information(features, z_BZ)
    torch.testing.assert_close(categorical_B, expected)
    torch.testing.assert_close(numbers_B, (normal.log_prob(z_BZ[:, 10:]) + math.log(2)).sum(1))
    torch.testing.assert_close(square_BN, (z_BZ[:, 10:] - out[:, 7:]).square())


def test_where_q_knows_the_code_the_bound_is_its_entropy_and_where_it_guesses_0():
    system = make(continuous=0)
    z_BZ = system.draw_latent(5)
    system.recognition = torch.nn.Identity()
    code = z_BZ[:, 3:]
    assert system.information(100 * code, z_BZ)[0].tolist() == pytest.approx([math.log(10)] * 5)
    assert system.information(0 * code, z_BZ)[0].tolist() == pytest.approx([0] * 5, abs=1e-6)


def slopes_of(system, turn):
    loss, _ = system.training_loss(a_batch(), turn)
    slopes = torch.autograd.grad(loss, list(system.parameters()), allow_unused=True)
    return dict(zip(system.parameters(), slopes, strict=True))


def test_each_turn_moves_its_own_networks_alone_and_all_of_them():
    system = make()
    discriminator, generator = system.objectives()
    own = {p for part in (system.trunk, system.discriminator, system.recognition) for p in part.parameters()}
    assert set(discriminator.params) == own
    assert set(generator.params) == set(system.generator.parameters())
    found = slopes_of(system, discriminator)
    assert all((found[p] is not None) == (p in own) for p in system.parameters())
    assert all(slope is not None for slope in slopes_of(system, generator).values())


def test_the_bound_reaches_the_generator_and_with_weight_0_does_not():
    """With a discriminator that says the same of all, only the bound has a slope."""
    for weight, moves in ((1.0, True), (0.0, False)):
        system = make(weight=weight)
        torch.nn.init.zeros_(system.discriminator.weight)
        found = slopes_of(system, system.objectives()[1])
        assert any(found[p].abs().max() > 0 for p in system.generator.parameters()) is moves


def test_losses_at_the_start_are_those_of_theory():
    system = make(weight=0.0)
    torch.nn.init.zeros_(system.discriminator.weight)
    torch.nn.init.zeros_(system.discriminator.bias)
    losses = {turn.name: system.training_loss(a_batch(), turn)[0].item() for turn in system.objectives()}
    assert losses == pytest.approx({"discriminator": 2 * math.log(2), "generator": math.log(2)})


@torch.no_grad()
def test_metrics_do_not_depend_on_the_batch():
    system, batch = make().eval(), a_batch(12)
    whole = system.evaluate(batch)
    parts = [system.evaluate({key: value[part] for key, value in batch.items()}) for part in (slice(5), slice(5, 12))]
    joined = {name: parts[0][name] + parts[1][name] for name in whole}
    assert system.metrics(joined) == pytest.approx(system.metrics(whole), rel=1e-5)


def test_codes_that_are_given_are_in_the_samples_and_their_batch():
    system = make().eval()
    made = system.sample(6, code=7, numbers=(0.5, -0.5))
    assert made["code"].tolist() == [7] * 6
    assert len(made["image"].unique(dim=0)) == 6  # the noise differs


def test_few_nats_are_said():
    system = make()
    assert system.remarks({"information": 2.3, "spread": 1.0}) == []
    assert system.remarks({"information": 0.1, "spread": 1.0}) == ["the samples tell 0.10 of 2.30 nats of their code"]


@pytest.mark.parametrize(
    "bad",
    [
        {"categories": ()}, {"categories": (1,)}, {"continuous": -1}, {"std": 0.0}, {"weight": -1.0},
        {"network": "dense"}, {"loss": "wasserstein"}, {"hidden": ()}, {"noise_dim": 0}, {"slope": 1.0},
    ],
)  # fmt: skip
def test_bad_settings_name_the_argument(bad):
    with pytest.raises(ValueError, match=f"^{next(iter(bad))} must"):
        make(**bad)


def test_points_have_dense_networks():
    points = Points(features=Reals(size=2))
    with pytest.raises(ValueError, match=r"^network conv needs images"):
        InfoGAN(spec=points)
    system = InfoGAN(spec=points, **SMALL).eval()
    assert system.sample(4)["features"].shape == (4, 2)
    with torch.no_grad():
        assert set(system.showcase({"features": torch.randn(30, 2)})) == {"samples"}


def test_trained_through_the_command_line_it_is_sampled_by_code(dlx_call):
    words = ("trainer.max_steps=4", "model.hidden=[8]", "name=i")
    call = dlx_call("train", "model=infogan", *words, "--json")
    assert call.code == 0, call.err
    assert {"test/information", "test/code_error", "test/spread"} <= set(json.loads(call.out)["metrics"])
    call = dlx_call("sample", "i", "-n", "4", "--given", "code=3", "--given", "numbers=[0,0.5]", "--json")
    assert call.code == 0, call.err
    for given, text in (
        ("code=10", "--given code: must be from 0 to 9, got 10"),
        ("numbers=[1]", "--given numbers: must hold 2, got 1"),
    ):
        call = dlx_call("sample", "i", "--given", given)
        assert call.code == 2
        assert text in call.err


def test_the_papers_recipe_takes_a_step(dlx_call):
    config = compose(["experiment=infogan_mnist"])
    with torch.device("meta"):
        assert build(config, "model", spec=IMAGES).latent_dim == 74
    call = dlx_call(
        "train", "experiment=infogan_mnist", "data=digits", "data.batch_size=8", "model.width=2", "model.units=8",
        "trainer.max_steps=1",
    )  # fmt: skip
    assert call.code == 0, call.err


@pytest.mark.slow
def test_its_code_is_known_and_of_one_class_at_three_seeds(dlx_call):
    assert dlx_call("train", "model=cnn", "name=reader").code == 0
    found = []
    for seed in range(3):
        call = dlx_call("train", "model=infogan", f"seed={seed}", f"name=info-{seed}", "--json")
        assert call.code == 0, call.err
        metrics = json.loads(call.out)["metrics"]
        call = dlx_call("eval", f"info-{seed}", "--analysis", "judge", "run=reader", "--json")
        purity = json.loads(call.out)["metrics"]["judge/purity"]
        found.append((metrics["test/information"], metrics["test/spread"], purity))
    assert min(information for information, _, _ in found) >= 2.2, found
    assert min(spread for _, spread, _ in found) >= 0.8, found
    assert statistics.fmean(purity for _, _, purity in found) >= 0.8, found
