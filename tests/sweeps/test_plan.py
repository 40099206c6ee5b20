"""Plans are whole or absent, go on where they were cut off, and record what fails."""

import json
from pathlib import Path

import pytest

from dlx.config import compose
from dlx.config.diff import changes
from dlx.config.errors import UserError
from dlx.runs.folder import RunFolder
from dlx.sweeps.executors.inprocess import run_members
from dlx.sweeps.plan import Plan
from dlx.tasks.system import System

WORDS = ["model=mlp", "model.hidden=[8]", "trainer.max_steps=6"]


@pytest.fixture
def base(here):
    return compose(WORDS)


def run(plan, statuses):
    results = {}

    def on_result(name, result):
        statuses.append((name, result.status))
        results[name] = result

    run_members(plan, plan.members, on_result)
    return results


def overrides_of(members, base):
    return {name: changes(base, config) for name, config in members.items()}


def test_a_plan_is_read_back_as_it_was_written(base, here):
    members = {f"seed-{seed}": compose([f"seed={seed}"], base=base) for seed in (1, 2)}
    Plan.write(here, members, overrides_of(members, base))
    read = Plan.load(here)
    assert {name: config.values for name, config in read.members.items()} == {
        name: config.values for name, config in members.items()
    }
    assert "seed: 2" in (here / "plan.yaml").read_text()


@pytest.mark.parametrize("name", ["../up", "a/b", "", "-rf", "x" * 90])
def test_a_member_cannot_be_named_out_of_the_folder(name, base, here):
    with pytest.raises(ValueError, match="a member's name must be a file name"):
        Plan.write(here, {name: base}, {name: {}})


def test_no_plan_is_said(here):
    with pytest.raises(UserError, match=r"no plan \(it has no plan.yaml\)"):
        Plan.load(here)


def test_a_member_that_fails_is_recorded_and_finished_ones_are_left(base, here, monkeypatch):
    members = {name: compose([f"seed={seed}"], base=base) for seed, name in enumerate(("a", "b", "c"))}
    plan, statuses = Plan.write(here, members, overrides_of(members, base)), []
    before = System.after_step

    def fails(system, step):
        if step == 3 and not (here / "runs" / "c").exists() and (here / "runs" / "b").exists():
            raise RuntimeError("no memory")
        before(system, step)

    with monkeypatch.context() as patch:
        patch.setattr(System, "after_step", fails)
        results = run(plan, statuses)
    assert statuses == [("a", "finished"), ("b", "failed"), ("c", "finished")]
    assert results["b"].reason == "RuntimeError: no memory"
    assert RunFolder(here / "runs" / "b").status()["status"] == "failed"
    written = (here / "runs" / "a" / "metrics.jsonl").read_bytes()
    again = run(plan, [])
    assert {result.status for result in again.values()} == {"finished"}
    assert (here / "runs" / "a" / "metrics.jsonl").read_bytes() == written
    assert again["a"].metrics == results["a"].metrics


def test_an_experiment_that_was_cut_off_goes_on(dlx_call, sigterm_at):
    words = ["experiment=adam_epsilon", "experiment.values=[1e-8,1.0]", "experiment.seeds=1", "trainer.max_steps=9"]
    whole = json.loads(dlx_call("train", *words, "--json").out)
    with sigterm_at(14):  # in the second member
        cut = dlx_call("train", *words, "--json")
    assert cut.code == 143
    assert "go on with: dlx resume" in cut.err
    folder = Path(json.loads(cut.out)["run"])
    assert RunFolder(folder).status()["status"] == "interrupted"
    resumed = json.loads(dlx_call("resume", str(folder), "--json").out)
    assert resumed["metrics"] == whole["metrics"]
    assert RunFolder(folder).status()["status"] == "finished"


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "a/b"])
def test_a_plan_from_elsewhere_cannot_lead_out_of_its_folder(name, base, here):
    (here / "sweep").mkdir()
    Plan.write(here / "sweep", {"a": base}, {"a": {}})
    (here / "sweep" / "plan.yaml").write_text(f"members:\n  {name}: {{}}\n")
    with pytest.raises(UserError, match="is not a folder name"):
        Plan.load(here / "sweep")
    (here / "sweep" / "plan.yaml").write_text("- a\n")
    with pytest.raises(UserError, match="not a plan that dlx wrote"):
        Plan.load(here / "sweep")
