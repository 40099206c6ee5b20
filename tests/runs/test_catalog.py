import json
import math
import os
from pathlib import Path

import pytest

from dlx.config.errors import UserError
from dlx.runs.catalog import Catalog, Notes, read_entry, write_notes
from dlx.runs.find import plan_folder, plan_of
from dlx.runs.folder import RunFolder


def test_it_holds_runs_and_members_with_what_sets_them_apart(dlx_call, tiny):
    assert dlx_call("train", *tiny, "data.batch_size=16").code == 0
    assert dlx_call("sweep", *tiny, "optim.lr=1e-3,1e-2").code == 0
    catalog = Catalog("outputs")
    changed, gone = catalog.refresh()
    assert len(changed) == 4
    assert not gone
    run, sweep, *members = catalog.entries.values()
    assert run.config["model"] == "mlp"
    assert run.config["optimizer.lr"] == 3e-3
    assert run.config["model.hidden"] == "[16]"
    assert "model._target_" not in run.config
    assert run.status == "finished"
    assert 0 <= run.metrics["test/accuracy"] <= 1
    assert run.monitor == "val/accuracy:max"
    assert sweep.is_plan
    assert [member.plan for member in members] == [sweep.id] * 2
    assert catalog.refresh() == (set(), set())


def test_it_reads_only_what_changed(tmp_path):
    first, second = (RunFolder.create(tmp_path, "a", title) for title in ("one", "two"))
    for folder in (first, second):
        folder.write_config("seed: 0\nchoices: {model: mlp}\n")
        folder.write_status("running")
    catalog = Catalog(tmp_path)
    catalog.refresh()
    with second.metrics_path.open("a") as file:
        file.write(json.dumps({"step": 1, "time": 1.0, "train/loss": "NaN", "lr": 0.1}) + "\n" + '{"torn')
    assert catalog.refresh() == ({f"a/{second.name}"}, set())
    figures = catalog.entries[f"a/{second.name}"].metrics
    assert math.isnan(figures.pop("train/loss"))
    assert figures == {"lr": 0.1}
    write_notes(first.path, Notes(("good",), "<b>said</b>"))
    assert catalog.refresh()[0] >= {f"a/{first.name}"}
    assert catalog.entries[f"a/{first.name}"].notes == Notes(("good",), "<b>said</b>")
    second.path.rename(tmp_path / ".trash")
    assert catalog.refresh()[1] == {f"a/{second.name}"}


def test_a_configuration_that_a_resume_changed_is_read_again(tmp_path):
    folder = RunFolder.create(tmp_path, "a", "b")
    folder.write_config("seed: 0\ntrainer: {epochs: 3}\n")
    catalog = Catalog(tmp_path)
    catalog.refresh()
    folder.write_config("seed: 0\ntrainer: {epochs: 50}\n")
    catalog.refresh()
    (entry,) = catalog.entries.values()
    assert entry.config["trainer.epochs"] == 50


def test_figures_of_a_run_under_way_are_the_newest_that_count(tmp_path):
    folder = RunFolder.create(tmp_path, "a", "b")
    folder.write_config("seed: 0\n")
    folder.write_status("running")
    rows = [{"step": 1, "time": 1.0, "val/loss": 0.5}]
    rows += [{"step": step, "time": 2.0, "train/loss": 1.0} for step in range(2, 9_000)]  # far more than a tail holds
    folder.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    catalog = Catalog(tmp_path)
    catalog.refresh()
    (name,) = catalog.entries
    assert catalog.entries[name].metrics == {"val/loss": 0.5, "train/loss": 1.0}
    with folder.metrics_path.open("a") as file:
        file.write('{"_event": "resume", "step": 0}\n{"step": 1, "time": 3.0, "train/loss": 2.0}\n')
    catalog.refresh()
    assert catalog.entries[name].metrics == {"train/loss": 2.0}


