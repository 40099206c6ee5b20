"""Small things of daily use: --quiet, one run in a list, a run's system, a report's place, four digits."""

import json
from pathlib import Path

import pytest

SMALL = ("model=mlp", "model.hidden=[8]", "trainer.max_steps=3", "trainer.validate_every=1")


@pytest.mark.parametrize(
    "words",
    [
        ("train", *SMALL),
        ("train", *SMALL, "method=kfold", "method.k=2"),
        ("train", *SMALL, "--seeds", "2"),
        ("sweep", *SMALL, "seed=1,2"),
        ("sweep", *SMALL, "seed=1,2", "--executor", "batched"),
        ("sweep", *SMALL, "optim.lr=interval(0.1,1)", "--search", "random", "--trials", "2"),
        ("train", "experiment=linear_stays_linear", "experiment.seeds=1", "trainer.epochs=1"),
    ],
)
def test_quiet_says_what_came_out_alone(words, dlx_call):
    call = dlx_call(*words, "--quiet")
    assert call.code == 0, call.err
    assert call.err == ""
    assert "outputs/" in call.out
    assert len(dlx_call(*words).err.splitlines()) >= 1


def test_resume_is_quiet_too(dlx_call):
    dlx_call("train", *SMALL, "scheduler=constant")
    call = dlx_call("resume", "@last", "trainer.max_steps=6", "--quiet")
    assert (call.code, call.err) == (0, "")
    assert "test/accuracy" in call.out


def test_a_run_or_the_last_one_is_listed_alone(dlx_call):
    names = [Path(json.loads(dlx_call("train", *SMALL, f"seed={n}", "--json").out)["run"]).name for n in range(2)]
    assert [row["run"] for row in json.loads(dlx_call("runs", "@last", "--json").out)] == names[1:]
    assert [row["run"] for row in json.loads(dlx_call("runs", names[0], "--json").out)] == names[:1]
    assert [row["run"] for row in json.loads(dlx_call("runs", "seed == 1", "--json").out)] == names[1:]
    call = dlx_call("runs", "nothing")
    assert (call.code, call.err) == (2, "error: nothing: no such run below outputs/; `dlx runs` lists them\n")


def test_the_members_of_the_last_sweep_are_listed(dlx_call):
    dlx_call("train", *SMALL)
    dlx_call("sweep", *SMALL, "seed=1,2")
    rows = json.loads(dlx_call("runs", "@last", "--members", "--json").out)
    assert [row["run"] for row in rows][1:] == ["000-seed-1", "001-seed-2"]
    assert rows[0]["is_plan"]


def test_show_a_run_as_it_was_frozen(dlx_call, only_run):
    dlx_call("train", *SMALL)
    out = dlx_call("show", "@last").out
    assert str(only_run()) in out
    assert "layers.0  Linear  8       520" in out
    assert dlx_call("show", only_run().name).out == out
    assert "Linear  16 " in dlx_call("show", "@last", "model.hidden=[16]").out
    assert "did you mean model=resnet?" in dlx_call("show", "resnet").err
    assert dlx_call("show", "nothing").code == 2


def test_show_as_json(dlx_call, only_run):
    dlx_call("train", *SMALL)
    shown = json.loads(dlx_call("show", "@last", "--json").out)
    assert shown["run"] == str(only_run())
    assert shown["model"] == "mlp"
    assert shown["parameters"] == 8 * 65 + 10 * 9
    assert shown["layers"][0] == {"name": "layers.0", "type": "Linear", "shape": [8], "parameters": 520}
    assert json.loads(dlx_call("show", "model=resnet", "data=cifar10", "--json").out)["parameters"] == 269_722


def test_a_report_says_where_it_is_and_goes_where_it_is_told(dlx_call, only_run, here):
    dlx_call("train", *SMALL)
    name = f"report-{only_run().name}.html"
    assert dlx_call("report", "@last").out == f"report          {here / name}\n"
    (here / "pages").mkdir()
    for out, file in {"pages": f"pages/{name}", "new/": f"new/{name}", "a.html": "a.html"}.items():
        call = dlx_call("report", "@last", "--out", out)
        assert call.out == f"report          {here / file}\n"
        assert (here / file).read_text().startswith("<!doctype html>")
    call = dlx_call("report", "@last", "--out", "nowhere/a.html")
    assert call.code == 2
    assert "--out nowhere/a.html: cannot be written" in call.err


def test_settings_are_shown_with_four_digits_and_kept_whole(dlx_call):
    lr = ["0.012345678", "0.023456789"]
    out = dlx_call("sweep", *SMALL, f"optim.lr={','.join(lr)}").out
    assert "0.01235  " in out
    assert lr[0] not in out.replace("000-lr-0.012345678", "")
    compared = dlx_call("compare", "@last").out
    assert "0.01235  " in compared
    labels = [row["label"] for row in json.loads(dlx_call("compare", "@last", "--json").out)["rows"]]
    assert labels == ["lr 0.01235", "lr 0.02346"]
    assert lr[0] in dlx_call("compare", "@last", "--csv", "-").out
    assert json.loads(dlx_call("compare", "@last", "--json").out)["rows"][0]["config"]["optimizer.lr"] == float(lr[0])
    assert "0.01235" in dlx_call("runs", "--members", "--columns", "optim.lr").out


def test_a_sweep_of_a_regression_shows_the_figures_that_it_has(dlx_call):
    call = dlx_call("sweep", "model=mlp", "data=function1d", "model.hidden=[8],[16]", "trainer.max_steps=3")
    assert call.code == 0, call.err
    header = call.out.splitlines()[0].split()
    assert header == ["member", "model.hidden", "val/loss", "test/loss", "test/mse", "test/mae", "test/r2", "status"]
    assert all(len(line.split("  ")) > 5 for line in call.out.splitlines()[1:3])
