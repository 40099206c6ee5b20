"""VAE: its terms against formulas, its bounds against quadrature, the linear one against probabilistic PCA."""

import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pictures
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from dlx.config import build, compose
from dlx.data.binary import BinaryDigits
from dlx.data.digits import Digits
from dlx.models.generative.independent_pixels import IndependentPixels
from dlx.models.generative.vae import VAE, kl_to_standard
from dlx.tasks.spec import Image, Images, Points, Reals


def images(height=3, width=3, channels=1, levels=2):
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    return Images(image=Image(channels=channels, height=height, width=width, mean=zeros, std=ones, scale=levels - 1.0))


def points(size=4):
    return Points(features=Reals(size=size))


def example(spec, count=16):
    """Random levels, or normal numbers."""
    ((name, entry),) = spec.inputs.items()
    if isinstance(entry, Image):
        x = torch.randint(int(entry.scale) + 1, (count, *entry.shape)) / entry.scale
    else:
        x = torch.randn(count, *entry.shape)
    return {name: x, "index": torch.arange(count), "progress": torch.tensor(1.0)}


def train(vae, batch, steps=200, lr=1e-2):
    optimizer = torch.optim.Adam(vae.parameters(), lr=lr, fused=True)
    (objective,) = vae.objectives()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss, _ = vae.training_loss(batch, objective)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return vae


VAES = {
    "binary": lambda **more: VAE(spec=images(8, 8), latent_dim=3, hidden=(16,), **more),
    "conv": lambda **more: VAE(spec=images(7, 10), latent_dim=3, network="conv", hidden=(4, 8), **more),
    "gray": lambda **more: VAE(spec=images(6, 5, levels=17), latent_dim=2, hidden=(16,), **more),
    "colour": lambda **more: VAE(spec=images(6, 5, 3, 256), latent_dim=2, network="conv", hidden=(4,), **more),
    "points": lambda **more: VAE(spec=points(), latent_dim=1, hidden=(8,), activation="tanh", **more),
    "linear": lambda **more: VAE(spec=points(), latent_dim=2, hidden=(), **more),
}
every_vae = pytest.mark.parametrize("name", VAES)


# Its terms.


def test_the_kl_is_that_of_torch_and_of_draws():
    mean, log_std = torch.tensor([0.0, 1.5, -0.3]).double(), torch.tensor([0.0, -1.0, 0.4]).double()
    q, p = Normal(mean, log_std.exp()), Normal(torch.zeros(3).double(), torch.ones(3).double())
    found = kl_to_standard(mean, log_std)
    torch.testing.assert_close(found, kl_divergence(q, p))
    z = q.sample((400_000,))
    torch.testing.assert_close(found, (q.log_prob(z) - p.log_prob(z)).mean(0), rtol=0.01, atol=0.005)


def test_the_gaussian_likelihood_is_that_of_torch():
    vae, batch = VAES["points"](), example(points())
    z = torch.randn(5, 16, 1)
    expected = Normal(vae.decode(z), vae.log_std.exp()).log_prob(batch["features"]).sum(-1)
    torch.testing.assert_close(vae.log_likelihood(batch["features"], z), expected)


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 0.0), (0.25, 1.5), (0.5, 3.0), (1.0, 3.0)])
def test_the_loss_is_the_sum_of_its_terms(progress, weight):
    vae, batch = VAES["binary"](beta=3.0, warmup=0.5), example(images(8, 8))
    loss, logs = vae.training_loss({**batch, "progress": torch.tensor(progress)}, *vae.objectives())
    torch.testing.assert_close(loss, logs["reconstruction"] + weight * logs["kl"])


def test_free_bits_are_free():
    vae, batch = VAES["binary"](free_bits=0.7), example(images(8, 8))
    loss, logs = vae.training_loss(batch, *vae.objectives())
    assert logs["kl"] < 0.7
    torch.testing.assert_close(loss, logs["reconstruction"] + 3 * 0.7)
    assert vae.whole_batch
    assert not VAES["binary"]().whole_batch


