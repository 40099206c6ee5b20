"""dlx sweep --search as a person would: each sampler, pruning, shared studies, and no trial left running."""

import json
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import yaml

from dlx.runs.folder import RunFolder
from dlx.sweeps.executors import batched
from dlx.sweeps.search import storage as storages
from dlx.sweeps.search.pruning import should_prune_of
from dlx.sweeps.search.settings import Settings
from dlx.sweeps.search.space import Dimension
from dlx.sweeps.search.storage import redacted
from dlx.sweeps.search.study import Study
from dlx.tasks.system import System

QUICK = ("model=mlp", "model.hidden=[8]", "trainer.max_steps=6")
LR = "optim.lr=tag(log, interval(1e-9,1))"
DECAY = "optim.weight_decay=interval(0,0.1)"
X = Dimension("x", "x", optuna.distributions.FloatDistribution(0, 1))
COMPLETE, PRUNED, FAIL, RUNNING = (
    getattr(optuna.trial.TrialState, n) for n in ("COMPLETE", "PRUNED", "FAIL", "RUNNING")
)


def without(*words):
    """QUICK but for the keys that these words give: a key is given once."""
    keys = {word.partition("=")[0] for word in words}
    return [word for word in QUICK if word.partition("=")[0] not in keys]


def search(dlx_call, *words, code=0):
    call = dlx_call("sweep", *without(*words), *words, "--json")
    assert call.code == code, call.err
    return json.loads(call.out), call.err


def trials_of(folder, storage=None):
    storage = storage or str(Path(folder, "study.journal"))
    (name,) = optuna.get_all_study_names(storages.open_storage(storage))
    return optuna.load_study(study_name=name, storage=storages.open_storage(storage)).trials


def journal(path, sampler="random", pruner="none"):
    path.mkdir(exist_ok=True)
    settings = Settings(sampler, pruner=pruner, metric="val/loss:min", study="s")
    return Study.create(settings, str(path / "study.journal"), path)


def cut_off(sigterm_at, dlx_call, *words, at=9):
    """A search that gets SIGTERM in the third step of its second member."""
    with sigterm_at(at):
        found, err = search(dlx_call, *words, code=143)
    assert "go on with: dlx resume" in err
    return Path(found["run"])


KILLED = """
import os, signal, sys
import dlx.cli
from dlx.tasks.supervised import Supervised
from dlx.tasks.system import System

Supervised.showcase = lambda self, batch: {}
count = 0

def after_step(system, step):
    global count
    count += 1
    if count == 9:
        os.kill(os.getpid(), signal.SIGKILL)

System.after_step = after_step
sys.argv = ["dlx", *sys.argv[1:]]
dlx.cli.main()
"""


