"""M members that train as one program take the steps that M optimizers would, each with its own settings."""

import pytest
import torch
from torch.optim import SGD, Adadelta, Adagrad, Adam, AdamW, RAdam, RMSprop

from dlx.batched.rules import RULES, flatten, split, stack_settings
from dlx.optim.adamp import SGDP, AdamP

MEMBERS, STEPS = 4, 50
SHAPES = {"conv": (6, 2, 3, 3), "weight": (5, 6), "bias": (5,), "scale": ()}

# What differs between the four members, by class; all of it at once.
ADAM = {
    "lr": (1e-3, 3e-3, 1e-2, 3e-2),
    "betas": ((0.9, 0.999), (0.5, 0.9), (0.0, 0.99), (0.9, 0.95)),
    "eps": (1e-8, 1e-6, 1e-3, 0.1),
    "weight_decay": (0.0, 0.01, 0.1, 1.0),
}
PROJECTED = {"delta": (0.1, 2.0, 0.0, 100.0), "wd_ratio": (0.1, 0.0, 0.5, 0.9), "nesterov": (False, True, False, True)}
SETTINGS = {
    SGD: [
        {"lr": (0.01, 0.02, 0.05, 0.1)},
        {
            "lr": (0.01, 0.02, 0.05, 0.1),
            "momentum": (0.0, 0.5, 0.9, 0.99),
            "weight_decay": (0.0, 1e-3, 0.01, 0.1),
            "nesterov": (False, True, True, False),
        },
        {"lr": (0.01,) * 4, "momentum": (0.0, 0.5, 0.9, 0.99), "dampening": (0.5, 0.0, 0.9, 1.0)},
    ],
    Adagrad: [
        {
            "lr": (0.01, 0.02, 0.05, 0.1),
            "lr_decay": (0.0, 0.1, 0.01, 1.0),
            "weight_decay": (0.0, 1e-3, 0.01, 0.1),
            "initial_accumulator_value": (0.0, 0.1, 1.0, 0.0),
            "eps": (1e-10, 1e-8, 1e-3, 0.1),
        }
    ],
    Adadelta: [
        {
            "lr": (1.0, 0.5, 0.1, 2.0),
            "rho": (0.9, 0.95, 0.5, 0.0),
            "eps": (1e-6, 1e-4, 1e-3, 0.1),
            "weight_decay": (0.0, 1e-3, 0.01, 0.1),
        }
    ],
    RMSprop: [
        {"lr": (1e-3, 1e-2, 3e-3, 1e-2), "alpha": (0.99, 0.9, 0.5, 0.999), "eps": (1e-8, 1e-6, 1e-3, 0.1)},
        {
            "lr": (1e-3, 1e-2, 3e-3, 1e-2),
            "momentum": (0.0, 0.9, 0.5, 0.0),
            "centered": (True, False, True, False),
            "weight_decay": (0.0, 1e-3, 0.01, 0.1),
            "eps": (1e-2,) * 4,
        },
    ],
    Adam: [ADAM, ADAM | {"decoupled_weight_decay": (False, True, False, True)}],
    AdamW: [ADAM],
    RAdam: [ADAM, ADAM | {"decoupled_weight_decay": (False, True, False, True)}],
    AdamP: [ADAM | PROJECTED, ADAM | {"delta": (100.0,) * 4}],
    SGDP: [
        {
            "lr": (0.01, 0.02, 0.05, 0.1),
            "momentum": (0.0, 0.5, 0.9, 0.99),
            "weight_decay": (0.0, 1e-3, 0.01, 0.1),
            "dampening": (0.5, 0.0, 0.9, 0.1),
            "eps": (1e-8, 1e-6, 1e-3, 0.1),
        }
        | PROJECTED
        | {"nesterov": (False, True, True, False)}
    ],
}
CASES = [
    pytest.param(target, {k: list(v) for k, v in case.items()}, id=f"{target.__name__}{number}")
    for target, cases in SETTINGS.items()
    for number, case in enumerate(cases)
]


def draw(dtype, *, seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(MEMBERS, *shape, generator=generator, dtype=torch.float64).to(dtype)
        for name, shape in SHAPES.items()
    }


def members_of(case):
    return [{name: values[member] for name, values in case.items()} for member in range(MEMBERS)]


def stacked_settings(target, members):
    return stack_settings([target([torch.zeros(1)], **settings).param_groups[0] for settings in members])


def gradients(dtype):
    """Of 50 steps, over three orders of magnitude."""
    for step in range(STEPS):
        yield {name: g * 10 ** (step % 4 - 2.5) for name, g in draw(dtype, seed=step + 1).items()}


def test_every_class_is_tried():
    assert set(SETTINGS) == set(RULES)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)], ids=["64", "32"])
