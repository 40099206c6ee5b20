"""What is composed, what it is checked for, and that it survives being written and read."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dlx.config import Config, ConfigError, UserError, compose
from dlx.config.groups import GROUPS, conf_path, options
from dlx.config.yaml import read_yaml

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CHOICES = [(group, name) for group in GROUPS for name in options(group)]
LACKS_DROPOUT = "Linear has no dropout, which conf/regularization/dropout.yaml sets"


@pytest.fixture(scope="module")
def config():
    return compose(["model=mlp"])


def message(*overrides: str, **more) -> str:
    with pytest.raises(UserError) as caught:
        compose(overrides, **more)
    return str(caught.value)


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_option_composes_and_is_complete(group, name, alone):
    config = compose(alone(group, name))
    assert config.choices[group] == ([name] if GROUPS[group].many else name)
    for other, definition in GROUPS.items():
        if not definition.optional and not definition.many:
            assert "_target_" in config[other]
    assert {"batch_size", "split_seed"} <= config["dataset"].keys()


def test_a_part_that_a_recipe_names_keeps_no_keys_of_the_models_own():
    """conf/model/simclr.yaml has an encoder with a width, which the recipe's has not."""
    own = read_yaml(conf_path() / "model" / "simclr.yaml")["model"]["encoder"]
    encoder = compose(["experiment=simclr_cifar10"])["model"]["encoder"]
    assert own["name"] != encoder["name"] == "resnet"
    assert "width" in own
    assert "width" not in encoder
    assert encoder["depth"] == 18


@pytest.mark.parametrize("path", sorted(conf_path().rglob("*.yaml")), ids=lambda p: str(p.relative_to(conf_path())))
def test_every_file_says_what_it_is(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ")
    assert len(lines[0]) > 20
    if path.parent.name == "model":
        assert set(read_yaml(path)) <= {"defaults", "model"}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("optm=adam", "optm: unknown key; did you mean optim? (conf/config.yaml)"),
        ("epochs=3", "epochs: unknown key; did you mean trainer.epochs? (conf/config.yaml)"),
        ("optim.lr=abc", "optimizer.lr: must be a number, got 'abc'"),
        ("optim.lr=true", "optimizer.lr: must be a number, got True"),
        ("seed=1.5", "seed: must be an integer, got 1.5"),
        ("seed=true", "seed: must be an integer, got True"),
        ("optim.betas=[0,0.9,1]", "optimizer.betas: must be a list of 2 numbers, got [0, 0.9, 1]"),
        ("model.hidden=[64,a]", "model.hidden: must be a list of integers, got [64, 'a']"),
        ("model.hidden=null", "model.hidden: must be a list of integers, got None"),
        ("optim=adam optimizer=sgd", "optimizer: is chosen twice: adam and sgd"),
        ("reg=[mixup,mixup]", "regularization: mixup is given twice"),
        ("reg.mixup.alpha=1", "regularization.mixup: is set, but mixup is not chosen; add reg=[mixup]"),
        ("optim.lr=1e-3,1e-4", "optimizer.lr: takes one value in one run, got 1e-3,1e-4"),
        ("model.hidden=range(3)", "model.hidden: takes one value in one run, got range(3)"),
        (
            "model=resnet data=function1d",
            "model: ResNet takes LabeledImages, but dataset function1d holds RegressionReals (it lacks image, label)",
        ),
        ("data=image_folder", "dataset.path: has no default: give data.path=... (conf/dataset/image_folder.yaml)"),
        ("model.x._target_=os.system", "model.x: MLP has no such key"),
        ("optim.players.g.lr=abc", "optimizer.players.g.lr: must be a number, got 'abc'"),
        ("optim.players.g=3", "optimizer.players.g: must be settings such as {lr: 1e-3}, got 3"),
        ("optim.players.g.momentum=0.9", "optimizer.players.g.momentum: Adam has no such key"),
        ("model=linear reg=[dropout]", f"model.dropout: {LACKS_DROPOUT} (conf/regularization/dropout.yaml)"),
        ("model=../../x", "model: there is no option '../../x'; Available options: "),
        ("model.hidden=[", "model.hidden=[: cannot be read"),
        ("seed.x=1", "seed.x: seed is a value and has no keys"),
        ("optim.lr=${nope}", "optimizer.lr: ${nope} cannot be resolved"),
        ("~model", "model: is required and cannot be null"),
        ("+hydra.x=1", "+hydra.x=1: dlx has no settings of Hydra's; `dlx config`"),
    ],
)
def test_a_mistake_is_one_line(overrides, expected):
    text = message(*overrides.split())
    assert text.startswith(expected)
    assert "\n" not in text