def killed(here, *words):
    """The folder of a search whose process was killed in its second member."""
    before = set(here.glob("outputs/sweep/*"))
    done = subprocess.run([sys.executable, "-c", KILLED, "sweep", *QUICK, *words], cwd=here, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (folder,) = set(here.glob("outputs/sweep/*")) - before
    return folder


@pytest.mark.parametrize(("sampler", "count"), [("tpe", 5), ("random", 5), ("gp", 12)])
def test_each_sampler_finds_better_points_than_its_first(sampler, count, dlx_call):
    """The first ten points of a Gaussian process are random: it decides on two."""
    words = (LR, DECAY, "--search", sampler, "--trials", str(count), "--metric", "val/loss:min")
    found, err = search(dlx_call, *words)
    assert len(found["members"]) == count
    trials = trials_of(found["run"])
    assert [trial.state for trial in trials] == [COMPLETE] * count
    values = [trial.value for trial in trials]
    assert min(values) < values[0]
    best = found["members"][0]
    assert best["metrics"]["val/loss"] == min(values)
    assert best["differs"] == trials[values.index(min(values))].params
    run = RunFolder(Path(found["run"], "runs", found["best"]))
    config = yaml.safe_load(run.config_path.read_text())
    assert float(config["optimizer"]["lr"]) == best["differs"]["optimizer.lr"]
    assert sum(found["importance"].values()) == pytest.approx(1, abs=1e-3)
    assert RunFolder(found["run"]).summary()["importance"] == found["importance"]
    assert f"importance      {next(iter(found['importance']))} 0." in err
    assert "Warning" not in err
    assert Path(found["run"], "media", "search.png").stat().st_size > 1000
    again = json.loads(dlx_call("resume", found["run"], "--json").out)
    assert again["members"] == found["members"]
    assert len(trials_of(found["run"])) == count


@pytest.mark.parametrize(("jobs", "groups"), [([], [8, 3]), (["--jobs", "6"], [6, 5])])
def test_a_batched_search_learns_between_its_groups(jobs, groups, dlx_call, monkeypatch):
    stacks, train = [], batched._train
    monkeypatch.setattr(
        batched, "_train", lambda stack, members, *more: stacks.append(members) or train(stack, members, *more)
    )
    found, _ = search(dlx_call, LR, "--search", "tpe", "--trials", "11", "--executor", "batched", *jobs)
    assert [len(members) for members in stacks] == groups
    trials = trials_of(found["run"])
    first, second = trials[: groups[0]], trials[groups[0] :]
    assert [len(first), len(second)] == groups
    assert max(trial.datetime_complete for trial in first) < min(trial.datetime_start for trial in second)


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_sampler_learns_from_what_it_is_told(sampler, tmp_path, recwarn, capsys):
    """Of random points, the median of the last 4 is as far off as that of the first."""
    study, y = journal(tmp_path / "a"), replace(X, key="y")
    values = []
    for _ in range({"tpe": 40, "gp": 14}[sampler]):
        number, point = study.ask([X, y], sampler, 3)
        values.append((point["x"] - 0.3) ** 2 + (point["y"] - 0.6) ** 2)
        study.tell(number, "finished", values[-1])
    assert max(values[-4:]) < sorted(values[:10])[4]
    assert not recwarn.list
    assert capsys.readouterr().err == ""


def test_a_search_is_reproducible_and_draws_nothing_twice(dlx_call):
    words = (LR, "optim=adam,sgd", "data.batch_size=range(16,33,8)", "--search", "random")
    first, _ = search(dlx_call, *words, "--trials", "3")
    again, _ = search(dlx_call, *words, "--trials", "3")
    assert [m["differs"] for m in first["members"]] == [m["differs"] for m in again["members"]]
    assert len({m["differs"]["optimizer.lr"] for m in first["members"]}) == 3
    other, _ = search(dlx_call, *words, "--trials", "3", "seed=5")
    assert [m["differs"] for m in first["members"]] != [m["differs"] for m in other["members"]]


def test_a_search_that_was_cut_off_goes_on_inside_its_member(dlx_call, sigterm_at):
    folder = cut_off(sigterm_at, dlx_call, LR, DECAY, "--search", "tpe", "--trials", "4")
    assert [trial.state for trial in trials_of(folder)] == [COMPLETE, FAIL]
    cut = trials_of(folder)[1]
    first = (folder / "runs" / cut.user_attrs["member"] / "metrics.jsonl").read_bytes()
    resumed = json.loads(dlx_call("resume", str(folder), "--json").out)
    trials = trials_of(folder)
    assert [trial.state for trial in trials] == [COMPLETE, FAIL, COMPLETE, COMPLETE, COMPLETE]
    assert len(resumed["members"]) == 4
    assert trials[2].params == cut.params
    assert trials[2].user_attrs["member"] == cut.user_attrs["member"]
    rows = (folder / "runs" / cut.user_attrs["member"] / "metrics.jsonl").read_bytes()
    assert rows.startswith(first)
    assert b'"_event": "resume"' in rows
    assert len({trial.params["optimizer.lr"] for trial in trials}) == 4


def test_a_killed_search_leaves_no_trial_running_and_goes_on(dlx_call, here):
    folder = killed(here, LR, "--search", "tpe", "--trials", "3")
    assert [trial.state for trial in trials_of(folder)] == [COMPLETE, RUNNING]
    with (folder / "study.journal").open("ab") as file:
        file.write(b'{"op_code": 5')  # a power cut in the middle of a line
    call = dlx_call("resume", str(folder), "--json")
    assert call.code == 0, call.err
    trials = trials_of(folder)
    assert [trial.state for trial in trials] == [COMPLETE, FAIL, COMPLETE, COMPLETE]
    assert trials[1].user_attrs["status"] == "lost"
    assert trials[1].params == trials[2].params
    assert len(json.loads(call.out)["members"]) == 3


def test_sweeps_share_a_study_and_tell_of_those_that_are_gone(dlx_call, here):
    """The first is killed. While its folder is locked it counts as alive, and its trial is left alone."""
    url = f"sqlite:///{here}/study.db"
    words = (LR, "--search", "tpe", "--trials", "2", "--storage", "sqlite:///study.db", "--study", "all")
    lost = killed(here, *words)
    owner = RunFolder(lost)
    owner.lock.acquire()
    search(dlx_call, *words)
    assert [trial.state for trial in trials_of(None, url)] == [COMPLETE, RUNNING, COMPLETE, COMPLETE]
    owner.lock.forget()  # as if it were killed again
    (lost / "run.lock").unlink()
    second, _ = search(dlx_call, *words, "--search", "random")
    trials = trials_of(None, url)
    assert [trial.state for trial in trials] == [COMPLETE, FAIL, *[COMPLETE] * 4]
    assert len({trial.params["optimizer.lr"] for trial in trials}) == 6
    assert len(second["members"]) == 2
    resumed = json.loads(dlx_call("resume", str(lost), "--json").out)
    assert len(resumed["members"]) == 2
    assert trials_of(None, url)[-1].params == trials[1].params


@pytest.mark.parametrize("how", [[], ["--executor", "processes", "--jobs", "2"]])
def test_a_hopeless_member_is_pruned(how, dlx_call, here):
    """Two sweeps share a journal: 5 good learning rates (before that nothing is pruned), then hopeless ones."""
    words = ["trainer.max_steps=30", "trainer.validate_every=5", "--search", "random", "--pruner", "median"]
    words += ["--storage", "all.journal", "--study", "s"]
    search(dlx_call, "optim.lr=tag(log, interval(0.02,0.05))", *words, "--trials", "5")
    found, _ = search(dlx_call, "optim.lr=tag(log, interval(1e-9,1e-8))", *words, "--trials", "2", *how)
    assert [member["status"] for member in found["members"]] == ["pruned"] * 2
    assert found["best"] is None
    *good, one, two = trials_of(None, str(here / "all.journal"))
    assert {trial.state for trial in good} <= {COMPLETE, PRUNED}
    assert {one.state, two.state} == {PRUNED}
    assert list(one.intermediate_values) == list(range(1, len(one.intermediate_values) + 1))
    assert len(good[0].intermediate_values) == 5
    run = RunFolder(Path(found["run"], "runs", found["members"][0]["name"]))
    assert run.status()["status"] == "pruned"
    assert RunFolder(found["run"]).status()["status"] == "finished"


def test_a_resumed_member_reports_all_its_validations(tmp_path):
    """A resumed member has a new trial, which gets the validations before it too; hyperband decides as median does."""
    study = journal(tmp_path / "a", pruner="hyperband")
    number, _ = study.ask([X], "tpe", 0)
    study.name(number, "000-x")
    assert not study.report("000-x", {1: 0.5, 2: 0.4})
    study.tell(number, "interrupted", None)
    again = study.again("000-x")
    assert not study.report("000-x", {1: 0.5, 2: 0.4, 3: 0.3})
    assert study.trials()[again].intermediate_values == {1: 0.5, 2: 0.4, 3: 0.3}
    study.tell(again, "finished", 0.3)
    assert study.again("000-x") is None
    assert not study.report("nobody", {1: 0.5})
    pruned = 0
    for _ in range(12):
        number, _ = study.ask([X], "tpe", 0)
        study.name(number, "001-x")
        pruned += any(study.report("001-x", {step: 9.0}) for step in (1, 2, 3))
        study.tell(number, "finished", 9.0)
    assert pruned == 0  # all are equal but the first
    number, _ = study.ask([X], "tpe", 0)
    study.name(number, "002-x")
    assert any(study.report("002-x", {step: 10.0}) for step in (1, 2, 3))


def test_a_member_that_crashes_fails_and_is_tried_again(dlx_call, monkeypatch):
    count = 0

    def after_step(system, step):
        nonlocal count
        count += 1
        if count == 9:
            raise RuntimeError("out of ideas")

    with monkeypatch.context() as patch:
        patch.setattr(System, "after_step", after_step)
        found, _ = search(dlx_call, LR, "--search", "tpe", "--trials", "3", code=1)
    assert [trial.state for trial in trials_of(found["run"])] == [COMPLETE, FAIL, COMPLETE]
    resumed = json.loads(dlx_call("resume", found["run"], "--json").out)
    assert {member["status"] for member in resumed["members"]} == {"finished"}
    trials = trials_of(found["run"])
    assert [trial.state for trial in trials] == [COMPLETE, FAIL, COMPLETE, COMPLETE]
    assert trials[3].params == trials[1].params


def test_a_diverged_member_fails_for_good(dlx_call):
    words = ("model.loss=mse", "optim=sgd", "optim.lr=interval(1e29,1e30)", "--search", "random", "--trials", "1")
    found, _ = search(dlx_call, *words, code=1)
    assert [trial.user_attrs["status"] for trial in trials_of(found["run"])] == ["diverged"]
    assert dlx_call("resume", found["run"]).code == 1
    assert [trial.state for trial in trials_of(found["run"])] == [FAIL]


def test_a_search_over_a_method_is_led_by_its_mean(dlx_call, sigterm_at):
    words = (LR, "method=seeds", "method.count=2", "--search", "random", "--trials", "2")
    folder = cut_off(sigterm_at, dlx_call, *words, at=15)  # in the first member of the second point
    found = json.loads(dlx_call("resume", str(folder), "--json").out)
    assert len(found["members"]) == 2
    values = {member["name"]: member["metrics"]["val/accuracy"] for member in found["members"]}
    told = {t.user_attrs["member"]: t.value for t in trials_of(folder) if t.state == COMPLETE}
    assert told == values
    assert len(list(folder.glob("runs/*"))) == 4
    assert len(list(folder.glob("points/*/point.yaml"))) == 2


def test_a_search_begins_with_a_run_also_when_it_goes_on(dlx_call):
    run = json.loads(dlx_call("train", *QUICK, "optim.weight_decay=0.5", "--json").out)["run"]
    call = dlx_call("sweep", "--from", run, LR, "--search", "random", "--trials", "1", "--json")
    assert call.code == 0, call.err
    folder = Path(json.loads(call.out)["run"])
    path = folder / "search.yaml"
    path.write_text(path.read_text().replace("trials: 1", "trials: 2"))
    assert dlx_call("resume", str(folder)).code == 0
    configs = [yaml.safe_load(path.read_text()) for path in folder.glob("runs/*/config.yaml")]
    assert [config["optimizer"]["weight_decay"] for config in configs] == [0.5, 0.5]
    assert [config["model"]["hidden"] for config in configs] == [[8], [8]]


def test_dry_run_prints_the_space_and_writes_nothing(dlx_call, here):
    call = dlx_call(
        "sweep", *without("model.hidden"), LR, "model.hidden=[8],[16]", "--search", "tpe", "--trials", "7", "--dry-run"
    )
    assert call.code == 0, call.err
    assert "optimizer.lr  number from 1e-09 to 1, log scale" in call.out
    assert "model.hidden  one of [8], [16]" in call.out
    assert "7 by tpe" in call.out
    assert "val/accuracy:max" in call.out
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([LR], "optimizer.lr: tag(log, interval(1e-9,1)) is for a search"),
        (["--search", "tpe"], "--search: no key has several values"),
        ([LR, "--search", "tp"], "--search tp: unknown; choose from tpe, gp, random; did you mean tpe?"),
        ([LR, "--search", "tpe", "--pruner", "mean"], "--pruner mean: unknown; choose from none, median, hyperband"),
        ([LR, "--search", "tpe", "--trials", "0"], "--trials: must be at least 1, got 0"),
        (["seed=1,2", "model.hidden=[8],[9]", "--search", "tpe", "--trials", "5"], "--trials 5: there are 4 points"),
        ([LR, "--search", "tpe", "--zip"], "--zip: only for a grid, not with --search"),
        ([LR, "--search", "tpe", "--sample", "2"], "--sample: only for a grid, not with --search"),
        (["seed=1,2", "--trials", "3"], "--trials: only with --search"),
        (["seed=1,2", "--study", "a"], "--study: only with --search"),
        ([LR, "optim.lrr=interval(0,1)", "--search", "tpe"], "did you mean lr?"),
        (["optim.lr=interval(-1,1)", "--search", "tpe"], "optimizer.lr: "),
        (["optim=adam,adamm", LR, "--search", "tpe"], "did you mean adam?"),
        ([LR, "--search", "tpe", "--metric", "test/loss:min"], "a search may not optimize a test/ metric; use val/"),
        ([LR, "--search", "tpe", "--metric", "val/loss"], "must end in :min or :max"),
        (["seed=1,2", "--metric", "val/loss:least"], "--metric val/loss:least: must end in :min or :max"),
        ([LR, "method=seeds", "--search", "tpe", "--pruner", "median"], "the runs of method=seeds are not pruned"),
        ([LR, "experiment=bottleneck", "--search", "tpe"], "experiment: a claim is run by"),
        ([LR, "--search", "tpe", "--storage", "no/where.journal"], "there is no folder"),
        ([LR, "--search", "tpe", "--storage", "sqlite:////no/where.db"], "there is no folder"),
        ([LR, "--search", "tpe", "--storage", "foo://x/y"], "--storage foo://x/y: cannot be used"),
        ([LR, "--search", "tpe", "--storage", "://"], "cannot be used: "),
    ],
)
def test_bad_input_writes_nothing(words, text, dlx_call, here):
    call = dlx_call("sweep", *without(*words), *words)
    assert call.code == 2, call.out + call.err
    assert text in call.err
    assert len(call.err.splitlines()) == 1
    assert list(here.iterdir()) == []


