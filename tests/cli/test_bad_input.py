"""One clear message, exit code 2, nothing written."""

from pathlib import Path

import pytest

CASES = {
    "unknown key": (["model.depht=3"], ["model.depht", "did you mean depth?", "conf/model/resnet.yaml"]),
    "unknown key with +": (["+model.depht=3"], ["model.depht", "did you mean depth?"]),
    "unknown top key": (["optm=adam"], ["optm", "did you mean optim?"]),
    "misspelt option": (["optim=adm"], ["optimizer", "did you mean adam?", "Available options"]),
    "misspelt regularization": (["reg=[mixp]"], ["regularization", "did you mean mixup?"]),
    "misspelt experiment": (["experiment=resnet_cifar"], ["experiment", "did you mean resnet_cifar10?"]),
    "wrong type": (["optim.lr=abc"], ["optimizer.lr", "must be a number", "'abc'"]),
    "wrong type of list": (["optim.betas=3"], ["optimizer.betas"]),
    "true is no number": (["trainer.epochs=true"], ["trainer.epochs", "must be an integer"]),
    "not finite": (["optim.lr=inf"], ["optimizer.lr", "must be finite"]),
    "wrong choice": (["model.shortcut=projektion"], ["model.shortcut", "did you mean projection?"]),
    "lr below 0": (["optim.lr=-1"], ["optimizer.lr: must be at least 0, got -1.0\n"]),
    "no epochs": (["trainer.epochs=0"], ["trainer.epochs", "must be at least 1"]),
    "dropout above 1": (["model=mlp", "model.dropout=1.5"], ["model.dropout", "must be in [0, 1), got 1.5"]),
    "bad depth": (["model.depth=21"], ["model.depth", "20"]),
    "no such device": (["trainer.device=cuda:99"], ["trainer.device"]),
    "bad interval": (["trainer.checkpoint_every=often"], ["trainer.checkpoint_every", "5min"]),
    "a sweep": (["optim.lr=1,2"], ["optimizer.lr", "takes one value"]),
    "null for a group": (["model=null"], ["model", "is required"]),
    "two of a group": (["optim=sgd", "optimizer=adam"], ["optimizer", "chosen twice"]),
    "deleted group": (["~dataset"], ["dataset", "is required"]),
    "not an override": (["resnet"], ["resnet", "key=value"]),
    "hydra's own": (["hydra.run.dir=x"], ["hydra"]),
    "missing interpolation": (["model.depth=${nothing}"], ["model.depth"]),
    "key of what is not chosen": (["reg.mixup.alpha=1"], ["regularization.mixup", "add reg=[mixup]"]),
    "model without dropout": (["model=linear", "reg=[dropout]"], ["model.dropout", "conf/regularization/dropout.yaml"]),
    "model does not fit data": (
        ["data=function1d"],
        ["ResNet takes LabeledImages", "function1d holds RegressionReals", "it lacks image, label"],
    ),
    "batch larger than data": (["data.subset=20"], ["dataset.batch_size"]),
    "bad accumulation": (["trainer.accumulate=5"], ["trainer.accumulate", "32"]),
    "foreign target": (["model._target_=os.system"], ["model._target_", "allowed package"]),
    "a function": (["model._target_=dlx.random.derive"], ["model._target_"]),
    "nested target": (["optim.players={a: {_target_: os.system}}"], ["optimizer.players"]),
    "two monitors": (
        ["reg=[early_stopping]", "reg.early_stopping.monitor=val/loss:min", "trainer.monitor=val/accuracy:max"],
        ["what is best is said in several ways"],
    ),
    "missing class": (["model._target_=dlx.models.mlp.MPL"], ["did you mean MLP?"]),
}


@pytest.mark.parametrize("name", CASES)
def test_the_message_names_key_and_remedy(name, dlx_call, here):
    arguments, expected = CASES[name]
    model = [] if any(word.startswith(("model=", "~model")) for word in arguments) else ["model=resnet"]
    call = dlx_call("train", *model, *arguments)
    assert call.code == 2, call.err
    for text in expected:
        assert text in call.err
    assert "Traceback" not in call.err
    assert len(call.err.splitlines()) <= 5
    assert list(here.iterdir()) == []


def test_all_mistakes_at_once(dlx_call):
    call = dlx_call("train", "model=resnet", "model.depht=3", "optim.lr=abc", "seeed=1")
    assert call.err.count("error: ") == 3