def test_all_mistakes_come_at_once_with_their_owners():
    text = message("model=resnet", "model.depht=3", "+optim.momentum=1", "seeed=0", "trainer.epochs=true")
    assert "model.depht: ResNet has no such key; did you mean depth?" in text
    assert "(conf/model/resnet.yaml)" in text
    assert "optimizer.momentum: Adam has no such key" in text
    assert "seeed: unknown key; did you mean seed?" in text
    assert len(text.splitlines()) == 4
    first = message("optim=adm", "model=reznet")
    assert "did you mean adam?" in first
    assert "did you mean resnet?" in first
    assert "recipe/resnet" in first


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_non_finite_numbers_are_refused(value):
    assert message(f"optim.lr={value}").startswith("optimizer.lr: must be finite")


def test_values_take_their_annotated_types():
    config = compose(["optim.lr=1", "optim.betas=[0,0.9]", "name=1e3", "output_root=~/runs", "seed=0"])
    assert isinstance(config["optimizer"]["lr"], float)
    assert [type(beta) for beta in config["optimizer"]["betas"]] == [float, float]
    assert (config["name"], config["output_root"], config["seed"]) == ("1e3", "~/runs", 0)


def test_the_command_line_wins_over_a_models_picks():
    config = compose(["model=resnet", "optim=recipe/resnet", "optim.nesterov=true"])
    assert config["optimizer"]["lr"] == 0.1
    assert config["optimizer"]["momentum"] == 0.9
    assert config.choices["optimizer"] == "recipe/resnet"
    assert "momentum" not in compose(["model=resnet", "optim=adam"])["optimizer"]


def test_hydra_leaves_no_trace(monkeypatch, tmp_path):
    from hydra.core.global_hydra import GlobalHydra

    monkeypatch.chdir(tmp_path)
    compose(["model=cnn"])
    assert not GlobalHydra.instance().is_initialized()
    assert list(tmp_path.iterdir()) == []
    assert Path.cwd() == tmp_path


def test_neither_composing_nor_completing_imports_torch():
    code = (
        "import sys; from dlx.config.complete import complete; complete('optim.', ['model=resnet']);"
        "assert not {'torch', 'hydra'} & set(sys.modules);"
        "from dlx.config import compose; compose(['model=resnet']); from dlx.config.schema import json_schema;"
        "json_schema(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=conf_path().parent)


class TestBase:
    def test_unchanged_groups_keep_their_frozen_values(self):
        base = compose(["model=resnet", "model.depth=32", "data.batch_size=16", "optim.lr=0.5", "reg=[mixup]"])
        config = compose(["optim=sgd", "seed=3"], base=base)
        assert config["model"] == base["model"]
        assert config["dataset"] == base["dataset"]
        assert config["regularization"] == base["regularization"]
        assert config["optimizer"]["_target_"] == "torch.optim.SGD"
        assert config["optimizer"]["lr"] == 0.1
        assert config["seed"] == 3
        assert base["optimizer"]["lr"] == 0.5

    def test_own_folders_and_trust_are_kept(self, tmp_path):
        (tmp_path / "scheduler").mkdir()
        (tmp_path / "scheduler/slow.yaml").write_text("# A slow one.\n_target_: dlx.optim.schedules.Constant\n")
        base = compose(["scheduler=slow"], conf_dirs=[tmp_path])
        config = compose(["optim=sgd"], base=base)
        assert config.conf_dirs == (tmp_path,)
        assert config.choices["scheduler"] == "slow"

    @pytest.mark.parametrize(
        ("choices", "expected"),
        [
            ({"hydra.searchpath": "[file:///tmp]"}, "hydra.searchpath: unknown group"),
            ({"model": "../../x"}, "model: there is no option '../../x'"),
        ],
    )
    def test_choices_of_a_file_are_checked_before_hydra_sees_them(self, choices, expected):
        base = compose([])
        forged = Config(base.values, {**base.choices, **choices})
        assert message("optim=sgd", base=forged).startswith(expected)


class TestOwnFolder:
    def _write(self, folder, text):
        (folder / "model").mkdir()
        (folder / "model/mine.yaml").write_text(text)

    def test_broken_yaml(self, tmp_path):
        self._write(tmp_path, "# Mine.\nmodel:\n  a: [1\n")
        assert "mine.yaml, line 4: broken YAML" in message("model=mine", conf_dirs=[tmp_path])

    def test_unresolved_interpolation_names_its_key(self, tmp_path):
        self._write(
            tmp_path, "# @package _global_\n# Mine.\nmodel:\n  _target_: dlx.models.mlp.MLP\n  dropout: ${no}\n"
        )
        assert message("model=mine", conf_dirs=[tmp_path]) == "model.dropout: Interpolation key 'no' not found"

    def test_a_misspelt_pick(self, tmp_path):
        self._write(tmp_path, "# @package _global_\n# Mine.\ndefaults: [override /optimizer: adm]\n")
        assert "optimizer/adm" in message("model=mine", conf_dirs=[tmp_path])

    def test_wrong_values_name_the_file(self, tmp_path):
        self._write(tmp_path, "# @package _global_\n# Mine.\nmodel:\n  _target_: dlx.models.mlp.MLP\n  dropout: abc\n")
        text = message("model=mine", conf_dirs=[tmp_path])
        assert text == f"model.dropout: must be a number, got 'abc' ({tmp_path}/model/mine.yaml, line 5)"


class TestRoundTrip:
    @QUICK
    @given(
        name=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]))
        | st.sampled_from(["1e3", "on", "~", "\x85", "a\u2028b", "2026-11-24", "0x1", "1_0", "a\nb", "- x", "${x}"]),
        lr=st.floats(allow_nan=False, allow_infinity=False),
        hidden=st.lists(st.integers(1, 10**6), min_size=1),
    )  # fmt: skip
    def test_what_is_written_is_read(self, name, lr, hidden, tmp_path, config):
        values = {**config.values, "name": name}
        values["optimizer"] = {**values["optimizer"], "lr": lr}
        values["model"] = {**values["model"], "hidden": hidden}
        path = tmp_path / "config.yaml"
        path.write_text(Config(values, config.choices).to_yaml(), encoding="utf-8")
        loaded = Config.load(path)
        assert loaded.values == values
        assert math.copysign(1, loaded["optimizer"]["lr"]) == math.copysign(1, lr)
        assert loaded.choices == config.choices

    def test_lists_that_two_blocks_share(self, config):
        shared = [0.5]
        text = Config({"a": shared, "b": shared}, config.choices).to_yaml()
        assert text.startswith("format: 1\na:\n- 0.5\nb:\n- 0.5\n")