def test_weights_multiply_both_terms():
    vae, batch = VAES["binary"](), example(images(8, 8))
    plain, _ = vae.training_loss({**batch, "weight": torch.full((16,), 2.0)}, *vae.objectives())
    torch.manual_seed(0)
    double, _ = vae.training_loss({**batch, "weight": torch.full((16,), 4.0)}, *vae.objectives())
    torch.manual_seed(0)
    single, _ = vae.training_loss({**batch, "weight": torch.full((16,), 2.0)}, *vae.objectives())
    torch.testing.assert_close(double, 2 * single)
    assert plain.isfinite()


@every_vae
def test_every_parameter_gets_a_gradient(name):
    vae = VAES[name]()
    loss, _ = vae.training_loss(example(vae.spec), *vae.objectives())
    loss.backward()
    assert [key for key, p in vae.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_counts_of_784_400_20():
    with torch.device("meta"):
        vae = VAE(spec=images(28, 28), latent_dim=20, hidden=(400,))
    assert sum(p.numel() for p in vae.parameters()) == 652_824


@every_vae
def test_a_batch_is_learned(name):
    vae = VAES[name]()
    batch = example(vae.spec, 8)
    before = vae.bounds(batch)["log_prob"].mean()
    assert train(vae, batch, steps=80, lr=2e-2).bounds(batch)["log_prob"].mean() > before + 1


# Its bounds.


def quadrature(vae, batch, side=81, reach=6.0):
    """log p(x) of each sample by a sum over a grid of codes."""
    axis = torch.linspace(-reach, reach, side)
    z_GZ = torch.cartesian_prod(*[axis] * vae.latent_dim).view(-1, vae.latent_dim)
    x = vae.observed(batch, fixed=True)
    log_p_GB = vae.log_likelihood(x, z_GZ.unsqueeze(1)).double()
    log_p_GB = log_p_GB + Normal(0.0, 1.0).log_prob(z_GZ).sum(-1, keepdim=True)
    return log_p_GB.logsumexp(0) + vae.latent_dim * math.log(2 * reach / (side - 1))


@pytest.mark.parametrize("latent_dim", [1, 2])
@pytest.mark.parametrize("spec", [images(), points()], ids=["binary", "points"])
def test_the_elbo_is_below_the_importance_weighted_bound_below_log_p(spec, latent_dim):
    batch = example(spec, 64)
    batch[next(iter(batch))][:32] = example(spec, 1)[next(iter(batch))]  # half of the samples are one
    vae = train(VAE(spec=spec, latent_dim=latent_dim, hidden=(16,), activation="tanh"), batch)
    with torch.no_grad():
        exact_B = quadrature(vae, batch, 2001 if latent_dim == 1 else 161)
        found = vae.bounds(batch, 4096)
        weight_KB = torch.cat([weight_KB for _, weight_KB in vae.draw_weights(batch, 4096)])
    # Means over groups of the same draws: of the logarithm of a mean the larger group has the larger one, exactly.
    weighted = [float((weight_KB.view(-1, k, 64).logsumexp(1) - math.log(k)).mean()) for k in (1, 2, 8, 64, 512, 4096)]
    assert all(fewer < more for fewer, more in pairwise(weighted))
    assert float(-(found["reconstruction"] + found["kl"]).mean()) == pytest.approx(weighted[0], abs=0.01)
    torch.testing.assert_close(found["log_prob"].mean().item(), weighted[-1])
    assert weighted[3] < exact_B.mean()
    torch.testing.assert_close(found["log_prob"], exact_B, atol=0.1, rtol=0)


def test_all_binary_images_have_probability_one():
    """By quadrature over the code; the bounds add up to less."""
    x = torch.tensor(list(np.ndindex(*[2] * 4))).float().view(16, 1, 2, 2)
    batch = {"image": x, "index": torch.arange(16), "progress": torch.tensor(1.0)}
    vae = train(VAE(spec=images(2, 2), latent_dim=1, hidden=(16,)), {**batch, "image": x[:5], "index": torch.arange(5)})
    with torch.no_grad():
        assert quadrature(vae, batch, 2001).exp().sum() == pytest.approx(1, abs=1e-5)
        found = vae.bounds(batch, 4096)
        assert (-(found["reconstruction"] + found["kl"])).exp().sum() < 1


def test_a_decoder_that_ignores_its_code_is_independent_pixels():
    spec, batch = images(8, 8), example(images(8, 8))
    table = IndependentPixels(spec=spec, by="gradient")
    torch.nn.init.normal_(table.table)
    vae = VAES["binary"]()
    with torch.no_grad():
        vae.decoder[-2].weight.zero_()
        vae.decoder[-2].bias.copy_(table.logits(batch["image"])[0, :, 0])
        vae.encoder[-1].weight.zero_()
        vae.encoder[-1].bias.zero_()  # q(z|x) is the prior
        found = vae.bounds(batch)
    expected = table.log_prob(batch).double()
    torch.testing.assert_close(-found["reconstruction"] - found["kl"], expected)
    torch.testing.assert_close(found["log_prob"], expected)


@pytest.mark.parametrize("std", [0.1, 0.5, 2.0])
def test_the_bound_of_levels_is_below_their_probability(std):
    """Of one pixel of four levels whose value does not depend on the code: a difference of two normal integrals."""
    vae = VAE(spec=images(1, 1, levels=4), latent_dim=1, hidden=())
    count = 4000
    x = (torch.arange(count) % 4 / 3).view(-1, 1, 1, 1)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.zero_()
        vae.decoder[-2].bias.fill_(0.4)
        vae.log_std.fill_(math.log(std))
        log_prob = vae.log_prob({"image": x, "index": torch.arange(count)}).view(-1, 4).mean(0)
    edges = Normal(0.4, std).cdf(torch.arange(5) / 4).double()
    exact = edges.diff().log()
    assert (log_prob < exact + 1e-3).all()
    assert log_prob.exp().sum() < 1
    if std == 2.0:  # the density is even within a cell
        torch.testing.assert_close(log_prob, exact, atol=0.01, rtol=0)


@every_vae
def test_figures_do_not_depend_on_the_batch_size(name):
    vae = VAES[name](draws=11)
    batch = example(vae.spec, 12)
    batch["index"] = torch.randperm(100)[:12]
    names = [vae.input_name, "index"]
    parts = [{**batch, **{key: batch[key][start : start + 5] for key in names}} for start in (0, 5, 10)]
    with torch.no_grad():
        whole, found = vae.evaluate(batch), [vae.evaluate(part) for part in parts]
    for key, value in whole.items():
        torch.testing.assert_close(sum(part[key] for part in found), value, rtol=1e-6, atol=1e-6)
    assert set(vae.metric_names) == set(vae.metrics(whole))


def test_more_draws_begin_with_the_same_ones():
    """So that the bounds of two runs differ by what they learned."""
    vae, batch = VAES["binary"](), example(images(8, 8))
    one, two = (vae.bounds(batch, draws)["reconstruction"] * draws for draws in (8, 16))
    three = vae.bounds(batch, 24)["reconstruction"] * 24
    assert ((three - two) != (two - one)).all()
    assert (two > one).all()


# The linear VAE is probabilistic PCA (Tipping & Bishop 1999).


def ppca(x_ND, q):
    """The largest mean log-likelihood in nats, and the noise's variance."""
    count, size = x_ND.shape
    centred = x_ND - x_ND.mean(0)
    values = torch.linalg.eigvalsh(centred.T @ centred / count).flip(0)
    noise = values[q:].mean()
    return float(
        -0.5 * (size * math.log(2 * math.pi) + values[:q].log().sum() + (size - q) * noise.log() + size)
    ), noise


def linear_parts(vae):
    """W [D, Z], b [D] and the noise's variance of the decoder."""
    return vae.decoder[0].weight, vae.decoder[0].bias, (2 * vae.log_std).exp()


def exact_elbo(vae, x_ND):
    """With the mean over q in closed form, [N]."""
    W, b, noise = linear_parts(vae)
    mean, log_std = vae.encode(x_ND)
    squares = (x_ND - mean @ W.T - b).square().sum(1) + ((2 * log_std).exp() @ W.square().T).sum(1)
    reconstruction = -0.5 * squares / noise - 0.5 * len(b) * (2 * math.pi * noise).log()
    return reconstruction - kl_to_standard(mean, log_std).sum(1)


def exact_log_p(vae, x_ND):
    W, b, noise = linear_parts(vae)
    return MultivariateNormal(b, W @ W.T + noise * torch.eye(len(b), dtype=b.dtype)).log_prob(x_ND)


def test_the_elbo_and_the_kl_to_the_posterior_add_up_to_log_p():
    vae, x_ND = VAES["linear"]().double(), torch.randn(16, 4, dtype=torch.float64)
    W, b, noise = linear_parts(vae)
    mean, log_std = vae.encode(x_ND)
    inverse = W.T @ W / noise + torch.eye(2, dtype=W.dtype)
    posterior = MultivariateNormal((x_ND - b) @ W @ inverse.inverse() / noise, precision_matrix=inverse)
    q = MultivariateNormal(mean, torch.diag_embed((2 * log_std).exp()))
    gap = kl_divergence(q, posterior)
    assert (gap > 0.01).all()
    torch.testing.assert_close(exact_elbo(vae, x_ND) + gap, exact_log_p(vae, x_ND))


def test_the_bounds_are_those_of_the_formula():
    vae, x_ND = VAES["linear"](), torch.randn(64, 4)
    with torch.no_grad():  # near enough to the posterior for its draws
        for parameter in vae.parameters():
            parameter.mul_(0.3)
    found = vae.bounds({"features": x_ND, "index": torch.arange(64)}, draws=4096)
    torch.testing.assert_close(
        -(found["reconstruction"] + found["kl"]).mean(), exact_elbo(vae, x_ND).mean().double(), rtol=2e-3, atol=0
    )
    torch.testing.assert_close(found["log_prob"].float(), exact_log_p(vae, x_ND), rtol=0, atol=0.1)


def test_a_linear_vae_reaches_probabilistic_pca():
    x_ND = torch.randn(200, 1) @ torch.tensor([[2.0, -1.0, 1.0]]) + 0.5 * torch.randn(200, 3) + 1
    best, noise = ppca(x_ND.double(), 1)
    vae = VAE(spec=points(3), latent_dim=1, hidden=())
    batch = {"features": x_ND, "index": torch.arange(200), "progress": torch.tensor(1.0)}
    train(vae, batch, steps=800, lr=5e-2)
    with torch.no_grad():
        elbo, log_p = exact_elbo(vae, x_ND).mean(), exact_log_p(vae, x_ND).mean()
    assert best - 0.01 < elbo <= log_p + 1e-5 < best + 2e-5
    assert (2 * vae.log_std).exp().item() == pytest.approx(float(noise), rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "lr", "within"), [("sampled", 3e-2, 5e-3), ("closed form", 1e-1, 1e-4)])