def test_a_misspelt_option_hides_no_other_mistake(dlx_call):
    call = dlx_call("train", "model=resnet", "optim=adm", "optim.lr=abc", "model.depht=3", "trainer.epochs=x")
    assert "did you mean adam?" in call.err
    assert "model.depht" in call.err
    assert "trainer.epochs" in call.err
    assert "optimizer.lr" not in call.err  # which optimizer it belongs to is not known
    call = dlx_call("train", "model=resnt", "trainer.epochs=x", "optim.lr=abc")
    assert call.err.count("error: ") == 2


def test_broken_yaml_of_an_inherited_option_names_file_and_line(dlx_call, here):
    for name, text in {"base": "# Bad.\na: [1, 2\nb: 3\n", "top": "defaults: [/trainer/base@_here_, _self_]\n"}.items():
        Path("mine/trainer").mkdir(parents=True, exist_ok=True)
        Path(f"mine/trainer/{name}.yaml").write_text(text)
    call = dlx_call("train", "--conf-dir", "mine", "trainer=top")
    assert call.code == 2
    assert "trainer/base.yaml, line" in call.err


def test_zero_is_a_seed_and_text_stays_text(dlx_call):
    out = dlx_call("config", "seed=0", "name=1e3").out
    assert "seed: 0\n" in out
    assert "name: '1e3'" in out or "name: 1e3\n" in out


def test_broken_yaml_names_file_and_line(dlx_call, here):
    Path("mine/model").mkdir(parents=True)
    Path("mine/model/bad.yaml").write_text("# A bad file.\nmodel:\n  a: [1, 2\n  b: 3\n")
    call = dlx_call("train", "--conf-dir", "mine", "model=bad")
    assert call.code == 2
    assert "mine/model/bad.yaml, line" in call.err


@pytest.mark.parametrize("command", ["resume", "eval"])
def test_unknown_run(command, dlx_call):
    call = dlx_call(command, "nothing")
    assert call.code == 2
    assert "nothing" in call.err


def test_missing_file_and_folder(dlx_call, tiny):
    assert "no such folder" in dlx_call("train", "--conf-dir", "nowhere").err
    dlx_call("train", *tiny)
    call = dlx_call("predict", "@last", "nowhere.png")
    assert call.code == 2
    assert "nowhere.png" in call.err


@pytest.mark.parametrize("target", ["os.system", "subprocess.Popen", "builtins.eval", "dlx.cli.sys.exit", "evil.Net"])
def test_a_run_folder_from_elsewhere_cannot_name_other_targets(target, dlx_call, only_run, tiny):
    dlx_call("train", *tiny)
    config = only_run() / "config.yaml"
    config.write_text(config.read_text().replace("dlx.models.mlp.MLP", target))
    for command in (["eval", "@last"], ["resume", "@last"], ["train", "--from", "@last"]):
        call = dlx_call(*command)
        assert call.code == 2, command
        assert "model._target_" in call.err


def test_an_output_root_that_cannot_be_is_said(dlx_call, here, tiny):
    (here / "file").write_text("")
    for root in ("file", "file/sub", "/proc/x"):
        call = dlx_call("train", *tiny, f"output_root={root}")
        assert call.code == 2, call.err
        assert "output_root: cannot write to" in call.err
    (here / "outputs").mkdir()
    (here / "outputs" / "mlp").write_text("")
    assert "output_root: cannot write to" in dlx_call("train", *tiny).err


def test_one_damaged_run_does_not_hide_the_others(dlx_call, only_run, tiny):
    dlx_call("train", *tiny)
    for name in ("status.json", "summary.json"):
        (only_run() / name).write_text("{junk")
    call = dlx_call("runs")
    assert call.code == 0, call.err
    assert "lost" in call.out


def test_what_is_no_image_is_said_without_python(dlx_call, here, tiny):
    dlx_call("train", *tiny)
    (here / "text.png").write_text("text")
    call = dlx_call("predict", "@last", "text.png")
    assert call.code == 2
    assert "no image of a known format" in call.err
    assert dlx_call("eval", "@last", "--sharpness", "--epsilon", "-1").code == 2


@pytest.mark.parametrize(("count", "got"), [(1293, "(1293,)"), (1, "(1,)")])
def test_a_misplaced_weights_file_is_told_what_it_should_be(count, got, dlx_call, here):
    """Digits are 1,797; those that are trained on are not what the file is about."""
    import numpy as np

    np.save("w.npy", np.ones(count))
    call = dlx_call("train", "model=mlp", "data.weights=w.npy", "--dry-run")
    assert call.code == 2
    (line,) = call.err.splitlines()
    assert "w.npy: must be 1797 numbers, one number for each sample of the whole source, before val and test" in line
    assert line.endswith(f"got shape {got}")
    np.save("w.npy", np.ones(1797))
    assert dlx_call("train", "model=mlp", "data.weights=w.npy", "--dry-run").code == 0