def test_a_metric_that_is_not_there(dlx_call, here):
    """It is said before the start; of a method by its first answer."""
    words = (*QUICK, LR, "--search", "random", "--trials", "3", "--metric", "val/acuracy:max")
    call = dlx_call("sweep", *words)
    assert call.code == 2
    assert "--metric val/acuracy: no such metric; did you mean val/accuracy?" in call.err
    assert list(here.iterdir()) == []
    call = dlx_call("sweep", *words, "method=seeds", "method.count=1")
    assert call.code == 2
    assert "--metric val/acuracy: 000-lr-" in call.err
    assert "did you mean val/accuracy?" in call.err
    assert len(list(here.glob("outputs/*/*/runs/*"))) == 1


def test_a_study_is_about_one_thing(dlx_call):
    words = ("--search", "random", "--trials", "1", "--storage", "a.journal", "--study", "a")
    search(dlx_call, LR, *words)
    for other, text in {
        (LR, "--metric", "val/loss:min"): "--study a: is about val/accuracy:max, not val/loss:min",
        (DECAY,): "--study a: searches optimizer.lr, which is not here",
        ("optim.lr=0.1,0.2",): "--study a: searches optimizer.lr in FloatDistribution",
        ("optim.lr=interval(0.1,1)",): "--study a: searches optimizer.lr in FloatDistribution",
    }.items():
        call = dlx_call("sweep", *QUICK, *other, *words)
        assert (call.code, text in call.err) == (2, True), call.err


