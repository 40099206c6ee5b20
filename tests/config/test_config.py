import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlx.config import Config, ConfigError, UserError, build, compose, instantiate
from dlx.config.overrides import parse
from dlx.config.signature import accepted_specs, read
from dlx.config.yaml import dump_yaml, read_yaml


def test_signatures_are_read_without_importing():
    signature = read("torch.optim.Adam")
    assert signature.path == "torch.optim.adam.Adam"
    assert "torch.optim.optimizer.Optimizer" in signature.ancestors
    assert signature.params["lr"].default == 1e-3
    assert signature.params["params"].required
    assert read("dlx.models.vision.resnet.ResNet").params["depth"].default is None
    any_samples = ("LabeledImages", "LabeledReals", "RegressionReals")  # in the order of the source: a message has it
    assert accepted_specs("dlx.models.mlp.MLP") == tuple(f"dlx.tasks.spec.{name}" for name in any_samples)
    assert read("dlx.data.digits.Digits").spec == "dlx.tasks.spec.LabeledImages"
    assert read("dlx.nowhere.Nothing") is None


def test_defaults_are_written_in_and_values_converted():
    config = compose(["model=mlp", "optim.betas=[0,1]"])
    assert config["optimizer"]["betas"] == [0.0, 1.0]
    assert all(isinstance(beta, float) for beta in config["optimizer"]["betas"])
    assert config["optimizer"]["eps"] == 1e-8
    assert config["dataset"]["split_seed"] == 0
    assert config.choices["trainer"] == "recipe/mlp"


def test_the_command_line_wins_over_what_a_model_picks():
    assert compose(["model=resnet"]).choices["scheduler"] == "cosine"
    config = compose(["scheduler=constant", "model=resnet", "optim=sgd"])
    assert (config.choices["scheduler"], config["optimizer"]["_target_"]) == ("constant", "torch.optim.SGD")


def test_an_experiment_chooses_regularizers_too():
    config = compose(["experiment=resnet_cifar10"])
    assert config.choices["regularization"] == ["augmentation"]
    assert config["regularization"]["augmentation"]["crop"] == 4
    assert config["trainer"]["max_steps"] == 64000


def test_short_names_everywhere():
    config = compose(["data.batch_size=8", "+optim.eps=1e-6", "++reg.mixup.alpha=0.5", "reg=mixup", "model=mlp"])
    assert config["dataset"]["batch_size"] == 8
    assert config["optimizer"]["eps"] == 1e-6
    assert config["regularization"]["mixup"]["alpha"] == 0.5


def test_a_frozen_configuration_loads_as_it_was(tmp_path):
    config = compose(["model=resnet", "reg=[mixup]", "name=1e3", "optim.lr=2e-5"])
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert Config.load(path).values == config.values


@given(st.text(max_size=20) | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.booleans())
def test_yaml_round_trip(value):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.yaml")
        path.write_text(dump_yaml({"a": value}), encoding="utf-8", newline="")
        read_back = read_yaml(path)["a"]
    assert (read_back, type(read_back)) == (value, type(value))


def test_from_a_run_keeps_frozen_blocks(tmp_path):
    base = compose(["model=mlp", "model.hidden=[7]", "optim.lr=0.5", "seed=9"])
    config = compose(["optim=sgd", "reg=[dropout]"], base=base)
    assert config["model"]["hidden"] == [7]
    assert config["model"]["dropout"] == 0.5
    assert config["optimizer"]["_target_"] == "torch.optim.SGD"
    assert config["seed"] == 9
    assert compose([], base=base).values == base.values


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40))
def test_no_argument_makes_the_parser_raise(text):
    overrides, problems = parse([text])
    assert len(overrides.choices) + len(overrides.values) + len(problems) == 1


@given(st.from_regex(r"[a-z~/\\äöü][a-z0-9 ~/\\äöü._-]{0,20}", fullmatch=True))
def test_text_arrives_as_it_was_typed(text):
    (value,) = parse([f"name={text}"])[0].values
    assert value.raw == text


