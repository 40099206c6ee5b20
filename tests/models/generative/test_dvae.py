"""Discrete VAE: published parameter counts, its KL and likelihood exactly, the relaxation's limits, that it learns."""

import json
import math

import pytest
import torch

from dlx.models.generative.dvae import DVAE, gumbel, kl_to_uniform, logit_laplace
from dlx.tasks.spec import Image, Images

SMALL = {"codes": 16, "width": 8, "levels": 2, "blocks": 1, "embedding": 8}


def spec(height=8, channels=1, width=None, scale=16.0):
    return Images(
        image=Image(
            channels=channels, height=height, width=width or height, mean=(0.3,) * channels, std=(0.2,) * channels,
            scale=scale,
        )
    )  # fmt: skip


def batch_of(system, size=4, progress=1.0):
    image = torch.rand(size, *system.image.shape)
    counters = {"step": torch.tensor(0), "stage": torch.tensor(0), "progress": torch.tensor(progress)}
    return {"image": image, "index": torch.arange(size), **counters}


def test_parameters_are_the_published_ones():
    with torch.device("meta"):
        system = DVAE(spec=spec(256, 3, scale=255.0))
    count = {part: sum(p.numel() for p in getattr(system, part).parameters()) for part in ("encoder", "decoder")}
    assert count == {"encoder": 53_786_240, "decoder": 43_829_766}
    assert system.grid == (32, 32)
    assert system.encoder(torch.zeros(1, 3, 256, 256, device="meta")).shape == (1, 8192, 32, 32)


def test_the_kl_is_ln_k_less_the_entropy():
    logits = torch.randn(3, 7, 2, 2, dtype=torch.float64)
    q = torch.distributions.Categorical(logits=logits.movedim(1, -1))
    uniform = torch.distributions.Categorical(logits=torch.zeros_like(logits).movedim(1, -1))
    torch.testing.assert_close(kl_to_uniform(logits), torch.distributions.kl_divergence(q, uniform))
    torch.testing.assert_close(kl_to_uniform(logits), math.log(7) - q.entropy())
    assert kl_to_uniform(torch.zeros(1, 7, 1, 1)).item() == pytest.approx(0, abs=1e-6)
    sure = torch.full((1, 7, 1, 1), -1e4).index_fill(1, torch.tensor([2]), 0.0)
    assert kl_to_uniform(sure).item() == pytest.approx(math.log(7))


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 0.5), (-2.0, 0.2), (1.5, 1.0)])
def test_the_density_of_logit_laplace_integrates_to_1(mean, scale):
    x_N = torch.linspace(1e-6, 1 - 1e-6, 400_001, dtype=torch.float64)
    density_N = (-logit_laplace(x_N, torch.tensor(mean), torch.tensor(scale, dtype=torch.float64))).exp()
    assert torch.trapezoid(density_N, x_N).item() == pytest.approx(1, abs=1e-3)


def test_the_loss_by_hand():
    system = DVAE(spec=spec(), **SMALL, beta=2.0, warmup=0.5)
    batch = batch_of(system, progress=0.25)
    torch.manual_seed(1)
    loss, logs = system.training_loss(batch, system.objectives()[0])
    torch.manual_seed(1)
    logits = system.encoder(batch["image"])
    temperature, beta = system.weights(batch["progress"])
    shares = ((logits + gumbel(torch.rand_like(logits))) / temperature).softmax(1)
    mean, log_scale = system.decoder(shares).chunk(2, 1)
    x, b = 0.8 * batch["image"] + 0.1, 0.8 / 17 + log_scale.exp()
    nll = ((2 * b).log() + x.log() + (1 - x).log() + ((x / (1 - x)).log() - mean).abs() / b).sum() / 4
    kl = sum(16 * math.log(16) - torch.distributions.Categorical(logits=row).entropy().sum()
             for row in logits.movedim(1, -1)) / 4  # fmt: skip
    assert beta.item() == pytest.approx(1.0)
    torch.testing.assert_close(loss, (nll + beta * kl) / 64)
    torch.testing.assert_close(logs["kl"], kl.detach())


def test_the_squared_error_is_an_option():
    system = DVAE(spec=spec(), likelihood="mse", **SMALL)
    image = torch.rand(2, 1, 8, 8)
    assert system.nll(image, image + 0.5).tolist() == pytest.approx([16, 16])
    assert torch.equal(system.image_of(image), image)
    system.training_loss(batch_of(system), system.objectives()[0])[0].backward()


def test_temperature_falls_with_half_a_cosine_and_beta_rises():
    system = DVAE(spec=spec(), beta=6.0, warmup=0.2, anneal=0.4, **SMALL)
    found = [[value.item() for value in system.weights(torch.tensor(p))] for p in (0.0, 0.1, 0.2, 0.4, 1.0)]
    middle = (1 + 1 / 16) / 2
    assert [pair[0] for pair in found] == pytest.approx(
        [1, 1 / 16 + 15 / 16 * (1 + 0.5**0.5) / 2, middle, 1 / 16, 1 / 16]
    )
    assert [pair[1] for pair in found] == pytest.approx([0, 3, 6, 6, 6])