def test_a_damaged_folder_ends_no_list(tmp_path):
    folder = RunFolder.create(tmp_path, "a", "b")
    folder.write_config("a: [")
    for name in ("status.json", "summary.json", "notes.json", "metrics.jsonl", "environment.json"):
        (folder.path / name).write_text('{"cut')
    (Path(tmp_path) / "link").symlink_to(folder.path)
    catalog = Catalog(tmp_path)
    catalog.refresh()
    (entry,) = catalog.entries.values()
    assert entry.status == "lost"
    assert entry.config == {}


ODD = {
    "status.json": ['{"status": "running"}', "[]", "{}", "[" * 100_000, '{"status": "failed", "reason": [1]}'],
    "summary.json": ["[]", '{"val/loss": 1' + "0" * 400 + "}", '{"monitor": 3, "verdict": {}}', "[" * 100_000],
    "run.lock": ["[]", "{}", '{"pid": "x", "host": "h", "boot": "b"}', "null"],
    "environment.json": ["[]", '{"started": 3}'],
    "notes.json": ["[]", '{"tags": 3, "notes": 1}'],
    "metrics.jsonl": ["[1]\n", '{"step": 1, "a": 1' + "0" * 400 + "}\n"],
    "config.yaml": ["[", "- 1", "a: {b: &x [*x]}"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in ODD.items() for text in texts])
def test_files_that_are_not_as_dlx_writes_them_end_no_list(tmp_path, name, text):
    for title in ("good", "odd"):
        folder = RunFolder(tmp_path / title / "run")
        folder.path.mkdir(parents=True)
        folder.write_config("seed: 0\n")
        folder.write_status("running")
        (folder.path / "run.lock").write_text(json.dumps({"pid": os.getpid(), "host": "elsewhere", "boot": ""}))
    (tmp_path / "odd" / "run" / name).write_text(text)
    catalog = Catalog(tmp_path)
    catalog.refresh()
    assert set(catalog.entries) == {"good/run", "odd/run"}
    assert catalog.entries["good/run"].status == "running"
    assert isinstance(catalog.entries["odd/run"].reason, str | None)
    assert catalog.refresh() == (set(), set())


def test_links_and_pipes_in_a_run_are_not_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text('{"status": "failed", "reason": "a secret"}')
    for title in ("link", "pipe"):
        folder = RunFolder(tmp_path / "root" / title)
        folder.path.mkdir(parents=True)
        folder.write_config("seed: 0\n")
    (tmp_path / "root" / "link" / "status.json").symlink_to(secret)
    os.mkfifo(tmp_path / "root" / "pipe" / "metrics.jsonl")
    catalog = Catalog(tmp_path / "root")
    catalog.refresh()
    assert {name: entry.reason for name, entry in catalog.entries.items()} == {
        "link": "cannot be read: status.json is not a plain file",
        "pipe": "cannot be read: metrics.jsonl is not a plain file",
    }
    with pytest.raises(UserError, match=r"link: cannot be read: status\.json"):
        read_entry(tmp_path / "root" / "link")


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("mlp/a", None),
        ("runs/a", None),
        ("sweep/a/runs/b", "sweep/a"),
        ("bagging/a/ensemble", "bagging/a"),
        ("sweep/a/points/001-lr-0.1/ensemble", "sweep/a"),
        ("ensemble/a/runs/set-0/b", "ensemble/a"),
        ("ensemble/a/runs/set-0/b/runs/member-1", "ensemble/a/runs/set-0/b"),
    ],
)
def test_a_member_knows_its_plan(name, plan):
    assert plan_of(name) == plan


@pytest.mark.parametrize(
    "name", ["a", "runs/a", "a/runs/b", "a/ensemble", "a/points/p/ensemble", "a/runs/set-0/b", "a/runs/set-0/b/runs/c"]
)
def test_a_folder_and_an_id_have_the_same_plan(name, tmp_path):
    for plan in ("a", "a/runs/set-0/b"):
        (tmp_path / plan).mkdir(parents=True)
        (tmp_path / plan / "plan.yaml").touch()
    plan = plan_of(name)
    assert plan_folder(tmp_path / name) == (None if plan is None else tmp_path / plan)
