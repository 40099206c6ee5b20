"""What the words of a search mean: bounds, scales, steps and choices, and all mistakes before it starts."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from dlx.config.errors import ConfigError
from dlx.sweeps.search.space import Dimension, Space, text_of


def only(word):
    (dimension,) = Space([word]).dimensions
    return dimension


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("interval(0,1)", FloatDistribution(0, 1)),
        ("int(interval(8,64))", IntDistribution(8, 64)),
        ("tag(log, interval(1e-4,1e-1))", FloatDistribution(1e-4, 0.1, log=True)),
        ("tag(log, int(interval(8,256)))", IntDistribution(8, 256, log=True)),
        ("range(3)", IntDistribution(0, 2)),
        ("range(9,1,-2)", IntDistribution(3, 9, step=2)),
        ("range(0,1,0.25)", FloatDistribution(0, 0.75, step=0.25)),
        ("range(0,0.3,0.1)", FloatDistribution(0, 0.2, step=0.1)),
    ],
)
def test_numbers(text, expected):
    assert only(f"optim.lr={text}") == Dimension("optimizer.lr", "optim.lr", expected)


def test_choices():
    assert only("model=mlp,linear") == Dimension("model", "model", CategoricalDistribution(["mlp", "linear"]))
    assert only("optim=glob(adam*)").distribution.choices == ("adam", "adamp", "adamw")
    assert only("model.hidden=[8],[8,8]").distribution.choices == ("[8]", "[8,8]")
    assert only("seed=shuffle(range(3))").distribution.choices == ("0", "1", "2")
    assert only("seed=1,2,1").distribution.choices == ("1", "2")


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(-9, 9))
def test_a_range_has_the_values_that_a_grid_has(start, stop, step):
    assume(step != 0 and len(range(start, stop, step)) > 1)
    found = only(f"seed=range({start},{stop},{step})")
    values = range(found.distribution.low, found.distribution.high + 1, found.distribution.step)
    assert set(values) == set(range(start, stop, step))


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_an_interval_keeps_its_bounds_to_the_bit(low, high):
    assume(low < high)
    found = only(f"optim.lr=interval({low!r},{high!r})")
    assert (found.distribution.low, found.distribution.high) == (low, high)
    assert all(low <= value <= high for value in found.tries)


@settings(max_examples=10, deadline=None)
@given(st.floats(1e-300, 1e300))
def test_a_value_reaches_the_configuration_to_the_bit(value):
    space = Space(["model=mlp", "optim.lr=interval(0,1)"])
    assert space.compose({"optimizer.lr": value})["optimizer"]["lr"] == value


def test_a_point_is_what_its_words_compose():
    space = Space(["model=mlp,linear", "optim.lr=interval(0,1)", "trainer.epochs=2"])
    config = space.compose({"model": "linear", "optimizer.lr": 0.25})
    assert config.choices["model"] == "linear"
    assert (config["optimizer"]["lr"], config["trainer"]["epochs"]) == (0.25, 2)
    assert space.name(7, {"model": "linear", "optimizer.lr": 0.012345}) == "007-model-linear-lr-0.0123"


def test_each_bound_and_choice_is_composed():
    space = Space(["model=mlp,linear", "optim.lr=interval(1,2)", "seed=range(1,6,2)"])
    found = [(c.choices["model"], c["optimizer"]["lr"], c["seed"]) for c in space.check()]
    assert found[0] == ("mlp", 1, 1)
    assert {("linear", 1, 1), ("mlp", 2, 1), ("mlp", 1, 5)} < set(found)


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["optim.lr=interval(3,1)"], ["optimizer.lr: must be from a lower to a higher number, got interval(3, 1)"]),
        (["optim.lr=interval(1,inf)"], ["must be from a lower to a higher number"]),
        (["optim.lr=tag(log,interval(0,1))"], ["optimizer.lr: tag(log, ...) needs a lower bound above 0, got 0"]),
        (["optim.lr=tag(lin,interval(0,1))"], ["unknown tag; the only tag is log"]),
        (["seed=tag(log,range(1,9,2))"], ["in steps of 1"]),
        (["seed=range(0)"], ["seed: range(0) has no values"]),
        (["optim.lr=interval(1)"], ["optimizer.lr: interval(1) cannot be read: missing a required argument"]),
        (["seed=1,2", "seed=range(3)"], ["seed: is given twice: seed=1,2 and seed=range(3)"]),
        (["model=mlp", "seed=range(1)"], ["--search: no key has several values"]),
        (["model=glob(nothing*)"], ["model: glob(nothing*) has no values"]),
        (["optim.lrr=interval(0,1)"], ["did you mean lr?"]),
        (["trainer.epochs=interval(1,9)"], ["trainer.epochs: must be an integer"]),
        (["trainer.epochs=interval(1,9)", "optim=adam,adm"], ["must be an integer", "did you mean adam?"]),
    ],
)
def test_mistakes_are_said_before_it_starts(words, texts):
    with pytest.raises(ConfigError) as caught:
        Space(words).check()
    assert all(text in str(caught.value) for text in texts), str(caught.value)
    assert len(str(caught.value).splitlines()) == len(texts)


def test_text():
    assert text_of(0.1 + 0.2) == "0.30000000000000004"
    assert text_of(0.1 + 0.2, 3) == "0.3"
    assert text_of("adam", 3) == "adam"
