"""The numbers behind the claims about latents: verdicts of made-up numbers, a sum over codes, what a VAE refuses."""

import math

import pytest
import torch

from dlx.claims.explicit_vs_implicit import ExplicitVsImplicit, quadrature
from dlx.claims.growing import Growing
from dlx.claims.priors import PRIORS, Priors, refusal
from dlx.claims.vae_terms import VAETerms
from dlx.config import compose
from dlx.models.generative.vae import VAE
from dlx.tasks.spec import Image, Images


def terms(kl, reconstruction):
    return {
        "kl": [kl], "reconstruction": [reconstruction], "loss": [kl + reconstruction], "nll": [kl + reconstruction]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("found", "held"),
    [
        ([(20, 5), (7, 11), (1, 20)], True),
        ([(20, 5), (7, 11), (8, 20)], False),  # the KL rises
        ([(5, 5), (4, 11), (3, 20)], False),  # the sum is least at another beta
    ],
)
def test_the_terms_are_exchanged_and_their_sum_is_least_at_one(found, held):
    measured = {beta: terms(*pair) for beta, pair in zip(("0.1", "1", "10"), found, strict=True)}
    assert VAETerms(betas=(0.1, 1.0, 10.0), seeds=1).verdict(measured).held is held


def nearest(own, others, vae):
    return {"mmd": [own], "to": {prior: own if prior == "own" else others for prior in PRIORS}, "p": 0.3, "vae": vae}


@pytest.mark.parametrize(("own", "refused", "held"), [(0.001, "no", True), (0.2, "no", False), (0.001, None, False)])
def test_codes_are_near_their_own_prior_and_a_vae_refuses(own, refused, held):
    measured = {prior: nearest(own, 0.3, None if prior == "gaussian" else refused) for prior in PRIORS}
    assert Priors(seeds=1).verdict(measured).held is held


def test_a_vae_refuses_all_priors_but_the_gaussian():
    spec = Images(image=Image(channels=1, height=4, width=4, mean=(0.0,), std=(1.0,), scale=1.0))
    base = compose(["experiment=priors"])
    assert refusal(base, "gaussian", spec) is None
    for prior in PRIORS[1:]:
        assert "model=aae" in refusal(base, prior, spec)


@pytest.mark.parametrize(
    ("growing", "at_once", "held"),
    [
        (([0.1, 0.12], 60), ([0.2, 0.14], 100), True),
        (([0.3], 60), ([0.2], 100), False),
        (([0.1], 99), ([0.2], 90), False),
    ],
)
def test_growing_comes_nearer_in_less_time(growing, at_once, held):
    measured = {
        name: {"distance": distances, "seconds": [seconds] * len(distances)}
        for name, (distances, seconds) in (("growing", growing), ("at-once", at_once))
    }
    verdict = Growing(seeds=1).verdict({**measured, "floor": 0.05, "samples": {}})
    assert verdict.held is held
    assert "floor 0.05" in verdict.line


@pytest.mark.parametrize(
    ("bounds", "refused", "held"),
    [
        ([21.0, 20.0, 19.0], "no log p", True),
        ([21.0, 20.0, 18.0], "no log p", False),  # below the integral
        ([21.0, 22.0, 19.0], "no log p", False),
        ([21.0, 20.0, 19.0], None, False),
    ],
)
def test_the_bounds_fall_to_the_integral(bounds, refused, held):
    measured = {
        "exact": {"nll": 17.0},
        "vae": {"elbo": 21.0, "bounds": dict(zip(("1", "8", "64"), bounds, strict=True)), "integral": 18.9},
        "aae": {"refused": refused, "mmd": 0.0},
    }
    assert ExplicitVsImplicit(draws=(1, 8, 64)).verdict(measured).held is held


def test_the_sum_over_codes_is_log_p():
    """Of a decoder that ignores its code: 16 pixels of probability 1/2."""
    spec = Images(image=Image(channels=1, height=4, width=4, mean=(0.0,), std=(1.0,), scale=1.0))
    vae = VAE(spec=spec, latent_dim=2, hidden=(4,))
    with torch.no_grad():
        vae.decoder[-2].weight.zero_()
        vae.decoder[-2].bias.zero_()
        found = quadrature(vae, {"image": torch.ones(3, 1, 4, 4), "index": torch.arange(3)})
    assert found.tolist() == pytest.approx([-16 * math.log(2)] * 3, abs=1e-5)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: VAETerms(betas=(0.1, 1.0)), "betas must be at least 3"),
        (lambda: VAETerms(betas=(0.1, 0.5, 2.0)), "betas must have 1 between others"),
        (lambda: VAETerms(seeds=0), "seeds must be at least 1"),
        (lambda: Priors(seeds=0), "seeds must be at least 1"),
        (lambda: Growing(seeds=0), "seeds must be at least 1"),
        (lambda: ExplicitVsImplicit(draws=(4, 1)), "draws must be at least 2, rising"),
    ],
)
def test_a_value_out_of_range_is_named(make, text):
    with pytest.raises(ValueError, match=f"^{text}"):
        make()
