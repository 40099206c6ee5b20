"""Objects from blocks: only classes of allowed packages, and never before they were found allowed."""

from __future__ import annotations

import sys

import pytest
import torch

from dlx.config import ConfigError, build, build_all, build_shared, class_block, compose, instantiate

SYSTEM = "dlx.tasks.system.System"
# Section by section: shells, code, files, network, and the doors that a list of forbidden names leaves open.
SINKS = [
    "os.system", "posix.system", "subprocess.run", "subprocess.Popen", "logging.os.system", "builtins.eval",
    "builtins.exec", "builtins.open", "builtins.__import__", "pickle.loads", "timeit.timeit",
    "code.InteractiveInterpreter", "pathlib.Path.write_text", "shutil.copyfile", "urllib.request.urlretrieve",
    "logging.FileHandler",
    "sqlite3.connect", "torch.load",
]  # fmt: skip
ALIASES = [
    "dlx.cli.os.system", "dlx.config.build.importlib.import_module", "dlx.config.build.inspect",
    "dlx.config.groups.Path",
    "torch.optim.optimizer.torch.load", "torch.optim.optimizer.partial", "torch.optim.optimizer.defaultdict",
    "dlx.random.derive", "torch.nn.Linear", "dlxevil.Net", "dlx", "dlx..x", "dlx.nothing.X", "", None, 3, ["os.system"],
    {"_target_": "os.system"},
]  # fmt: skip


