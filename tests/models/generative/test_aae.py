"""AAE: whose turn moves what, codes that have the prior's distribution for each prior, reconstructions kept."""

import json
import math
import statistics

import numpy as np
import pytest
import torch
from PIL import Image as Pictures

from dlx.config.errors import UserError
from dlx.models.generative.aae import AAE
from dlx.models.generative.priors import MODES, PRIORS, RADIUS, WIDTH
from dlx.models.generative.vae import VAE
from dlx.tasks.spec import Image, Images, Points, Reals
from dlx.tasks.two_sample import permutation_test


def images(height=8, width=8, channels=1, levels=2):
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    return Images(image=Image(channels=channels, height=height, width=width, mean=zeros, std=ones, scale=levels - 1.0))


def points(size=4):
    return Points(features=Reals(size=size))


AAES = {
    "binary": lambda **more: AAE(spec=images(), hidden=(16,), discriminator=(8,), **more),
    "gaussian": lambda **more: AAE(spec=images(), hidden=(16,), discriminator=(8,), posterior="gaussian", **more),
    "conv": lambda **more: AAE(spec=images(7, 10, 3, 256), latent_dim=3, network="conv", hidden=(4, 8), **more),
    "points": lambda **more: AAE(spec=points(), hidden=(16,), discriminator=(8,), **more),
}
every_aae = pytest.mark.parametrize("name", AAES)


def example(system, count=16):
    entry = system.input
    if isinstance(entry, Image):
        x = torch.randint(int(entry.scale) + 1, (count, *entry.shape)) / entry.scale
    else:
        x = torch.randn(count, *entry.shape)
    return {system.input_name: x, "index": torch.arange(count)}


def optimizers(system, lr=1e-3):
    betas = {"reconstruct": 0.9, "discriminate": 0.5, "regularize": 0.5}
    return [
        torch.optim.Adam(turn.params, lr=lr, betas=(betas[turn.name], 0.999), fused=True)
        for turn in system.objectives()
    ]


def take_turn(system, batch, turn, optimizer):
    loss, _ = system.training_loss(batch, turn)
    optimizer.zero_grad()
    loss.backward(inputs=turn.params)
    optimizer.step()
    return loss.item()


@every_aae
def test_each_turn_moves_its_own_networks_alone(name):
    system = AAES[name]()
    batch = example(system)
    moved = {
        "reconstruct": {"encoder", "decoder"},
        "discriminate": {"discriminator"},
        "regularize": {"encoder"},
    }
    for turn, optimizer in zip(system.objectives(), optimizers(system), strict=True):
        before = {key: p.detach().clone() for key, p in system.named_parameters()}
        take_turn(system, batch, turn, optimizer)
        changed = {key.split(".")[0] for key, p in system.named_parameters() if not torch.equal(p, before[key])}
        assert changed == moved[turn.name]
    assert tuple(moved) == system.players


@every_aae
def test_every_parameter_gets_a_gradient(name):
    system = AAES[name]()
    for turn in system.objectives():
        loss, _ = system.training_loss(example(system), turn)
        gradients = torch.autograd.grad(loss, turn.params)
        assert all(gradient.any() for gradient in gradients)


def test_before_training_the_discriminator_guesses():
    """2 ln 2 and ln 2; the reconstruction that of pixels of probability 1/2."""
    system = AAE(spec=images())
    batch = example(system, 256)
    losses = [system.training_loss(batch, turn)[0].item() for turn in system.objectives()]
    assert losses == pytest.approx([64 * math.log(2), 2 * math.log(2), math.log(2)], rel=0.1)


# Priors.


@pytest.mark.parametrize("prior", PRIORS)
def test_a_prior_has_its_moments(prior):
    z_NZ = PRIORS[prior](torch.randn(20_000, 2), torch.rand(20_000))
    assert z_NZ.shape == (20_000, 2)
    squares = z_NZ.square().sum(1).mean().item()
    expected = {"gaussian": 2, "mixture": RADIUS**2 + 2 * WIDTH**2, "swiss_roll": RADIUS**2 / 2}[prior]
    assert squares == pytest.approx(expected, rel=0.03)