def test_a_storage_that_is_locked_or_gone_is_said_at_once(dlx_call, here, monkeypatch):
    monkeypatch.setattr(storages, "LOCK_SECONDS", 1)
    words = (LR, "--search", "random", "--trials", "1", "--storage", "sqlite:///a.db", "--study", "a")
    found, _ = search(dlx_call, *words)
    before = set(here.rglob("*"))
    holder = sqlite3.connect("a.db")
    holder.execute("BEGIN EXCLUSIVE")
    for command in (["sweep", *QUICK, *words], ["resume", found["run"]]):
        call = dlx_call(*command)
        assert call.code == 2
        assert "database is locked" in call.err
        assert len(call.err.splitlines()) == 1
    holder.close()
    Path("a.db").rename("b.db")
    call = dlx_call("resume", found["run"])
    assert (call.code, "a.db is gone" in call.err) == (2, True)
    assert not Path("a.db").exists()
    call = dlx_call("resume", found["run"], "--storage", "sqlite:///b.db", "--json")
    assert json.loads(call.out)["members"] == found["members"]
    assert {path for path in here.rglob("*") if "outputs" not in str(path)} <= before | {here / "b.db"}


def test_a_journal_that_is_gone_or_locked_by_the_dead(dlx_call, monkeypatch, sigterm_at):
    monkeypatch.setattr(storages, "LOCK_SECONDS", 3)
    folder = cut_off(sigterm_at, dlx_call, LR, "--search", "random", "--trials", "2")
    (folder / "study.journal.lock").touch()
    assert dlx_call("resume", str(folder)).code == 0
    assert [trial.state for trial in trials_of(folder)] == [COMPLETE, FAIL, COMPLETE]
    assert "takes no overrides" in dlx_call("resume", str(folder), "seed=3").err
    assert "are in its own folder" in dlx_call("resume", str(folder), "--storage", "a.journal").err
    (folder / "study.journal").unlink()
    call = dlx_call("resume", str(folder))
    assert (call.code, "study.journal is gone" in call.err) == (2, True)