@pytest.mark.parametrize("target", [*SINKS, *ALIASES], ids=str)
def test_hostile_targets_are_refused(target, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        instantiate({"_target_": target, "args": ["touch x"]}, base=SYSTEM, key="model", file="some.yaml")
    text = str(caught.value)
    assert text.startswith("model._target_: ")
    assert text.endswith("(some.yaml)")
    if target in SINKS:
        assert "is not in an allowed package (dlx, torch.optim); --trust PKG" in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", SINKS)
def test_and_composing_refuses_them_too(target):
    for key in ("model", "optim", "trainer"):
        with pytest.raises(ConfigError, match=rf"_target_: '{target}' is not in"):
            compose([f"{key}._target_={target}"])
    with pytest.raises(ConfigError, match="allowed package"):
        compose([f"optim.players.g._target_={target}"])


@pytest.mark.parametrize(
    "override",
    [
        "model._partial_=true", "model._args_=[1]", "model.hidden=[{_target_: os.system}]", "+model._convert_=all",
        "model.activation={_target_: os.system}", "optim.players={g: {betas: {_target_: os.system}}}",
        "optim.players._target_=os.system",
        "reg=[mixup] reg.mixup.alpha={_target_: os.system}", "model._target_=${oc.env:HOME}",
        "reg.x={_target_: os.system}",
    ],
)  # fmt: skip
def test_nothing_hides_deeper(override):
    words = override.split(" ", 1) if override.startswith("reg=") else [override]
    with pytest.raises(ConfigError):
        compose(words)


def test_a_refused_package_is_never_imported(tmp_path, monkeypatch):
    (tmp_path / "evil_pkg.py").write_text("import pathlib; pathlib.Path('mark').touch()\nclass Net: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="allowed package"):
        instantiate({"_target_": "evil_pkg.Net"}, base=SYSTEM, key="model")
    assert "evil_pkg" not in sys.modules
    assert not (tmp_path / "mark").exists()


def test_a_trusted_class_that_re_exports_another_is_judged_by_its_own_module(tmp_path, monkeypatch):
    (tmp_path / "mine_pkg.py").write_text("from pathlib import Path\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="is not a class of an allowed package"):
        instantiate({"_target_": "mine_pkg.Path"}, base=object, trust=["mine_pkg"], key="model")


def test_a_class_of_another_kind_is_refused():
    with pytest.raises(ConfigError, match=r"model\._target_: torch\.optim\.Adam is not a subclass of System"):
        instantiate({"_target_": "torch.optim.Adam"}, base=SYSTEM, key="model")


@pytest.mark.parametrize("block", [{"_partial_": True}, {"x": 1}])
def test_arguments_that_the_class_does_not_take(block):
    schedule = {"_target_": "dlx.optim.schedules.Constant", **block}
    with pytest.raises(ConfigError, match=r"^scheduler: dlx\.optim\.schedules\.Constant: got an unexpected keyword"):
        instantiate(schedule, base="dlx.optim.schedules.Schedule", key="scheduler")


@pytest.mark.parametrize(
    ("option", "override", "key"),
    [
        ("adam", "optim.lr=-1", "lr"), ("adam", "optim.betas=[0.9,2]", "betas"), ("adam", "optim.eps=-1", "eps"),
        ("adam", "optim.weight_decay=-1", "weight_decay"), ("sgd", "optim.momentum=-1", "momentum"),
        ("adadelta", "optim.rho=2", "rho"), ("rmsprop", "optim.alpha=-1", "alpha"),
    ],
)  # fmt: skip
def test_what_torch_refuses_names_the_key(option, override, key):
    config = compose([f"optim={option}", override])
    with pytest.raises(ConfigError) as caught:
        build(config, "optimizer", params=[torch.nn.Parameter(torch.zeros(1))])
    (problem,) = caught.value.problems
    assert (problem.key, problem.file) == (f"optimizer.{key}", None)  # what was typed is no file's


def test_what_a_constructor_refuses_names_the_key():
    config = compose(["trainer.epochs=0"])
    with pytest.raises(ConfigError, match=r"^trainer\.epochs: must be at least 1, got 0$"):
        build(config, "trainer")
    with pytest.raises(ConfigError, match=r"^dataset\.batch_size: must be at least 1, got 0$"):
        build_shared(compose(["data.batch_size=0"]), "dataset")


def test_what_a_file_says_is_laid_on_its_line(tmp_path):
    """Also where an option begins with another one, and where an experiment sets what an optimizer refuses."""
    for name, text in {
        "optimizer/mine.yaml": "defaults: [/optimizer/adam@_here_, _self_]\nlr: -1\n",
        "experiment/mine.yaml": "# @package _global_\n# Mine.\ntrainer:\n  epochs: 0\n",
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    config = compose(["optim=mine", "experiment=mine"], conf_dirs=[tmp_path])
    with pytest.raises(ConfigError, match=rf"^optimizer\.lr: .* \({tmp_path}/optimizer/mine\.yaml, line 2\)$"):
        build(config, "optimizer", params=[torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(ConfigError, match=rf"^trainer\.epochs: .* \({tmp_path}/experiment/mine\.yaml, line 4\)$"):
        build(config, "trainer")


def test_all_of_a_configuration_is_built():
    config = compose(["model=mlp", "reg=[mixup]", "tracker=wandb", "optim=adamw"])
    dataset = build(config, "dataset")
    assert build(config, "model", spec=dataset.spec).spec is dataset.spec
    assert list(build_all(config, "regularization")) == ["mixup"]
    assert list(build_all(config, "tracker")) == ["wandb"]
    assert build_shared(config, "optimizer").no_decay == ("norm", "bias")
    assert build_shared(config, "dataset").batch_size == 32
    assert not {"no_decay", "players"} & class_block(config, "optimizer").keys()
    for group in ("trainer", "scheduler"):
        assert build(config, group) is not None


def test_trust_comes_from_the_person_only(tmp_path, monkeypatch):
    (tmp_path / "ours_pkg.py").write_text("class Net:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    with pytest.raises(ConfigError, match="is not a subclass of System"):
        instantiate({"_target_": "ours_pkg.Net"}, base=SYSTEM, trust=["ours_pkg"], key="model")
    assert sys.path.count(str(tmp_path)) == 1
    monkeypatch.setattr(sys, "path", before)