def test_on_the_digits_it_reaches_the_known_value(loss, lr, within):
    """By the loss with a draw of each code, and by its mean over the draws."""
    gray = torch.cat([source.take(torch.arange(len(source)))["image"] for source in Digits().splits().values()])
    x_ND = gray.flatten(1).double() / 16
    x_ND = x_ND[:, x_ND.var(0) > 1e-3]
    assert x_ND.shape == (1797, 52)
    best, noise = ppca(x_ND, 5)
    assert (best, float(noise)) == (pytest.approx(0.693701754, abs=1e-8), pytest.approx(0.0454093, abs=1e-7))
    if loss == "sampled":
        x_ND = x_ND.float()
    vae = VAE(spec=points(52), latent_dim=5, hidden=()).to(x_ND.dtype)
    if loss == "closed form":
        vae.training_loss = lambda batch, objective: (-exact_elbo(vae, batch["features"]).mean(), {})
    batch = {"features": x_ND, "index": torch.arange(1797), "progress": torch.tensor(1.0)}
    train(vae, batch, steps=6000, lr=lr)
    with torch.no_grad():
        elbo = exact_elbo(vae, x_ND).mean().item()
    print(f"{loss}: ELBO {elbo:.9f}, noise {(2 * vae.log_std).exp().item():.7f}")  # noqa: T201 (with `pytest -s`)
    assert best - within < elbo < best + 1e-6


