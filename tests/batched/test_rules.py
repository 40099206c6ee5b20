"""M members that train as one program take the steps that M optimizers would, each with its own settings."""

import importlib

import pytest
import torch

from dlx.batched.rules import RULES, flatten, split

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
    "torch.optim.SGD": [
        {"lr": (0.01, 0.02, 0.05, 0.1)},
        {
            "lr": (0.01, 0.02, 0.05, 0.1),
            "momentum": (0.0, 0.5, 0.9, 0.99),
            "weight_decay": (0.0, 1e-3, 0.01, 0.1),
            "nesterov": (False, True, True, False),
        },
        {"lr": (0.01,) * 4, "momentum": (0.0, 0.5, 0.9, 0.99), "dampening": (0.5, 0.0, 0.9, 1.0)},
    ],
    "torch.optim.Adagrad": [
        {
            "lr": (0.01, 0.02, 0.05, 0.1),
            "lr_decay": (0.0, 0.1, 0.01, 1.0),
            "weight_decay": (0.0, 1e-3, 0.01, 0.1),
            "initial_accumulator_value": (0.0, 0.1, 1.0, 0.0),
            "eps": (1e-10, 1e-8, 1e-3, 0.1),
        }
    ],
    "torch.optim.Adadelta": [
        {
            "lr": (1.0, 0.5, 0.1, 2.0),
            "rho": (0.9, 0.95, 0.5, 0.0),
            "eps": (1e-6, 1e-4, 1e-3, 0.1),
            "weight_decay": (0.0, 1e-3, 0.01, 0.1),
        }
    ],
    "torch.optim.RMSprop": [
        {"lr": (1e-3, 1e-2, 3e-3, 1e-2), "alpha": (0.99, 0.9, 0.5, 0.999), "eps": (1e-8, 1e-6, 1e-3, 0.1)},
        {
            "lr": (1e-3, 1e-2, 3e-3, 1e-2),
            "momentum": (0.0, 0.9, 0.5, 0.0),
            "centered": (True, False, True, False),
            "weight_decay": (0.0, 1e-3, 0.01, 0.1),
            "eps": (1e-2,) * 4,
        },
    ],
    "torch.optim.Adam": [ADAM, ADAM | {"decoupled_weight_decay": (False, True, False, True)}],
    "torch.optim.AdamW": [ADAM],
    "torch.optim.RAdam": [ADAM, ADAM | {"decoupled_weight_decay": (False, True, False, True)}],
    "dlx.optim.adamp.AdamP": [ADAM | PROJECTED, ADAM | {"delta": (100.0,) * 4}],
    "dlx.optim.adamp.SGDP": [
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
    pytest.param(target, {k: list(v) for k, v in case.items()}, id=f"{target.rpartition('.')[2]}{number}")
    for target, cases in SETTINGS.items()
    for number, case in enumerate(cases)
]


def make(target, params, **settings):
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)(params, **settings)


def draw(dtype, *, seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(MEMBERS, *shape, generator=generator, dtype=torch.float64).to(dtype)
        for name, shape in SHAPES.items()
    }


def members_of(case):
    return [{name: values[member] for name, values in case.items()} for member in range(MEMBERS)]


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
    optimizers = [make(target, list(own.values()), **settings) for own, settings in zip(single, members, strict=True)]
    rule = RULES[target]
    hyper = rule.stack_settings([{"_target_": target, **settings} for settings in members])
    state = rule.init(params, hyper)
    for step, grads in enumerate(gradients(dtype), start=1):
        params, state = rule.update(params, grads, state, hyper)
        for member, optimizer in enumerate(optimizers):
            for name, parameter in single[member].items():
                parameter.grad = grads[name][member].clone()
            optimizer.step()
            for name, parameter in single[member].items():
                error = (params[name][member] - parameter.detach()).abs() / parameter.detach().abs().clamp(min=1)
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
    rule, params = RULES[target], draw(torch.float64, seed=0)
    hyper = rule.stack_settings(members_of(case))
    state = rule.init(params, hyper)
    params, state = rule.update(params, draw(torch.float64, seed=1), state, hyper)
    before = {name: x.clone() for name, x in params.items()}, {slot: x.clone() for slot, x in state.items()}
    grads = draw(torch.float64, seed=2)
    free_params, free_state = rule.update(params, grads, state, hyper)
    for stacked in grads.values():
        stacked[2] = float("nan")
    mask = torch.tensor([True, True, False, True])
    after_params, after_state = rule.update(params, grads, state, hyper, mask)
    for old, free, new in (
        *((before[0][name], free_params[name], after_params[name]) for name in params),
        *((before[1][slot], free_state[slot], after_state[slot]) for slot in state),
    ):
        assert torch.equal(new[2], old[2])
        assert torch.equal(new[mask], free[mask])
        assert not torch.equal(new[mask], old[mask])
    # What was given is not written to.
    assert all(torch.equal(params[name], before[0][name]) for name in params)
    assert all(torch.equal(state[slot], before[1][slot]) for slot in state)


@pytest.mark.parametrize(("target", "case"), CASES)
def test_numbers_and_tensors_mean_the_same(target, case):
    """Where members agree a setting is a number; as a tensor it takes the same step."""
    rule, params, grads = RULES[target], draw(torch.float64, seed=0), draw(torch.float64, seed=1)
    numbers = rule.stack_settings([{name: values[1] for name, values in case.items()}] * MEMBERS)
    assert not any(isinstance(value, torch.Tensor) for value in numbers.values())
    tensors = {
        name: torch.tensor([value] * MEMBERS, dtype=torch.float64) if name in case else value
        for name, value in numbers.items()
    }
    found = []
    for hyper in (numbers, tensors):
        w, state = params, rule.init(params, hyper)
        for _ in range(7):
            w, state = rule.update(w, grads, state, hyper)
        found.append(flatten(w))
    assert (found[0] - found[1]).abs().max() <= 1e-13


@pytest.mark.parametrize(
    ("target", "settings", "name"),
    [
        ("torch.optim.Adam", {"amsgrad": True}, "amsgrad"),
        ("torch.optim.SGD", {"maximize": True}, "maximize"),
        ("torch.optim.RAdam", {"differentiable": True}, "differentiable"),
        ("torch.optim.SGD", {"betas": (0.9, 0.99)}, "betas"),
    ],
)
def test_a_setting_that_no_rule_follows_is_named(target, settings, name):
    with pytest.raises(ValueError, match=f"^{name} "):
        RULES[target].stack_settings([{}, settings])


def test_choices_of_implementation_are_ignored():
    assert "fused" not in RULES["torch.optim.Adam"].stack_settings([{"fused": True, "foreach": None, "amsgrad": False}])


def test_parameters_without_decay_are_a_second_call():
    rule, params, grads = RULES["torch.optim.AdamW"], draw(torch.float64, seed=0), draw(torch.float64, seed=1)
    hyper = rule.stack_settings([{"weight_decay": decay} for decay in (0.0, 0.1, 0.2, 0.3)])
    spared = {"bias": params["bias"]}
    moved, _ = rule.update(spared, grads, rule.init(spared, hyper), hyper | {"weight_decay": 0.0})
    # The first step of Adam has the size of lr in each coordinate.
    assert ((moved["bias"] - spared["bias"]).abs() - 1e-3).abs().max() <= 1e-8
