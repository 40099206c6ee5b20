import math

import pytest

from dlx.optim.schedules import (
    Constant,
    Cosine,
    Linear,
    Plateau,
    Step,
    WarmupCosine,
    WarmupInverseSqrt,
    WarmupLinear,
    WarmupStep,
)


def test_closed_forms():
    assert Constant().factor(7, 10) == 1
    assert [Step(milestones=(0.5, 0.75)).factor(step, 8) for step in (0, 3, 4, 6)] == pytest.approx([1, 1, 0.1, 0.01])
    assert Cosine(final=0.1).factor(5, 10) == pytest.approx(0.55)
    assert Cosine().factor(10, 10) == pytest.approx(0, abs=1e-12)
    warm = WarmupCosine(warmup=0.5)
    assert [warm.factor(step, 8) for step in range(4)] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    steps = WarmupStep(warmup=0.25, milestones=(0.5, 0.75))
    assert [steps.factor(step, 8) for step in (0, 1, 3, 4, 6)] == pytest.approx([0.5, 1, 1, 0.1, 0.01])
    assert warm.factor(6, 8) == pytest.approx(0.5 * (1 + math.cos(math.pi / 2)))


def test_linear_decay_after_a_warm_up():
    schedule = WarmupLinear(warmup=0.1)
    assert [schedule.factor(step, 20) for step in (0, 1, 2, 11, 20)] == pytest.approx([0.5, 1, 1, 0.5, 0])
    assert WarmupLinear(warmup=0.0, final=0.2).factor(10, 10) == pytest.approx(0.2)


def test_the_rates_of_the_transformer():
    """Base, 512 wide, 4,000 steps to warm up, of 100,000: the paper's equation 3 by hand."""
    schedule, peak = WarmupInverseSqrt(warmup=0.04), (512 * 4000) ** -0.5
    rates = [peak * schedule.factor(step - 1, 100_000) for step in (1, 4000, 100_000)]
    assert rates == pytest.approx([1.7469e-7, 6.9877e-4, 1.39754e-4], rel=1e-4)


def test_plateau_waits_then_falls_and_remembers():
    plateau = Plateau(gamma=0.5, patience=1)
    for value in (1.0, 1.1, 1.2, 0.9, 0.95, 0.96):
        plateau.on_validation(value, "min")
    assert plateau.factor(0, 1) == 0.25
    other = Plateau(gamma=0.5, patience=1)
    other.load_state(plateau.state())
    assert other.factor(0, 1) == 0.25


def test_ranges():
    for make in (lambda: Step(gamma=2.0), lambda: Cosine(final=-1.0), lambda: WarmupCosine(warmup=1.5),
        lambda: WarmupLinear(warmup=2.0), lambda: WarmupInverseSqrt(warmup=0.0),
        lambda: WarmupStep(warmup=2.0)):  # fmt: skip
        with pytest.raises(ValueError, match="must be in"):
            make()


def test_linear_is_constant_for_half_of_the_training_then_falls_to_its_end():
    schedule = Linear()
    assert [schedule.factor(step, 200) for step in (0, 99, 100, 150, 200)] == pytest.approx([1, 1, 1, 0.5, 0])
    assert Linear(start=0.0, final=0.2).factor(10, 10) == pytest.approx(0.2)
    for bad in ({"start": 1.0}, {"final": -0.1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Linear(**bad)