# What a person does with it.


@pytest.mark.parametrize(
    ("spec", "arguments", "message"),
    [
        (images(), {"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
        (images(), {"draws": 0}, "draws must be at least 1, got 0"),
        (images(), {"beta": -1.0}, "beta must be at least 0, got -1.0"),
        (images(), {"warmup": 2.0}, r"warmup must be in \[0, 1\], got 2.0"),
        (images(), {"hidden": (0,)}, r"hidden must hold widths of at least 1, got \[0\]"),
        (images(), {"network": "conv", "hidden": ()}, "hidden must hold at least one width for network=conv"),
        (points(), {"network": "conv"}, "network conv needs images"),
        (images(), {"prior": "mixture"}, "prior mixture can only be drawn from.*: model=aae"),
        (images(), {"prior": "swiss_roll"}, "prior swiss_roll can only be drawn from.*: model=aae"),
        (images(), {"prior": "beta"}, "prior must be gaussian, got 'beta'"),
        (images(levels=17), {"likelihood": "bernoulli"}, "likelihood bernoulli is for binary images.*gaussian"),
        (points(), {"likelihood": "bernoulli"}, "likelihood bernoulli is for binary images"),
    ],
)
def test_wrong_arguments_are_named(spec, arguments, message):
    for device in ("cpu", "meta"):
        with torch.device(device), pytest.raises(ValueError, match=f"^{message}"):
            VAE(spec=spec, **arguments)


def test_what_is_given_wrongly_costs_a_line(dlx_call, here):
    for words, key in (
        (("model.prior=mixture",), "model.prior: "),
        (("data=digits", "model.likelihood=bernoulli"), "model.likelihood: "),
    ):
        call = dlx_call("train", "model=vae", *words)
        assert call.code == 2
        (line,) = call.err.splitlines()
        assert line.startswith(f"error: {key}")
        assert list(here.iterdir()) == []


@every_vae
def test_samples_are_of_the_datas_form(name):
    vae = VAES[name]()
    for noise in (None, True, False):
        x = vae.sample(5, noise=noise)[vae.input_name]
        assert x.shape == (5, *vae.input.shape)
        assert x.isfinite().all()
        if noise and vae.levels:
            levels = x * (vae.levels - 1)
            torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
            assert ((x >= 0) & (x <= 1)).all()


@every_vae
def test_pictures_and_answers(name):
    vae = VAES[name]().eval()
    batch = example(vae.spec)
    with torch.no_grad():
        media = vae.showcase(batch)
        predicted = vae.predict(batch)
        answers = vae.answer(batch, predicted)
    own = {"samples", "codes"}
    if name not in ("points", "linear"):
        own |= {"reconstructions", "interpolations", "latent-grid" if vae.latent_dim == 2 else "traversals"}
        assert answers[0].picture("x").shape[1] == 2 * vae.input.width + 1
    assert set(media) == own
    assert len(answers) == 16
    assert answers[3].json["log_prob"] == pytest.approx(float(predicted["log_prob"][3]))


QUICK = ("model.hidden=[16]", "model.draws=4", "trainer.max_steps=4", "trainer.log_every=1")


def test_it_completes_probes_and_predicts(dlx_call, here, only_run):
    assert dlx_call("train", "model=vae", *QUICK).code == 0
    image = np.random.default_rng(0).integers(0, 2, (8, 8), dtype=np.uint8) * 255
    Pictures.fromarray(image).save(here / "digit.png")
    Pictures.fromarray(image[:, :6]).save(here / "narrow.png")
    vae = VAE(spec=images(8, 8), latent_dim=2, hidden=(4,))
    *_, last = made = list(vae.sample(3, half=here / "digit.png", steps=4))
    assert len(made) == 4
    assert (last["image"][:, 0, :4] == torch.from_numpy(image[:4] / 255).float()).all()
    run = str(only_run())
    assert dlx_call("sample", run, "--given", "half=digit.png", "--given", "steps=3").code == 0
    refused = dlx_call("sample", run, "--given", "half=narrow.png")
    assert refused.code == 2
    assert refused.err.endswith("narrow.png: 8 x 6 pixels, not 8 x 8\n")
    assert refused.err.count("\n") == 1
    assert dlx_call("sample", run, "--given", "half=digit.png", "--given", "steps=0").code == 2
    probed = dlx_call("eval", run, "--analysis", "probe", "--json")
    assert "probe_test/accuracy" in probed.out
    predicted = dlx_call("predict", run, "digit.png", "--json")
    assert predicted.code == 0, predicted.err
    (found,) = json.loads(predicted.out)["predictions"]
    assert found["log_prob"] < 0
    assert Path(found["picture"]).is_file()


def test_the_recipe_of_the_iwae_paper_takes_a_step():
    """Burda et al. 2016, section 5 and appendix C: 3^i passes at 1e-3 10^(-i/7) for i = 0 to 7."""
    config, spec = compose(["experiment=vae_mnist"]), images(28, 28)
    vae = build(config, "model", spec=spec)
    sizes = [layer.out_features for layer in (*vae.encoder, *vae.decoder) if isinstance(layer, torch.nn.Linear)]
    assert sizes == [200, 200, 100, 200, 200, 784]
    loss, _ = vae.training_loss(example(spec, 20), *vae.objectives())
    loss.backward()
    assert loss.item() == pytest.approx(784 * math.log(2), rel=0.02)
    assert (config["dataset"]["binarization"], config["dataset"]["batch_size"]) == ("dynamic", 20)
    assert config["optimizer"]["eps"] == 1e-4
    schedule, passes = build(config, "scheduler"), config["trainer"]["epochs"]
    assert passes == sum(3**i for i in range(8))
    starts = [sum(3**j for j in range(i)) for i in range(8)]
    factors = [schedule.factor(start * 3000 + 1, passes * 3000) for start in starts]
    assert factors == pytest.approx([10 ** (-i / 7) for i in range(8)], rel=1e-4)


@pytest.mark.slow
def test_the_bar_on_binary_digits(dlx_call):
    """-ELBO at most 19 nats an image, by importance weights at most 17.8; independent pixels have 25.2."""
    found = []
    for seed in range(3):
        call = dlx_call("train", "model=vae", f"seed={seed}", "--json")
        assert call.code == 0, call.err
        found.append(json.loads(call.out)["metrics"])
    for name, bar in (("test/loss", 19.0), ("test/nll", 17.8)):
        values = torch.tensor([metrics[name] for metrics in found])
        print(f"{name} {values.mean():.2f} ± {values.std():.2f}")  # noqa: T201 (with `pytest -s`)
        assert values.mean() <= bar
    assert BinaryDigits.spec.image.scale == 1
