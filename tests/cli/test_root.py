"""Where runs lie is one setting: output_root=, --root and $DLX_OUTPUTS; a run is found by its exact name first."""

import json
from pathlib import Path

import pytest

from dlx.config.errors import UserError
from dlx.runs.find import find_run

SMALL = ("model=mlp", "model.hidden=[8]", "trainer.max_steps=2", "trainer.device=cpu")


def only(root):
    (config,) = Path(root).glob("*/*/config.yaml")
    return config.parent


@pytest.fixture(params=["output_root", "--root", "DLX_OUTPUTS"])
def said(request, here, monkeypatch):
    """The words that say `there`, for commands that make runs and for those that look at them."""
    if request.param == "DLX_OUTPUTS":
        monkeypatch.setenv("DLX_OUTPUTS", "there")
        return [], []
    return ["output_root=there"] if request.param == "output_root" else ["--root", "there"], ["--root", "there"]


def test_every_command_sees_the_same_root(said, dlx_call, here):
    make, look = said
    assert dlx_call("train", *SMALL, *make).code == 0
    run = only("there")
    for command in ("runs", "eval", "report", "compare", "show"):
        target = [] if command == "runs" else ["@last"]
        call = dlx_call(command, *target, *look)
        assert call.code == 0, (command, call.err)
    assert run.name in dlx_call("runs", *look).out
    again = json.loads(dlx_call("train", "--from", "@last", *make, "--json").out)
    assert Path(again["run"]).parent == run.parent
    swept = json.loads(dlx_call("sweep", "--from", "@last", "seed=1,2", *make, "--json").out)
    assert Path(swept["run"]).is_relative_to("there")
    forked = dlx_call("resume", run.name, "--fork", "trainer.max_steps=3", *look, "--json")
    assert Path(json.loads(forked.out)["run"]).is_relative_to("there")
    assert not Path("outputs").exists()


def test_the_sweeps_and_claims_go_there_too(dlx_call, monkeypatch):
    monkeypatch.setenv("DLX_OUTPUTS", "there")
    assert dlx_call("sweep", *SMALL, "seed=1,2").code == 0
    assert dlx_call("train", "experiment=bottleneck").code == 0
    assert {path.name for path in Path("there").iterdir()} == {"sweep", "bottleneck"}
    assert dlx_call("resume", "@last").code == 0
    assert not Path("outputs").exists()


def test_what_was_typed_wins(dlx_call, monkeypatch):
    monkeypatch.setenv("DLX_OUTPUTS", "there")
    assert dlx_call("train", *SMALL, "output_root=here").code == 0
    assert only("here")
    assert not Path("there").exists()
    call = dlx_call("train", *SMALL, "--root", "a", "output_root=b")
    assert call.code == 2
    assert call.err == "error: --root a: output_root=b says another folder; give one of them\n"
    assert dlx_call("train", *SMALL, "--root", "a", "output_root=a").code == 0


@pytest.mark.parametrize("name", ["a b", "it's", "a,b", "1e3", "[x]"])
def test_a_root_may_have_any_name(name, dlx_call):
    assert dlx_call("train", *SMALL, "--root", name).code == 0
    assert only(name)
    assert dlx_call("train", "--from", "@last", "--root", name).code == 0


def test_what_is_offered_next_works_elsewhere_too(dlx_call):
    import shlex

    out = dlx_call("train", *SMALL, "--root", "over there").out
    (line,) = [line for line in out.splitlines() if line.startswith("next")]
    words = shlex.split(line)
    assert words[1:3] == ["dlx", "eval"]
    assert dlx_call("eval", words[3]).code == 0


def runs(*names):
    for name in names:
        folder = Path("outputs", name)
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("choices: {}\n")
        if "runs/" not in name and any(other.startswith(f"{name}/") for other in names):
            (folder / "plan.yaml").write_text("members: {}\n")


def test_an_exact_name_wins_over_a_part_of_another(here):
    runs("mlp/a", "mlp/a-1", "other/b-a", "a-group/c", "sweep/s", "sweep/s/runs/000-lr-1", "sweep/s/runs/000-lr-1e-3")
    assert find_run("a").path == Path("outputs/mlp/a")
    assert find_run("000-lr-1").path == Path("outputs/sweep/s/runs/000-lr-1")
    assert find_run("s/runs/000-lr-1").path.name == "000-lr-1"
    assert find_run("mlp/a").path == Path("outputs/mlp/a")
    assert find_run("mlp/a/").path == Path("outputs/mlp/a")
    assert find_run("a-group").path == Path("outputs/a-group/c")
    assert find_run("b-").path == Path("outputs/other/b-a")


def test_a_folder_of_that_name_hides_no_run(here):
    runs("mlp/a")
    (here / "a").mkdir()
    assert find_run("a").path == Path("outputs/mlp/a")
    (here / "b").mkdir()
    with pytest.raises(UserError, match="b: not a run folder"):
        find_run("b")


def test_the_roots_own_path_is_no_part_of_a_name(here):
    runs("mlp/a", "mlp/b")
    for word in ("outputs", str(here)):
        with pytest.raises(UserError):
            find_run(word)
    with pytest.raises(UserError, match="is empty"):
        find_run("")


def test_members_of_one_name_are_told_apart(here):
    runs("sweep/s", "sweep/s/runs/000", "sweep/t", "sweep/t/runs/000")
    with pytest.raises(UserError, match=r"2 runs match, such as sweep/s/runs/000, sweep/t/runs/000"):
        find_run("000")
