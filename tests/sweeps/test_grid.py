"""What a sweep's words mean: members, their names, and all mistakes at once."""

from pathlib import Path

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
    drawn = members(*words, sample=count, seed=seed)
    assert len({tuple(member) for member in drawn}) == count
    assert all(member in members(*words) for member in drawn)
    assert drawn == members(*words, sample=count, seed=seed)


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
    with pytest.raises(ConfigError, match="--sample: must be from 1 to 6, the size of the grid, got 7"):
        members("seed=range(6)", sample=7)


def test_members_are_what_each_composes_alone():
    axes = read_axes(["model=mlp,linear", "optim=sgd", "optim.lr=1e-3,1e-2", "trainer.epochs=2"])
    words = combine(axes)
    points = compose_points(words, axes)
    assert [point.name for point in points] == [name_of(n, member, axes) for n, member in enumerate(words)]
    for point, member in zip(points, words, strict=True):
        alone = compose(member)
        assert (point.config.values, point.config.choices) == (alone.values, alone.choices)
    assert points[2].name == "002-model-linear-lr-0.001"
    assert points[2].overrides == {"model": "linear", "optimizer.lr": 0.001}


def test_equal_configurations_are_one_point():
    axes = read_axes(["model=mlp", "optim.lr=1e-3,0.001,1,1.0", "name=a,b"])
    points = compose_points(combine(axes), axes)
    assert [point.name for point in points] == ["000-lr-0.001-name-a", "001-lr-1-name-a"]


def test_a_required_value_may_be_among_the_swept():
    axes = read_axes(["model=mlp", "data=image_folder", "data.path=a,b"])
    paths = [point.config["dataset"]["path"] for point in compose_points(combine(axes), axes)]
    assert paths == [str(Path("a").absolute()), str(Path("b").absolute())]


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("range(0.1,0.4,0.1)", [0.1, 0.2, 0.3]),
        ("range(0,1,0.3)", [0.0, 0.3, 0.6, 0.9]),
        ("range(0,0.9,0.3)", [0.0, 0.3, 0.6]),
        ("range(1e-4,4e-4,1e-4)", [0.0001, 0.0002, 0.0003]),
        ("range(1e-14,4e-14,1e-14)", [1e-14, 2e-14, 3e-14]),
        ("range(1,0,-0.25)", [1.0, 0.75, 0.5, 0.25]),
        ("range(3)", [0, 1, 2]),
        ("range(9,1,-3)", [9, 6, 3]),
        ("float(range(3))", [0.0, 1.0, 2.0]),
        ("sort(range(0,1,0.3),reverse=true)", [0.9, 0.6, 0.3, 0.0]),  # Hydra: 0.7, 0.4, 0.1, -0.2
        ("sort(range(0,10,3),reverse=true)", [9, 6, 3, 0]),  # Hydra: 7, 4, 1
        ("sort(range(3,0,-1))", [1, 2, 3]),
    ],
)
def test_a_range_has_its_numbers_as_they_are_written_and_not_its_end(text, expected):
    from dlx.sweeps.search.space import Space

    (axis,) = read_axes([f"optim.lr={text}"])
    assert [word.partition("=")[2] for word in axis.words] == [str(value) for value in expected]
    (found,) = Space([f"optim.lr={text}"]).dimensions  # a search draws from the same numbers
    low, high = found.distribution.low, found.distribution.high
    assert (low, high, found.count) == (min(expected), max(expected), len(expected))
    step = (high - low) / (len(expected) - 1)
    reached = [found.exact(low + n * step) for n in range(len(expected))]
    assert reached == sorted(map(type(expected[0]), expected)) if isinstance(expected[0], float) else True


def test_shuffled_ranges_keep_their_numbers():
    (axis,) = read_axes(["optim.lr=shuffle(range(0,1,0.3))"])
    assert sorted(axis.words) == [f"optim.lr={value}" for value in ("0.0", "0.3", "0.6", "0.9")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("range(0,1,0)", "has no values"),
        ("range(0,inf,1)", "must be of finite numbers"),
        ("range(1000000000)", "1,000,000,000 values, more than 100,000"),
    ],
)
def test_ranges_that_make_no_sweep(text, said):
    with pytest.raises(ConfigError) as caught:
        read_axes([f"seed={text}"])
    assert said in str(caught.value)


def test_a_grid_has_a_bound():
    with pytest.raises(ConfigError, match=r"1,000,000 members are more than 100,000"):
        combine(read_axes(["seed=range(1000)", "trainer.epochs=range(1000)"]))


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ([("optimizer.lr", "3.29e+08")], "000-lr-3.29e8"),
        ([("optimizer.lr", "3.29e-08")], "000-lr-3.29e-08"),
        ([("optimizer.lr", "1E+3")], "000-lr-1e3"),
        ([("optimizer.lr", "+5")], "000-lr-5"),
        ([("optimizer.lr", "-5")], "000-lr--5"),
        ([("optimizer.betas", "[+0.9,1e+0]")], "000-betas-0.9-1e0"),
        ([("model", "vgg"), ("model.x", "a+b")], "000-model-vgg-x-a-b"),
        ([("a", "x" * 30), ("b", "y" * 30), ("c", "1")], "000-a-" + "x" * 30),
    ],
)
def test_a_members_name_keeps_the_sign_of_its_exponent(values, name):
    from dlx.sweeps.grid import folder_name

    assert folder_name(0, values) == name


def test_what_sets_members_apart_has_its_own_type():
    words = ["model=mlp,linear", "optim.lr=1e-3", "trainer.compile=false", "reg=[mixup],[]", "trainer.clip_norm=1,null"]
    axes = read_axes(words)
    overrides = compose_points(combine(axes), axes)[0].overrides
    assert overrides == {"model": "mlp", "regularization": ["mixup"], "trainer.clip_norm": 1.0}
    assert type(overrides["trainer.clip_norm"]) is float


def test_every_plan_holds_values_of_the_same_types(dlx_call):
    """A grid's, a search's, a method's and a claim's."""
    from dlx.config.yaml import read_yaml

    small = ("model=mlp", "trainer.max_steps=1")
    lists = "model.hidden=[8],[4]"
    for words in (
        ("sweep", *small, "optim.lr=1e-3,0.5", lists),
        ("sweep", *small, "optim.lr=range(0.1,0.4,0.1)", lists, "--search", "random", "--trials", "2"),
        ("train", *small, "method=kfold", "method.k=2"),
        ("train", "experiment=batch_size", "data=digits", "data.subset=300", "experiment.sizes=[8,100]",
         "experiment.seeds=2", "experiment.rates=[0.01,0.05]", "trainer.epochs=1", "experiment.target=1.0"),
    ):  # fmt: skip
        assert dlx_call(*words).code in (0, 1)
    types = {
        "optimizer.lr": float, "model.hidden": list, "dataset.fold": int, "dataset.folds": int,
        "dataset.batch_size": int, "seed": int,
    }  # fmt: skip
    seen = set()
    for path in Path("outputs").glob("*/*/plan.yaml"):
        for differs in read_yaml(path)["members"].values():
            for key, value in differs.items():
                seen.add(key)
                assert key not in types or type(value) is types[key], (path, key, value)
    assert seen >= {"optimizer.lr", "model.hidden", "dataset.fold", "dataset.batch_size"}
