"""What holds for every model of conditionals: probabilities of all images sum to one, no pixel sees itself or a later
one, the sampler draws from the conditionals that log p is made of.

A model of conf/model is found by itself; VARIANTS has its small forms.
"""

import itertools
from pathlib import Path

import pytest
import torch
import yaml

from dlx.config.build import find_class
from dlx.config.errors import UserError
from dlx.tasks.density import Autoregressive
from dlx.tasks.spec import Image, Images
from dlx.tasks.system import System

MASKED = {"hidden": 6, "depth": 1, "first_kernel": 3, "head_width": 6}
VARIANTS = {
    "independent_pixels": [{}, {"by": "gradient"}],
    "markov_pixels": [
        {"given": given, "by": by} for given in ("above", "left", "previous") for by in ("counts", "gradient")
    ],
    "ar_pixels": [{}, {"order": 1}, {"order": 2}],
    "nade": [{"hidden": 5}, *({"hidden": 5, "ordering": "random", "ordering_seed": seed} for seed in range(3))],
    "pixel_cnn": [MASKED, {**MASKED, "gated": True}],
    "pixel_rnn": [{**MASKED, "layer": "row"}, {**MASKED, "layer": "diagonal"}],
}
BINARY_ONLY = {"nade"}
SIZES = {"binary": (1, 3, 3, 2), "gray": (1, 2, 3, 3), "colour": (3, 1, 2, 2)}
"""Channels, height, width and levels of images that are few enough to have them all."""


def found():
    """The models of conf/model that are `Autoregressive`, by name."""
    classes = {}
    for path in sorted((Path(__file__).parents[3] / "conf" / "model").glob("*.yaml")):
        block = yaml.safe_load(path.read_text())
        target = block.get("model", block)["_target_"]
        if ".generative." in target:
            classes[path.stem] = find_class(target, base=System)
    return {name: cls for name, cls in classes.items() if issubclass(cls, Autoregressive)}


MODELS = found()
CASES = [
    pytest.param(name, arguments, size, id="-".join([name, *map(str, arguments.values()), size]))
    for name in MODELS
    for arguments in VARIANTS.get(name, [{}])
    for size in SIZES
    if size == "binary" or name not in BINARY_ONLY
]


def spec_of(channels, height, width, levels):
    """Images of so many levels, stored as 0, 1, ..., levels - 1."""
    return Images(
        image=Image(
            channels=channels, height=height, width=width, mean=(0.5,) * channels, std=(0.5,) * channels,
            scale=levels - 1.0,
        )
    )  # fmt: skip


def build(cls, arguments, spec):
    """A system whose weights, or counts, are random and not small."""
    torch.manual_seed(0)
    system = cls(spec=spec, **arguments).eval()
    with torch.no_grad():
        for parameter in system.parameters():
            # Sums over many inputs stay of one size, or some images would have all of the probability.
            inputs = parameter[0].numel() if parameter.dim() > 2 else 1
            parameter.copy_(torch.randn_like(parameter) / inputs**0.5)
        if not list(system.parameters()):
            system.table.copy_(torch.rand_like(system.table) * 5)
    return system


def all_images(system):
    """Every image that there is, as the system reads them."""
    levels_ND = torch.tensor(list(itertools.product(range(system.levels), repeat=system.dimensions)))
    return system.image_of(levels_ND)


@pytest.fixture
def case(request):
    name, arguments, size = request.param
    return build(MODELS[name], arguments, spec_of(*SIZES[size]))


every_case = pytest.mark.parametrize("case", [pytest.param(p.values, id=p.id) for p in CASES], indirect=True)


def test_every_model_of_conditionals_has_small_forms():
    assert set(MODELS) <= set(VARIANTS)


@every_case
def test_probabilities_of_all_images_sum_to_one(case):
    with torch.no_grad():
        log_prob_N = case.log_prob({"image": all_images(case)}).double()
    assert log_prob_N.logsumexp(0).exp().item() == pytest.approx(1, abs=1e-5)
    assert log_prob_N.exp().max() < 0.99  # of a model that differs between images