def test_the_mixture_has_eight_modes_and_normal_numbers_beside():
    z_NZ = PRIORS["mixture"](torch.randn(4000, 5), torch.rand(4000))
    turn_N = torch.atan2(z_NZ[:, 1], z_NZ[:, 0]) / (2 * math.pi) * MODES
    counts = torch.bincount(turn_N.round().long() % MODES, minlength=MODES)
    assert (counts > 4000 / MODES * 0.8).all()
    torch.testing.assert_close(z_NZ[:, 2:].std(0), torch.ones(3), atol=0.05, rtol=0)


# What it learns.


def toy(prior, count):
    """Draws of the prior, seen through a smooth map into four dimensions with noise: codes of that distribution exist,
    and a plain autoencoder finds others."""
    generator = torch.Generator().manual_seed(5)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q
    z_N2 = PRIORS[prior](torch.randn(count, 2), torch.rand(count))
    return torch.cat([z_N2, z_N2.sin() / 2], 1) / 2 @ rotation + 0.1 * torch.randn(count, 4)


def trained(system, prior, turns, steps=600, batch_size=256):
    rates = {"reconstruct": 1e-2, "discriminate": 6e-3, "regularize": 3e-3}
    opts = optimizers(system)
    for step in range(steps):
        batch = {system.input_name: toy(prior, batch_size)}
        for turn, optimizer in zip(system.objectives(), opts, strict=True):
            if turn.name in turns:
                optimizer.param_groups[0]["lr"] = 0.5 * (1 + math.cos(math.pi * step / steps)) * rates[turn.name]
                take_turn(system, batch, turn, optimizer)
    return system.eval()


@pytest.mark.parametrize("prior", PRIORS)
def test_codes_get_the_distribution_of_the_prior(prior):
    """Two-sample tests of 200 codes find no difference, where they do without the discriminator; what is rebuilt stays
    as good. The median of five: one in twenty is below 0.05 by chance."""
    held_out_ND = toy(prior, 1000)
    p, errors = {}, {}
    for name, turns in (("adversarial", AAE.players), ("plain", AAE.players[:1])):
        system = AAE(spec=points(), prior=prior, hidden=(64,), discriminator=(64, 64))
        trained(system, prior, turns)
        with torch.no_grad():
            z_NZ = system.embed({"features": held_out_ND})
            errors[name] = system.errors(held_out_ND, z_NZ).mean().item()
        pairs = zip(z_NZ.split(200), system.fixed_prior(1000).split(200), strict=True)
        p[name] = [permutation_test(codes_NZ, drawn_NZ) for codes_NZ, drawn_NZ in pairs]
    assert statistics.median(p["adversarial"]) > 0.05
    assert max(p["plain"]) < 0.05
    assert errors["adversarial"] < 1.15 * errors["plain"]


@every_aae
def test_figures_do_not_depend_on_the_batch_size(name):
    system = AAES[name]()
    batch = example(system, 12)
    batch["index"] = torch.randperm(100)[:12]
    parts = [{key: value[start : start + 5] for key, value in batch.items()} for start in (0, 5, 10)]
    with torch.no_grad():
        whole, pieces = system.evaluate(batch), [system.evaluate(part) for part in reversed(parts)]
    joined = {key: sum((piece[key] for piece in pieces[1:]), pieces[0][key]) for key in whole}
    expected = system.metrics(whole)
    assert set(expected) == set(system.metric_names)
    assert system.metrics(joined) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_the_figures_of_codes_that_are_the_prior():
    system = AAE(spec=points(), latent_dim=3)
    z_NZ = torch.randn(1500, 3)
    statistics = {"reconstruction": torch.tensor(0.0), "count": torch.tensor(1500), "codes": list(enumerate(z_NZ))}
    found = system.metrics(statistics)
    assert abs(found["mmd"]) < 2e-3
    assert found["mean_error"] < 0.1
    assert found["covariance_error"] < 0.1
    moved = system.metrics({**statistics, "codes": list(enumerate(z_NZ * 2 + 1))})
    assert moved["mmd"] > 0.05
    assert moved["mean_error"] == pytest.approx(1, abs=0.1)
    assert moved["covariance_error"] == pytest.approx(3 / 3**0.5, abs=0.2)


