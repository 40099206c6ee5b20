"""What a sweep's words mean: members, their names, and all mistakes at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlx.config import compose
from dlx.config.errors import ConfigError
from dlx.sweeps.grid import combine, compose_points, name_of, read_axes


def members(*words, **how):
    axes = read_axes(words)
    return combine(axes, **how)


def test_a_grid_is_the_product_and_the_last_key_is_fastest():
    assert members("model=mlp,linear", "optim.lr=1e-3,1e-2", "trainer.epochs=2") == [
        ["model=mlp", "optim.lr=0.001", "trainer.epochs=2"],
        ["model=mlp", "optim.lr=0.01", "trainer.epochs=2"],
        ["model=linear", "optim.lr=0.001", "trainer.epochs=2"],
        ["model=linear", "optim.lr=0.01", "trainer.epochs=2"],
    ]


def test_ranges_lists_and_globs():
    assert members("seed=range(3)") == [["seed=0"], ["seed=1"], ["seed=2"]]
    assert members("model.hidden=[8],[8,8]") == [["model.hidden=[8]"], ["model.hidden=[8,8]"]]
    assert members("reg=[mixup],[mixup,dropout]")[1] == ["reg=[mixup,dropout]"]
    assert members("optim=glob(adam*)") == [["optim=adam"], ["optim=adamp"], ["optim=adamw"]]
    assert members("optim=glob(adam*,exclude=*p)") == [["optim=adam"], ["optim=adamw"]]
    assert members("name=a") == [["name=a"]]


def test_pairs():
    words = ("optim.lr=1,2", "seed=3,4", "name=a")
    assert members(*words, paired=True) == [["optim.lr=1", "seed=3", "name=a"], ["optim.lr=2", "seed=4", "name=a"]]
    with pytest.raises(ConfigError, match=r"--zip: needs as many values for each key; optimizer\.lr has 2, seed has 3"):
        members("optim.lr=1,2", "seed=range(3)", paired=True)


@given(st.integers(1, 12), st.integers(0, 5))
def test_a_draw_is_of_different_members_and_the_same_each_time(count, seed):
    words = ("optim.lr=1,2,3", "seed=range(4)")
    drawn = members(*words, draw=count, seed=seed)
    assert len({tuple(member) for member in drawn}) == count
    assert all(member in members(*words) for member in drawn)
    assert drawn == members(*words, draw=count, seed=seed)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["seed=range(0)"], "seed: range(0) has no values"),
        (["model=glob(nothing*)"], "model: glob(nothing*) has no values"),
        (["optim.lr=interval(0,1)"], "optimizer.lr: interval(0,1) is for a search"),
        (["optim.lr=glob(*)"], "optimizer.lr: a glob is for a group's options"),
    ],
)
def test_what_has_no_members_is_said(words, text):
    with pytest.raises(ConfigError) as caught:
        members(*words)
    assert text in str(caught.value)


def test_a_draw_of_too_many_is_said():
    with pytest.raises(ConfigError, match="--random: 7 of a grid of 6 cannot be drawn"):
        members("seed=range(6)", draw=7)


def test_members_are_what_each_composes_alone():
    axes = read_axes(["model=mlp,linear", "optim=sgd", "optim.lr=1e-3,1e-2", "trainer.epochs=2"])
    words = combine(axes)
    points = compose_points(words, axes)
    assert [point.name for point in points] == [name_of(n, member, axes) for n, member in enumerate(words)]
    for point, member in zip(points, words, strict=True):
        alone = compose(member)
        assert (point.config.values, point.config.choices) == (alone.values, alone.choices)
    assert points[2].name == "002-model-linear-lr-0.001"
    assert points[2].differs == {"model": "linear", "optimizer.lr": 0.001}


def test_equal_configurations_are_one_point():
    axes = read_axes(["model=mlp", "optim.lr=1e-3,0.001,1,1.0", "name=a,b"])
    points = compose_points(combine(axes), axes)
    assert [point.name for point in points] == ["000-lr-0.001-name-a", "001-lr-1-name-a"]


def test_a_required_value_may_be_among_the_swept():
    axes = read_axes(["model=mlp", "data=image_folder", "data.path=a,b"])
    assert [point.config["dataset"]["path"] for point in compose_points(combine(axes), axes)] == ["a", "b"]


def test_mistakes_of_all_members_are_said_once():
    axes = read_axes(["optim=adam,adamw", "optim.lr=1e-3,abc", "trainer.epochz=1"])
    with pytest.raises(ConfigError) as caught:
        compose_points(combine(axes), axes)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(set(lines)) == 2
    assert any("trainer.epochz" in line for line in lines)
    assert any("optimizer.lr: must be a number, got 'abc'" in line for line in lines)


def test_an_interpolation_takes_the_swept_value():
    axes = read_axes(["optim.lr=0.1,0.01", "optim.weight_decay=${optimizer.lr}"])
    found = compose_points(combine(axes), axes)
    assert [point.config["optimizer"]["weight_decay"] for point in found] == [0.1, 0.01]