def test_a_password_is_written_nowhere(dlx_call, here, monkeypatch):
    url = "sqlite:///file:a.db?password=secret&uri=true"
    words = ("trainer.validate_every=2", LR, "--search", "random", "--trials", "1", "--pruner", "median")
    found, err = search(dlx_call, *words, "--storage", url, "--executor", "processes", "--jobs", "1")
    assert len(trials_of(None, url)[0].intermediate_values) == 2, "the worker did not find it"
    texts = [path.read_bytes() for path in Path(found["run"]).rglob("*") if path.is_file()]
    assert not any(b"secret" in text for text in texts)
    assert "secret" not in err
    call = dlx_call("resume", found["run"])
    assert call.code == 2
    assert "its storage has a password, which is not kept" in call.err
    assert dlx_call("resume", found["run"], "--storage", url).code == 0
    monkeypatch.setenv("DLX_STORAGE", url)
    assert dlx_call("resume", found["run"]).code == 0
    call = dlx_call("sweep", *QUICK, LR, "--search", "tpe", "--storage", "mysql+nothing://me:secret@host/db")
    assert (call.code, "secret" in call.err, "me:***@host" in call.err) == (2, False, True)
    assert redacted("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"


def test_a_storage_that_fails_ends_no_training(dlx_call, here, monkeypatch):
    """The member is told nothing, and goes on; the search itself cannot."""
    words = ("trainer.validate_every=2", LR, "--search", "random", "--trials", "1", "--pruner", "median")
    found, _ = search(dlx_call, *words)
    folder = Path(found["run"])
    (folder / "study.journal").unlink()
    should_prune = should_prune_of(folder, found["members"][0]["name"])
    assert not should_prune([{"step": 2.0, "val/accuracy": 0.1}])
    assert not should_prune([{"step": 2.0, "val/accuracy": 0.1}, {"step": 4.0, "val/accuracy": 0.1}])
    assert should_prune_of(folder / "runs", "a") is None


def test_a_trial_that_others_took_for_lost_is_told_anew(tmp_path):
    study = journal(tmp_path / "a")
    number, values = study.ask(
        [X, Dimension("c", "c", optuna.distributions.CategoricalDistribution(["a", "b"]))], "random", 0
    )
    study.name(number, "000-x")
    journal(tmp_path / "a").fail_lost()
    study.tell(number, "finished", 0.5)
    one, two = study.trials()
    assert (one.state, two.state, two.value, two.params) == (FAIL, COMPLETE, 0.5, values)


def test_a_figure_that_is_no_number_is_a_failure(tmp_path):
    study = journal(tmp_path / "a")
    for value in (float("nan"), None):
        number, _ = study.ask([X], "random", 0)
        study.tell(number, "finished", value)
    assert [trial.state for trial in study.trials()] == [FAIL, FAIL]


def test_what_is_no_search_is_said(dlx_call):
    folder = Path(search(dlx_call, LR, "--search", "random", "--trials", "1")[0]["run"])
    path = folder / "search.yaml"
    whole = path.read_text()
    for change, text in {
        "trials: many": "trials cannot be 'many'",
        "trials: 0": "--trials: must be at least 1",
        "trails: 1": "not a search that dlx wrote",
    }.items():
        path.write_text(whole.replace("trials: 1", change))
        call = dlx_call("resume", str(folder))
        assert (call.code, text in call.err) == (2, True), call.err
    grid = json.loads(dlx_call("sweep", *QUICK, "seed=1,2", "--json").out)["run"]
    assert "is no search" in dlx_call("resume", grid, "--storage", "a.journal").err


def test_without_optuna_it_is_said(here):
    code = "import sys; sys.modules['optuna'] = None; from dlx.cli import main; main()"
    words = ["sweep", *QUICK, LR, "--search", "tpe"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=here, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--search needs optuna: pip install 'dlx[search]'" in done.stderr
    assert list(here.iterdir()) == []


def test_a_finished_search_takes_more_trials(dlx_call):
    words = ["sweep", *QUICK, LR, "--search", "random", "--json"]
    first = json.loads(dlx_call(*words, "--trials", "2").out)
    more = dlx_call("resume", first["run"], "--trials", "4", "--json")
    assert more.code == 0, more.err
    rows = json.loads(more.out)["members"]
    assert len(rows) == 4
    before = {row["name"]: row["metrics"] for row in first["members"]}
    assert {row["name"]: row["metrics"] for row in rows if row["name"] in before} == before
    # As if it had been asked for from the start.
    whole = json.loads(dlx_call(*words, "--trials", "4").out)
    assert sorted(row["name"] for row in whole["members"]) == sorted(row["name"] for row in rows)
    assert yaml.safe_load(Path(first["run"], "search.yaml").read_text())["trials"] == 4
    again = dlx_call("resume", first["run"], "--json")
    assert len(json.loads(again.out)["members"]) == 4


def test_trials_are_those_in_all(dlx_call):
    run = json.loads(dlx_call("sweep", *QUICK, LR, "--search", "random", "--trials", "3", "--json").out)["run"]
    for trials, said in {"2": "--trials 2: 3 are there already", "0": "--trials 0: 3 are there already"}.items():
        call = dlx_call("resume", run, "--trials", trials)
        assert call.code == 2
        assert said in call.err
    few = json.loads(dlx_call("sweep", *QUICK, "seed=range(3)", "--search", "random", "--trials", "2", "--json").out)[
        "run"
    ]
    call = dlx_call("resume", few, "--trials", "4")
    assert call.code == 2
    assert "--trials 4: there are 3 points" in call.err
    assert dlx_call("resume", few, "--trials", "3").code == 0


@pytest.mark.parametrize(
    "words", [("train", *QUICK), ("sweep", *QUICK, "seed=1,2"), ("train", "experiment=bottleneck")]
)
def test_what_is_no_search_takes_no_trials(words, dlx_call):
    dlx_call(*words)
    call = dlx_call("resume", "@last", "--trials", "4")
    assert call.code == 2
    assert "is no search" in call.err