def load(tmp_path, text: str | bytes) -> str:
    """The message about such a file"""
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        Config.load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]", "line 2: broken YAML: aliases"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deep"),
        ("seed: 1\nseed: 2", "line 2: broken YAML: key 'seed' is there twice"),
        ("a: !!python/object/apply:os.system [touch x]", "broken YAML"),
        ("[1]: 2", "a key must be a string"),
        ("? {a: 1}\n: 2", "a key must be a string"),
        ("a: [1\nb: 2", "line 2: broken YAML"),
        ("a: \x00", "broken YAML"),
        (b"a: \xff", "line 1: byte 0xff is not UTF-8"),
        ("", "no `choices`"),
        ("choices: 3", "no `choices`"),
        ("choices: {regularization: 3}", "choices.regularization: 3 cannot be chosen"),
        ("choices: {model: [a]}", "choices.model: ['a'] cannot be chosen"),
        ("choices: {hydra.searchpath: x}", "choices.hydra.searchpath"),
        (b"#" * (2 << 20), "larger than"),
    ],
)
def test_files_from_elsewhere(text, expected, tmp_path):
    assert expected in load(tmp_path, text)


def test_a_loaded_file_is_checked_as_strictly(tmp_path):
    text = compose(["model=mlp"]).to_yaml()
    assert "model.depht: MLP has no such key" in load(tmp_path, text.replace("  dropout:", "  depht:"))
    assert "must be a number" in load(tmp_path, text.replace("lr: 0.003", "lr: abc"))
    assert "model._target_: 'evil.Net' is not in" in load(tmp_path, text.replace("dlx.models.mlp.MLP", "evil.Net"))
    assert "trust: unknown key" in load(tmp_path, text + "trust: [evil]\n")


def test_yaml_of_any_kind_is_a_config_or_a_message(tmp_path):
    @QUICK
    @given(st.text(alphabet="a1:[]{}-&*!?'\"\n #,|>~", max_size=30))
    def try_it(text):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        with pytest.raises(UserError):
            Config.load(path)

    try_it()


def test_problems_are_structured():
    with pytest.raises(ConfigError) as caught:
        compose(["model.depht=3"])
    (problem,) = caught.value.problems
    assert (problem.key, problem.file) == ("model.depht", "conf/model/mlp.yaml")