SINKS = [
    "os.system", "posix.system", "logging.os.system", "subprocess.run", "subprocess.Popen", "builtins.eval",
    "builtins.exec", "builtins.open", "pickle.loads", "timeit.timeit", "code.InteractiveInterpreter.runsource",
    "pathlib.Path.write_text", "shutil.copyfile", "shutil.rmtree", "urllib.request.urlretrieve",
    "logging.FileHandler", "sqlite3.connect", "importlib.import_module",
]  # fmt: skip


@pytest.mark.parametrize("target", SINKS)
def test_dangerous_targets_are_refused_before_import(target):
    with pytest.raises(ConfigError, match="allowed package"):
        compose([f"model._target_={target}"])
    with pytest.raises(ConfigError, match="allowed package"):
        instantiate({"_target_": target}, base=object, key="model")


@pytest.mark.parametrize(
    "target",
    ["dlx.runs.files.os.system", "dlx.random.derive", "dlx.runs.folder.subprocess.Popen", "torch.optim.sgd.sgd"],
)
def test_aliases_and_functions_inside_allowed_packages_are_refused(target):
    with pytest.raises((ConfigError, ModuleNotFoundError)) as caught:
        instantiate({"_target_": target}, base=object, key="model")
    assert caught.type is ConfigError
    with pytest.raises(ConfigError):
        compose([f"model._target_={target}"])


@pytest.mark.parametrize(
    "word",
    [
        "model.hidden=[{_target_: os.system}]",
        "optim.players={a: {_target_: os.system}}",
        "model._partial_=true",
        "+model._args_=[1]",
    ],
)
def test_values_name_no_classes(word):
    with pytest.raises(ConfigError):
        compose(["model=mlp", word])


def test_a_class_of_another_kind_is_refused():
    with pytest.raises(ConfigError, match="is not a subclass of System"):
        compose(["model._target_=dlx.optim.schedules.Cosine"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x\n", "line 2: .*aliases"),
        ("a: 1\na: 2\n", "line 2: .*there twice"),
        ("[" * 200, "broken YAML|nested too deep"),
        ("a: !!python/object/apply:os.system [ls]\n", "broken YAML"),
        ("a: [1\nb: 2\n", "line 2"),
    ],
)
def test_hostile_yaml(text, message, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_yaml(path)


def test_floats_are_floats(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: 1e-3\nb: 3\nc: 1.5\nd: 1e3x\n")
    assert read_yaml(path) == {"a": 1e-3, "b": 3, "c": 1.5, "d": "1e3x"}


def test_constructor_errors_name_key_and_file():
    with pytest.raises(ConfigError) as caught:
        build(compose(["optim.lr=-1"]), "optimizer", params=[])
    assert caught.value.problems[0].key in ("optimizer.lr", "optimizer")


def test_the_working_directory_and_hydra_are_left_alone(here):
    from hydra.core.global_hydra import GlobalHydra

    compose(["model=mlp"])
    assert not GlobalHydra.instance().is_initialized()
    assert list(here.iterdir()) == []


def test_model_files_hold_only_picks_and_the_model():
    from dlx.config.groups import conf_path

    for path in (conf_path() / "model").rglob("*.yaml"):
        assert set(read_yaml(path)) <= {"defaults", "model"}, path
        assert path.read_text().startswith("# @package _global_\n# "), path


COMPUTED = """
from dlx.tasks.spec import LabeledImages
from dlx.tasks.supervised import Supervised

WIDTH = 7


class Net(Supervised):
    def __init__(
        self, *, spec: LabeledImages, width: int = WIDTH, rate: float = 1 / 3, loss: str | None = None
    ) -> None:
        super().__init__(spec=spec, loss=loss)
"""


def test_a_default_that_is_no_literal_is_left_to_the_constructor(tmp_path, monkeypatch):
    """A named constant is read; an expression is not written into the configuration, least of all as null."""
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "computed_pkg/__init__.py": "",
        "computed_pkg/net.py": COMPUTED,
        "mine/model/net.yaml": "# @package _global_\n# Net.\nmodel:\n  _target_: computed_pkg.net.Net\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    config = compose(["model=net"], conf_dirs=["mine"], trust=["computed_pkg"])
    assert config["model"] == {"_target_": "computed_pkg.net.Net", "width": 7, "loss": None}