@every_case
def test_log_prob_is_the_product_of_the_conditionals_that_samples_are_drawn_from(case):
    x_BCHW = all_images(case)[:: max(1, case.levels**case.dimensions // 64)]
    levels_BD, cache = case.flat_levels(x_BCHW), {}
    log_prob_B = torch.zeros(len(x_BCHW), dtype=torch.float64)
    with torch.no_grad():
        for step, position in enumerate(case.order.tolist()):
            logits = case.next_logits(x_BCHW, step, cache).double()
            if logits.shape[-1] == 1:
                logits = torch.cat([torch.zeros_like(logits), logits], -1)
            log_prob_B += logits.log_softmax(-1).gather(1, levels_BD[:, position : position + 1])[:, 0]
        torch.testing.assert_close(case.log_prob({"image": x_BCHW}).double(), log_prob_B, atol=1e-4, rtol=1e-5)


@every_case
def test_no_logits_change_with_their_own_value_or_a_later_one(case):
    """To the bit, by changing each value in turn."""
    torch.manual_seed(1)
    levels_D = torch.randint(case.levels, (case.dimensions,))
    order = case.order.tolist()
    changed_DD = levels_D.repeat(case.dimensions, 1)
    changed_DD[torch.arange(case.dimensions), case.order] = (levels_D[case.order] + 1) % case.levels
    with torch.no_grad():
        before_DDK = case.logits(case.image_of(levels_D.repeat(case.dimensions, 1)))  # of the same place in the batch
        after_DDK = case.logits(case.image_of(changed_DD))
    for step in range(case.dimensions):
        differs_D = (after_DDK[step] != before_DDK[step]).any(-1)
        assert not differs_D[order[: step + 1]].any()


@every_case
def test_the_gradient_to_itself_and_to_later_values_is_exactly_zero(case):
    case.double()
    x_BCHW = case.image_of(torch.randint(case.levels, (2, case.dimensions))).double().requires_grad_()
    logits = case.logits(x_BCHW)
    for step, position in enumerate(case.order.tolist()):
        if not logits.requires_grad:  # a table reads levels, which have no gradient
            break
        (gradient,) = torch.autograd.grad(
            logits[:, position].sum(), x_BCHW, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        assert not gradient.movedim(1, -1).flatten(1)[:, case.order[step:]].any()


@every_case
def test_metrics_do_not_depend_on_the_batch_size(case):
    x_BCHW = all_images(case)[::7][:50]

    def nll(size):
        parts = [case.evaluate({"image": part}) for part in x_BCHW.split(size)]
        return case.metrics({key: sum(part[key] for part in parts) for key in parts[0]})["nll"]

    with torch.no_grad():
        assert nll(1) == pytest.approx(nll(50), rel=1e-6)


@every_case
def test_the_same_samples_with_a_cache_and_without(case):
    made = []
    for use_cache in (True, False):
        torch.manual_seed(2)
        *_, last = case.sample(20, use_cache=use_cache)
        made.append(last["image"])
    assert torch.equal(*made)
    assert len(made[0].flatten(1).unique(dim=0)) > 1


@every_case
def test_samples_have_the_probabilities_of_the_model(case):
    """The mean log p of 4,000 samples is that of the model, by enumeration, within five standard errors."""
    with torch.no_grad():
        log_prob_N = case.log_prob({"image": all_images(case)}).double()
        mean = (log_prob_N.exp() * log_prob_N).sum()
        variance = (log_prob_N.exp() * (log_prob_N - mean).square()).sum()
        torch.manual_seed(3)
        *_, made = case.sample(4000)
        sampled = case.log_prob(made).double().mean()
    assert abs(sampled - mean) < 5 * (variance / 4000).sqrt() + 1e-6


@every_case
def test_an_image_is_completed_in_the_order_of_the_raster_alone(case):
    levels_BD = torch.randint(case.levels, (5, case.dimensions))
    given = case.dimensions // 2
    if case.order.tolist() != list(range(case.dimensions)):
        with pytest.raises(UserError, match=r"--given half: .* order"):
            case.complete(levels_BD, given)
        return
    *_, made = case.complete(levels_BD, given)
    assert torch.equal(case.flat_levels(made["image"])[:, :given], levels_BD[:, :given])


@every_case
def test_the_map_of_surprisal_adds_up_to_log_prob(case):
    x_BCHW = all_images(case)[:9]
    predicted = case.predict({"image": x_BCHW})
    assert predicted["surprisal"].shape == (9, *case.input.shape[1:])
    torch.testing.assert_close(predicted["surprisal"].flatten(1).sum(1), -case.log_prob({"image": x_BCHW}))


@pytest.mark.parametrize(("name", "arguments", "size"), CASES)
def test_it_runs_on_the_meta_device(name, arguments, size):
    with torch.device("meta"):
        system = MODELS[name](spec=spec_of(*SIZES[size]), **arguments)
    loss, _ = system.training_loss(system.spec.example(2, "meta"), None)
    assert loss.device.type == "meta"
