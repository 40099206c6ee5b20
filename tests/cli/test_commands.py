import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def test_eval_equals_what_training_said(dlx_call, tiny):
    trained = json.loads(dlx_call("train", *tiny, "--json").out)["metrics"]
    judged = json.loads(dlx_call("eval", "@last", "--json").out)["metrics"]
    for name, value in judged.items():
        assert trained[name] == pytest.approx(value, abs=1e-6)
    assert "val/accuracy" in dlx_call("eval", "@last", "--split", "val").out


def test_predict_reads_images_without_the_dataset(dlx_call, tiny):
    dlx_call("train", *tiny)
    Image.fromarray(np.full((20, 20), 200, np.uint8)).save("seven.png")
    call = dlx_call("predict", "@last", "seven.png")
    assert call.code == 0, call.err
    assert call.out.startswith("seven.png: ")
    assert call.out.count("%") == 3


def test_regression_trains_and_predicts(dlx_call, only_run):
    call = dlx_call("train", "model=mlp", "data=function1d", "trainer.max_steps=20")
    assert call.code == 0, call.err
    assert (only_run() / "media" / "fit-00000020.png").exists()
    Path("x.csv").write_text("0.1\n0.5\n")
    call = dlx_call("predict", "@last", "x.csv")
    assert len(call.out.splitlines()) == 2


def test_runs_lists_them(dlx_call, tiny):
    assert "no runs" in dlx_call("runs").out
    dlx_call("train", *tiny)
    assert "finished" in dlx_call("runs").out
    (row,) = json.loads(dlx_call("runs", "--json").out)
    assert row["metric"] == "test/accuracy"


def test_list_groups_and_options(dlx_call):
    assert "optimizer" in dlx_call("list").out
    out = dlx_call("list", "optim").out
    assert "recipe/resnet" in out
    assert "Kingma" in out
    assert "did you mean model?" in dlx_call("list", "modle").err


def test_show_prints_layers_and_totals(dlx_call):
    out = dlx_call("show", "model=resnet", "data=cifar10").out
    assert "269,722" in out
    assert "FLOPs" in out
    assert "64x8x8" in out


def test_schema_takes_every_option_and_refuses_a_misspelt_key(dlx_call):
    import jsonschema

    schema = json.loads(dlx_call("schema").out)
    config = json.loads(dlx_call("config", "model=resnet", "reg=[mixup]", "tracker=wandb", "--json").out)
    jsonschema.validate(config, schema)
    config["model"]["depht"] = 3
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config, schema)


def modules_after(*commands: list[str]) -> list[set[str]]:
    """What one process has imported after each of these commands."""
    code = (
        "import json, sys\n"
        "import dlx.cli\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    sys.argv = ['dlx', *words]\n"
        "    try: dlx.cli.main()\n"
        "    except SystemExit as end: assert not end.code, words\n"
        "    print('\\nMODULES', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)], capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("MODULES ")]
    assert len(lines) == len(commands)
    return [set(line.split()[1:]) for line in lines]


def test_imports_stay_light(here):
    dry = ["train", "--dry-run"]
    *listed, config, kfold, claim, trained = modules_after(
        ["--help"], ["list", "model"], ["config", "model=resnet", "optim=sgd"],
        [*dry, "model=mlp", "method=kfold"], [*dry, "experiment=learning_rate"],
        ["train", "model=mlp", "trainer.max_steps=2"],
    )  # fmt: skip
    for modules in listed:
        assert not modules & {"torch", "hydra", "numpy", "matplotlib"}
    assert "torch" not in config
    for modules in (kfold, claim):  # what draws is imported when it draws
        assert "matplotlib" not in modules
    assert "torch" in trained
    assert not trained & {"torchvision", "torchmetrics", "sklearn", "wandb"}


@pytest.mark.parametrize("command", ["train", "sweep", "resume"])
def test_help_names_all_executors(command, dlx_call):
    from dlx.sweeps.executors.execution import EXECUTORS

    words = dlx_call(command, "--help").out.replace(",", ":").replace("\n", " ")
    assert all(f" {name}:" in words for name in EXECUTORS)


def test_completion_knows_groups_options_and_keys():
    from dlx.config.complete import complete

    assert "model=" in complete("mo")
    assert complete("model=res") == ["model=resnet"]
    assert "reg=[mixup" in complete("reg=[mi")
    assert "reg=[mixup,dropout" in complete("reg=[mixup,dro")
    assert complete("model.dep", ["model=resnet"]) == ["model.depth="]
    assert complete("model.shortcut=p", ["model=resnet"]) == [
        "model.shortcut=projection",
        "model.shortcut=projection_all",
    ]
    assert "data.batch_size=" in complete("data.b")