@pytest.mark.parametrize(("target", "case"), CASES)
def test_members_step_as_their_optimizers_do(target, case, dtype, tolerance):
    members, params = members_of(case), draw(dtype, seed=0)
    single = [
        {name: torch.nn.Parameter(stacked[member].clone()) for name, stacked in params.items()}
        for member in range(MEMBERS)
    ]
    optimizers = [target(list(own.values()), **settings) for own, settings in zip(single, members, strict=True)]
    rule, hyper, w = RULES[target], stacked_settings(target, members), flatten(params)
    state = rule.init(w, hyper)
    for step, grads in enumerate(gradients(dtype), start=1):
        w, state = rule.update(w, flatten(grads), state, hyper, params)
        moved = split(w, params)
        for member, optimizer in enumerate(optimizers):
            for name, parameter in single[member].items():
                parameter.grad = grads[name][member].clone()
            optimizer.step()
            for name, parameter in single[member].items():
                error = (moved[name][member] - parameter.detach()).abs() / parameter.detach().abs().clamp(min=1)
                assert error.max() <= tolerance, (name, step, member)
    for slot in set(state) - {"step"}:
        kept = split(state[slot], params)
        for member, optimizer in enumerate(optimizers):
            for name, parameter in single[member].items():
                theirs = optimizer.state[parameter].get(slot)
                # A buffer that one member alone does without: a momentum of 0, or RMSprop that is not centred.
                if theirs is not None:
                    assert torch.allclose(kept[name][member], theirs, rtol=1e-4, atol=tolerance), (slot, name)


@pytest.mark.parametrize(("target", "case"), CASES)
def test_a_frozen_member_keeps_parameters_and_state(target, case):
    rule, params, hyper = RULES[target], draw(torch.float64, seed=0), stacked_settings(target, members_of(case))
    first, second = (flatten(draw(torch.float64, seed=seed)) for seed in (1, 2))
    w, state = rule.update(flatten(params), first, rule.init(flatten(params), hyper), hyper, params)
    before, kept = w.clone(), {slot: x.clone() for slot, x in state.items()}
    free, free_state = rule.update(w, second, state, hyper, params)
    second[2] = float("nan")
    mask = torch.tensor([True, True, False, True])
    after, after_state = rule.update(w, second, state, hyper, params, mask)
    starts = split(before, params)
    for old, other, new in (
        *((starts[name], split(free, params)[name], split(after, params)[name]) for name in params),
        *((kept[slot], free_state[slot], after_state[slot]) for slot in state),
    ):
        assert torch.equal(new[2], old[2])
        assert torch.equal(new[mask], other[mask])
        assert not torch.equal(new[mask], old[mask])
    # What was given is not written to.
    assert torch.equal(w, before)
    assert all(torch.equal(state[slot], kept[slot]) for slot in state)


@pytest.mark.parametrize(("target", "case"), CASES)
def test_numbers_and_tensors_mean_the_same(target, case):
    """Where members agree a setting is a number; as a tensor it takes the same step."""
    rule, params, grads = RULES[target], draw(torch.float64, seed=0), flatten(draw(torch.float64, seed=1))
    numbers = stacked_settings(target, [{name: values[1] for name, values in case.items()}] * MEMBERS)
    assert not any(isinstance(value, torch.Tensor) for value in numbers.values())
    tensors = {
        name: torch.tensor([value] * MEMBERS, dtype=torch.float64) if name in case else value
        for name, value in numbers.items()
    }
    found = []
    for hyper in (numbers, tensors):
        w = flatten(params)
        state = rule.init(w, hyper)
        for _ in range(7):
            w, state = rule.update(w, grads, state, hyper, params)
        found.append(w)
    assert (found[0] - found[1]).abs().max() <= 1e-13


@pytest.mark.parametrize(
    ("target", "settings", "name"),
    [
        (Adam, {"amsgrad": True}, "amsgrad"),
        (SGD, {"maximize": True}, "maximize"),
        (RAdam, {"differentiable": True}, "differentiable"),
    ],
)
def test_a_setting_that_no_rule_follows_is_named(target, settings, name):
    with pytest.raises(ValueError, match=f"^{name} "):
        stacked_settings(target, [{}, settings])


def test_choices_of_implementation_are_ignored():
    assert "fused" not in stacked_settings(Adam, [{"fused": True, "foreach": None, "amsgrad": False}])


def test_parameters_without_decay_are_a_second_call():
    rule, params, grads = RULES[AdamW], draw(torch.float64, seed=0), draw(torch.float64, seed=1)
    hyper = stacked_settings(AdamW, [{"weight_decay": decay} for decay in (0.0, 0.1, 0.2, 0.3)])
    start, spared = rule.init(params["bias"], hyper), hyper | {"weight_decay": 0.0}
    moved, _ = rule.update(params["bias"], grads["bias"], start, spared, {"bias": params["bias"]})
    # The first step of Adam has the size of lr in each coordinate.
    assert ((moved - params["bias"]).abs() - 1e-3).abs().max() <= 1e-8