# What a person does with it.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
        ({"prior": "normal"}, "prior must be gaussian, mixture or swiss_roll, got 'normal'"),
        ({"prior": "swiss_roll", "latent_dim": 3}, "prior swiss_roll needs latent_dim of 2, got 3"),
        ({"prior": "mixture", "latent_dim": 1}, "prior mixture needs latent_dim of at least 2, got 1"),
        ({"posterior": "universal"}, "posterior must be deterministic or gaussian, got 'universal'"),
        ({"discriminator": ()}, r"discriminator must hold widths of at least 1, got \[\]"),
        ({"hidden": (0,)}, r"hidden must hold widths of at least 1, got \[0\]"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    for device in ("cpu", "meta"):
        with torch.device(device), pytest.raises(ValueError, match=f"^{message}"):
            AAE(spec=images(), **arguments)


def test_it_has_no_log_p():
    system = AAES["binary"]()
    with pytest.raises(UserError, match="AAE has no log p"):
        system.log_prob(example(system))
    assert "anomaly" not in system.analyses
    assert "anomaly" in VAE(spec=images()).analyses


@every_aae
@pytest.mark.parametrize("prior", PRIORS)
def test_pictures_samples_and_answers(name, prior):
    system = AAES[name](**({} if name == "conv" else {"prior": prior})).eval()
    batch = example(system)
    with torch.no_grad():
        media, made = system.showcase(batch), system.sample(5)
        answers = system.answer(batch, system.predict(batch))
    own = {"samples", "codes"}
    if name != "points":
        own |= {"reconstructions", "interpolations", "latent-grid" if system.latent_dim == 2 else "traversals"}
        assert answers[0].picture("x").shape[1] == 2 * system.input.width + 1
    assert set(media) == own
    assert made[system.input_name].shape == (5, *system.input.shape)
    assert answers[0].json["reconstruction"] > 0


QUICK = ("model.hidden=[16]", "model.discriminator=[8]", "trainer.max_steps=4", "trainer.log_every=1")


def test_it_completes_probes_and_predicts(dlx_call, here, only_run):
    assert dlx_call("train", "model=aae", *QUICK).code == 0
    image = np.random.default_rng(0).integers(0, 2, (8, 8), dtype=np.uint8) * 255
    Pictures.fromarray(image).save(here / "digit.png")
    *_, last = AAES["binary"]().sample(3, half=here / "digit.png", steps=4)
    assert (last["image"][:, 0, :4] == torch.from_numpy(image[:4] / 255).float()).all()
    run = str(only_run())
    assert dlx_call("sample", run, "--given", "half=digit.png", "--given", "steps=3").code == 0
    assert "probe_test/accuracy" in dlx_call("eval", run, "--analysis", "probe", "--json").out
    predicted = dlx_call("predict", run, "digit.png", "--json")
    assert json.loads(predicted.out)["predictions"][0]["reconstruction"] > 0
    refused = dlx_call("eval", run, "--analysis", "anomaly", "data=digits")
    assert refused.code == 2
    assert refused.err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("prior", PRIORS)
def test_on_the_digits_codes_have_the_prior_and_images_are_rebuilt(prior, dlx_call):
    """Against the same autoencoder without its discriminator, that is with a rate of 0 in the encoder's second turn."""
    words = ("train", "model=aae", f"model.prior={prior}", "--json")
    found, plain = (
        json.loads(dlx_call(*words, *more).out)["metrics"] for more in ((), ("optim.players.regularize.lr=0",))
    )
    print(prior, found["test/mmd"], plain["test/mmd"], found["test/reconstruction"], plain["test/reconstruction"])  # noqa: T201
    # A mixture's modes get more or fewer codes than their share: 0.023 against 0.056.
    assert found["test/mmd"] < (0.5 if prior == "mixture" else 0.1) * plain["test/mmd"]
    assert found["test/reconstruction"] < 1.15 * plain["test/reconstruction"]