def test_a_cold_relaxation_is_a_draw_of_q():
    system = DVAE(spec=spec(), **SMALL)
    logits = torch.randn(1, 16, 1, 1).expand(20_000, -1, -1, -1)
    shares = system.soften(logits, torch.rand(logits.shape), 1e-3)
    assert (shares.max(1).values > 0.99).float().mean() > 0.98
    found = torch.bincount(shares.argmax(1).flatten(), minlength=16) / 20_000
    torch.testing.assert_close(found, logits[0, :, 0, 0].softmax(0), atol=0.015, rtol=0)


def test_codes_decode_as_their_one_hot_maps():
    system = DVAE(spec=spec(8, 3), **SMALL)
    code = torch.randint(16, (3, 4, 4))
    one_hot = torch.nn.functional.one_hot(code, 16).movedim(-1, 1).float()
    torch.testing.assert_close(system.decode(code), system.image_of(system.decoder(one_hot)))
    assert system.decode(code).shape == (3, 3, 8, 8)


@torch.no_grad()
def test_metrics_do_not_depend_on_the_batch_and_count_the_codes():
    system = DVAE(spec=spec(), **SMALL)
    batch = batch_of(system, 6)
    whole = system.metrics(system.evaluate(batch))
    halves = [
        system.evaluate({k: v[rows] if v.dim() else v for k, v in batch.items()}) for rows in ([0, 1], [2, 3, 4, 5])
    ]
    assert system.metrics({k: halves[0][k] + halves[1][k] for k in halves[0]}) == pytest.approx(whole)
    sums = {**system.evaluate(batch), "used": torch.tensor([3, 3, 0, 0] * 4)}
    found = system.metrics(sums)
    assert found["codes_used"] == 0.5
    assert found["perplexity"] == pytest.approx(8)
    assert system.remarks({"codes_used": 0.1, "hard": 0.2, "soft": 0.1, "loss": 0, "kl": 0, "perplexity": 1})


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"codes": 1}, "codes must be"), ({"width": 2}, "width must be"), ({"levels": 0}, "levels must be"),
        ({"levels": 5}, "levels must halve 8 x 8 pixels 4 times, got 5"), ({"beta": -1.0}, "beta must be"),
        ({"temperature": 0.0}, "temperature must be"), ({"anneal": 2.0}, "anneal must be"),
        ({"likelihood": "l1"}, "likelihood must be"),
    ],
)  # fmt: skip
def test_bad_settings_name_the_argument(bad, text):
    with pytest.raises(ValueError, match=f"^{text}"):
        DVAE(spec=spec(), **{**SMALL, **bad})


def test_one_batch_is_learned_by_heart():
    """Eight images of two gray levels each, in halves: single codes rebuild them."""
    torch.manual_seed(0)
    system = DVAE(spec=spec(), **SMALL, beta=0.0, anneal=0.5)
    image = torch.rand(8, 1, 2, 2).round().repeat_interleave(4, 2).repeat_interleave(4, 3)
    optimizer = torch.optim.Adam(system.parameters(), lr=5e-3)
    before = system.metrics(system.evaluate(batch_of(system) | {"image": image, "index": torch.arange(8)}))["hard"]
    for step in range(150):
        batch = {**batch_of(system, 8, step / 150), "image": image}
        loss, _ = system.training_loss(batch, system.objectives()[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = system.metrics(system.evaluate({"image": image, "index": torch.arange(8)}))
    assert found["hard"] < 0.1 * before
    assert found["hard"] < 1.2 * found["soft"] + 1e-3


def test_trained_through_the_command_line_it_shows_its_codes(dlx_call, here):
    words = ["model.width=8", "model.codes=8", "trainer.max_steps=4", "data.subset=100", "name=d", "--json"]
    call = dlx_call("train", "model=dvae", *words)
    assert call.code == 0, call.err
    metrics = json.loads(call.out)["metrics"]
    assert {"test/hard", "test/soft", "test/codes_used", "test/perplexity"} <= set(metrics)
    (folder,) = (here / "outputs" / "d").iterdir()
    assert {"codebook", "reconstructions"} <= {path.name.rpartition("-")[0] for path in folder.glob("media/*.png")}


@pytest.mark.slow
def test_single_codes_rebuild_as_well_as_mixtures_and_many_are_used(dlx_call):
    call = dlx_call("train", "model=dvae", "--json")
    assert call.code == 0, call.err
    metrics = json.loads(call.out)["metrics"]
    assert abs(metrics["test/hard"] / metrics["test/soft"] - 1) < 0.1, metrics
    assert metrics["test/codes_used"] >= 0.25, metrics
