"""The numbers behind the claims about translators: verdicts of made-up numbers, the error of a right generator."""

from types import SimpleNamespace

import pytest
import torch

from dlx.claims.cycle_consistency import CycleConsistency
from dlx.claims.one_generator import PAIRS, OneGenerator, star_error
from dlx.data.many_domains import ManyDomains
from dlx.data.two_domains import LIGHTS, in_light
from dlx.tasks.adversarial import in_sign_range


@pytest.mark.parametrize(("without", "held"), [([0.2, 0.3], True), ([0.2, 0.06], False)])
def test_the_cycle_helps_at_each_seed(without, held):
    measured = {"with": {"error": [0.05, 0.07], "cycle": [0.03, 0.03]}, "without": {"error": without, "cycle": [1, 1]}}
    verdict = CycleConsistency().verdict(measured)
    assert verdict.held is held
    assert "with the cycle 0.060 to the truth and 0.030 there and back" in verdict.line


@pytest.mark.parametrize(
    ("weights", "errors", "held"), [((10, 60), (0.1, 0.1), True), ((60, 60), (0.1, 0.2), False),
                                    ((10, 60), (0.2, 0.1), False)]
)  # fmt: skip
def test_one_generator_has_fewer_weights_and_is_as_good(weights, errors, held):
    measured = {
        name: {"weights": count, "seconds": 1.0, "error": {"_".join(pair): [error] for pair in PAIRS}}
        for name, count, error in zip(("stargan", "cyclegan"), weights, errors, strict=True)
    }
    assert OneGenerator().verdict(measured).held is held


@pytest.mark.parametrize("is_right", [True, False])
def test_the_error_is_that_of_the_known_translation(is_right):
    data = ManyDomains(samples=40, side=16)
    spec, names = in_sign_range(data.spec), tuple(LIGHTS)

    def generate(x, domain):
        wanted = names[int(domain[0].argmax())]
        made = [in_light((row[None] + 1) / 2, wanted, before=origin(row)) * 2 - 1 for row in x]
        return torch.cat(made) if is_right else x

    tensors = data.splits()["test"].tensors
    batch = {"image": spec.image.normalize(tensors["image"]), "label": tensors["label"]}

    def origin(row):
        (n,) = (n for n, other in enumerate(batch["image"]) if torch.equal(row, other))
        return names[int(batch["label"][n])]

    system = SimpleNamespace(spec=spec, names=names, generator=generate, one_hot=lambda label: torch.eye(3)[label])
    loader = SimpleNamespace(eval_batches=lambda: [batch])
    opened = SimpleNamespace(system=system, loader=lambda split, entries: loader)
    error = star_error(opened, ("day", "night"))
    assert error < 1e-5 if is_right else error > 0.15


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: CycleConsistency(weight=0.0), "weight must be above 0"),
        (lambda: CycleConsistency(seeds=0), "seeds must be at least 1"),
        (lambda: OneGenerator(steps=2), "steps must be at least 3"),
        (lambda: OneGenerator(side=8), "side must be at least 16"),
    ],
)
def test_a_value_out_of_range_is_named(make, text):
    with pytest.raises(ValueError, match=f"^{text}"):
        make()
