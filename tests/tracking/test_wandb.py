"""The real client: offline, what it writes is read back; online it talks to a stand-in for the server."""

import json
import subprocess
import sys
import time

import pytest
from wandb_files import merged, plain, written
from wandb_server import serving

from dlx.runs.files import read_json
from dlx.runs.folder import RunFolder
from dlx.runs.mask import masked
from dlx.runs.media import Curve, Table, encode
from dlx.runs.metric_info import goal_of
from dlx.tracking.wandb import Wandb, run_id
from dlx.tracking.wandb_status import base_url, has_key, is_reachable


def test_without_key_it_is_offline_warned_about_and_whole(dlx_call, only_run, tiny, no_key):
    call = dlx_call("train", *tiny, "tracker=wandb", "secret_key=1")
    assert call.code == 2
    call = dlx_call("train", *tiny, "tracker=wandb", "tracker.wandb.tags=[first,tiny]", "tracker.wandb.notes=a try")
    assert call.code == 0, call.err
    assert "no API key" in call.err
    assert "dlx sync" in call.err
    (found,) = written(only_run())
    assert plain(found.rows) == merged(only_run())
    assert found.steps == [row["step"] for row in merged(only_run())] == sorted(set(found.steps))
    assert (found.run.run_id, found.run.display_name) == (only_run().name, only_run().name)
    assert (found.run.project, found.run.job_type, found.run.run_group) == ("dlx", "train", "")
    assert (list(found.run.tags), found.run.notes) == (["first", "tiny"], "a try")
    assert found.config["model"]["hidden"] == [16]
    assert found.config["choices"]["model"] == "mlp"
    assert found.exit_code == 0


def test_the_axis_and_the_goals_are_defined_and_the_summary_is_that_of_the_run(dlx_call, only_run, tiny, no_key):
    assert dlx_call("train", *tiny, "tracker=wandb").code == 0
    (found,) = written(only_run())
    assert found.metrics["*"].step_metric == "step"
    assert found.metrics["val/accuracy"].summary.max
    assert found.metrics["val/loss"].summary.min
    assert not found.metrics["val/loss"].summary.max
    own = RunFolder(only_run()).summary()
    assert own["val/loss"] != found.rows[-1]["val/loss"] or own["best_step"] == found.steps[-1]
    for name in ("val/accuracy", "val/loss", "test/accuracy", "parameters", "best_step", "monitor"):
        assert found.summary[name] == own[name], name
    assert found.summary["status"] == "finished"


def test_the_best_figures_stay_in_the_summary_when_the_last_row_is_worse(here, no_key):
    tracker, run = Wandb(mode="offline"), RunFolder(here)
    tracker.start(run, {})
    for step, value in ((1, 0.5), (2, 0.9), (3, 0.4)):
        tracker.log(step, {"val/accuracy": value})
    tracker.finish("finished", {"val/accuracy": 0.9})
    (found,) = written(here)
    assert [row["val/accuracy"] for row in found.rows] == [0.5, 0.9, 0.4]
    assert found.summary["val/accuracy"] == 0.9


def test_pictures_are_there_by_name_and_step(dlx_call, only_run, tiny, no_key):
    assert dlx_call("train", *tiny, "tracker=wandb").code == 0
    (found,) = written(only_run())
    (picture,) = (only_run() / "media").glob("*.png")
    name, _, step = picture.stem.rpartition("-")
    (row,) = (row for row in found.rows if f"media/{name}.path" in row or f"media/{name}" in row)
    assert row["_step"] == int(step)
    (sent,) = only_run().glob(f"wandb/offline-run-*/files/media/images/media/{name}_*.png")
    assert sent.read_bytes() == picture.read_bytes()


TYPES = {
    "picture": "image-file", "film": "video-file", "words": "html-file", "roc_table": "table-file",
    "per_class": "table-file", "mixed": "table-file",
}  # fmt: skip


def sent_file(run, value):
    """What W&B's client has written of a medium."""
    (path,) = run.glob(f"wandb/offline-run-*/files/{value}")
    return path.read_bytes()


def test_each_kind_of_medium_is_what_the_client_calls_it(here, no_key, write_media):
    (here / "media").mkdir()
    tracker = Wandb(mode="offline")
    tracker.start(RunFolder(here), {})
    tracker.log(4, {"val/loss": 1.0})
    files = write_media(here, "-00000004")
    for name, path in files.items():
        tracker.log_media(4, name, str(path))
    tracker.log(8, {"val/loss": 0.5})
    tracker.finish("finished", {})
    (found,) = written(here)
    assert found.steps == [4, 8]
    row = found.rows[0]
    assert row["val/loss"] == 1.0
    assert {name: row[f"media/{name}._type"] for name in TYPES} == TYPES
    sent = {name: sent_file(here, row[f"media/{name}.path"]) for name in TYPES}
    assert sent["picture"] == files["picture"].read_bytes()
    assert sent["film"] == files["film"].read_bytes()
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; é</pre>" in sent["words"].decode()
    assert b"<script" not in sent["words"]
    assert json.loads(sent["roc_table"]) == {
        "columns": ["line", "x", "y"], "data": [["cat", 0, 0], ["cat", 1, None], ["dog", 0, 1]],
    }  # fmt: skip
    assert json.loads(sent["per_class"]) == {
        "columns": ["class", "ap"], "data": [["cat", 0.5], ["dog", None], [None, 1]],
    }  # fmt: skip
    assert json.loads(sent["mixed"]) == {"columns": ["value"], "data": [["a"], [1], [True], [None]]}
    assert all(path.is_file() for path in files.values()), "the run keeps its own"


def test_a_long_curve_is_thinned_to_what_the_client_takes(here, no_key):
    (here / "media").mkdir()
    tracker = Wandb(mode="offline")
    tracker.start(RunFolder(here), {})
    suffix, content = encode(Curve({f"line {n}": (list(range(3000)), [n] * 3000) for n in range(20)}, "x", "y"))
    (here / "media" / f"many-00000001{suffix}").write_bytes(content)
    tracker.log_media(1, "many", str(here / "media" / f"many-00000001{suffix}"))
    tracker.finish("finished", {})
    (found,) = written(here)
    rows = json.loads(sent_file(here, found.rows[0]["media/many_table.path"]))["data"]
    assert len(rows) <= 10_000
    assert {row[0] for row in rows} == {f"line {n}" for n in range(20)}


def test_a_damaged_medium_is_warned_about_once_and_the_tracking_goes_on(here, no_key):
    media = here / "media"
    media.mkdir()
    tracker, said = Wandb(mode="offline"), []
    tracker.warn = said.append
    tracker.start(RunFolder(here), {})
    said.clear()
    broken = {"a.curve.json": "{", "b.table.json": '{"columns": ["x"], "rows": [[1, 2]]}', "c.png": "no picture"}
    for step in (1, 2):
        for name, content in broken.items():
            (media / name).write_text(content)
            tracker.log_media(step, name[0], str(media / name))
        tracker.log_media(step, "gone", str(media / "gone.txt"))
        tracker.log(step, {"x": step})
    tracker.finish("finished", {})
    assert [line.partition(" is not sent: ")[0] for line in said] == [
        "wandb: a.curve.json", "wandb: b.table.json", "wandb: c.png", "wandb: gone.txt",
    ]  # fmt: skip
    assert said[1].endswith("row 1 does not have 1 cells")
    (found,) = written(here)
    assert [row["x"] for row in found.rows] == [1, 2]
    assert not [name for row in found.rows for name in row if name.startswith("media/")]


def test_a_table_that_the_server_does_not_take_costs_nothing_else(dlx_call, only_run, tiny, wandb_server, monkeypatch):
    """The client sends tables by way of artifacts, and asks the server for them."""
    monkeypatch.delattr(wandb_server.RequestHandlerClass, "_Viewer")
    monkeypatch.setattr("dlx.tracking.recorder.encode", lambda medium: encode(Table(["a"], [[1]])))
    call = dlx_call("train", *tiny, "tracker=wandb")
    assert call.code == 0, call.err
    assert "predictions-00000008.table.json is not sent: Failed to verify" in call.err
    assert plain(wandb_server.rows(only_run().name)) == merged(only_run())


def test_a_medium_that_is_damaged_costs_a_run_nothing(dlx_call, only_run, tiny, no_key, monkeypatch):
    monkeypatch.setattr("dlx.tracking.recorder.encode", lambda medium: (".table.json", b"{torn"))
    call = dlx_call("train", *tiny, "tracker=wandb")
    assert call.code == 0, call.err
    assert "predictions-00000008.table.json is not sent: the file is damaged" in call.err
    (found,) = written(only_run())
    assert plain(found.rows) == merged(only_run())


@pytest.mark.parametrize(
    ("status", "code"), [("finished", 0), ("pruned", 0), ("diverged", 3), ("interrupted", 130), ("failed", 1)]
)
def test_how_it_ended_is_said(here, no_key, status, code):
    tracker = Wandb(mode="offline")
    tracker.start(RunFolder(here), {})
    tracker.finish(status, {}, "why")
    (found,) = written(here)
    assert (found.exit_code, found.summary["status"], found.summary["reason"]) == (code, status, "why")


def test_a_diverged_run_says_so(dlx_call, only_run, tiny, no_key):
    assert dlx_call("train", *tiny, "tracker=wandb", "optim=sgd", "optim.lr=1e30").code == 3
    (found,) = written(only_run())
    assert found.exit_code == 3
    assert found.summary["status"] == "diverged"
    assert "step" in found.summary["reason"]


def test_a_resumed_run_goes_on_under_the_same_id_and_no_row_is_there_twice(
    dlx_call, only_run, tiny, no_key, sigterm_at
):
    with sigterm_at(5):
        assert dlx_call("train", *tiny, "tracker=wandb").code == 143
    (first,) = written(only_run())
    assert (first.exit_code, first.summary["status"]) == (130, "interrupted")
    time.sleep(1)  # the client names its folder after the second
    assert dlx_call("resume", "@last").code == 0
    first, second = written(only_run())
    assert first.run.run_id == second.run.run_id
    assert first.steps
    assert second.steps
    assert max(first.steps) < min(second.steps)
    assert plain(first.rows + second.rows) == merged(only_run())


def test_members_of_a_sweep_are_grouped_also_where_they_train_as_one(dlx_call, here, tiny, no_key):
    for executor in ("inprocess", "batched"):
        call = dlx_call("sweep", *tiny, "seed=0,1", "tracker=wandb", "name=" + executor, "--executor", executor)
        assert call.code == 0, call.err
        (plan,) = (here / "outputs" / executor).iterdir()
        runs = sorted((plan / "runs").iterdir())
        assert len(runs) == 2
        for run in runs:
            (found,) = written(run)
            assert (found.run.run_group, found.run.job_type) == (plan.name, "sweep")
            assert (found.run.run_id, found.run.display_name) == (f"{plan.name}.{run.name}", run.name)
            assert plain(found.rows) == merged(run)


def test_two_runs_at_a_time_in_one_process_are_two(here, no_key):
    runs = [RunFolder(here / name) for name in ("a", "b")]
    trackers = [Wandb(mode="offline") for _ in runs]
    for tracker, run in zip(trackers, runs, strict=True):
        run.path.mkdir()
        tracker.start(run, {})
    for step in (1, 2):
        for number, tracker in enumerate(trackers):
            tracker.log(step, {"x": 10 * number + step})
    for tracker in trackers:
        tracker.finish("finished", {})
    assert [[row["x"] for row in written(run.path)[0].rows] for run in runs] == [[1, 2], [11, 12]]


def test_a_member_says_what_it_is_of_and_a_group_that_was_set_stays(dlx_call, here, tiny, no_key):
    call = dlx_call(
        "train", *tiny, "method=seeds", "method.count=2", "tracker=wandb", "tracker.wandb.group=mine",
    )  # fmt: skip
    assert call.code == 0, call.err
    found = [written(run)[0].run for run in here.glob("outputs/*/*/runs/*")]
    assert {(run.run_group, run.job_type) for run in found} == {("mine", "seeds")}
    assert len({run.run_id for run in found}) == 2


def test_local_may_be_named(dlx_call, only_run, tiny, no_key):
    assert dlx_call("train", *tiny, "tracker=[local,wandb]").code == 0
    assert written(only_run())
    assert "local" in (only_run() / "config.yaml").read_text()


def test_local_alone_is_what_there_is_anyway(dlx_call, only_run, tiny, no_key):
    assert dlx_call("train", *tiny, "tracker=local").code == 0
    assert not (only_run() / "wandb").exists()


@pytest.mark.parametrize("choice", ["wandbb", "[local,wandbb]"])
def test_an_unknown_tracker_is_named_with_those_there_are(dlx_call, here, tiny, choice):
    call = dlx_call("train", *tiny, f"tracker={choice}")
    assert call.code == 2
    assert "did you mean wandb? Available options: local, wandb" in call.err
    assert not (here / "outputs").exists()


def test_what_looks_secret_is_not_sent(here, no_key):
    config = {
        "api_key": "hidden-k1", "model": {"auth_token": "hidden-k2", "tokenizer": "bpe", "tokens": 5, "password": None},
        "dataset": [{"url": "https://me:hidden-k3@host/x", "path": "a/b"}],
    }  # fmt: skip
    assert masked(config) == {
        "api_key": "***", "model": {"auth_token": "***", "tokenizer": "bpe", "tokens": 5, "password": None},
        "dataset": [{"url": "https://***@host/x", "path": "a/b"}],
    }  # fmt: skip
    tracker = Wandb(mode="offline")
    tracker.start(RunFolder(here), config)
    tracker.finish("finished", {})
    for path in here.glob("wandb/**/*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not any(secret in content for secret in (b"hidden-k1", b"hidden-k2", b"hidden-k3")), path


def test_an_id_names_the_plan_too_and_is_short_enough(here):
    for plan in ("a" * 80, "b"):
        run = here / plan / "runs" / "000-seed-0"
        run.mkdir(parents=True)
        (here / plan / "plan.yaml").write_text("members: {}\n")
    assert run_id(here / "b" / "runs" / "000-seed-0") == "b.000-seed-0"
    long = here / ("a" * 80) / "runs" / ("c" * 60)
    assert run_id(long) != run_id(long.with_name("d" * 60))
    assert len(run_id(long)) <= 128


def test_goals():
    assert (goal_of("val/accuracy"), goal_of("val/loss"), goal_of("val/unheard_of")) == ("max", "min", None)


def test_online_it_is_sent_as_it_runs_and_the_run_remembers_where(dlx_call, only_run, tiny, wandb_server):
    call = dlx_call("train", *tiny, "tracker=wandb", "tracker.wandb.project=course")
    assert call.code == 0, call.err
    name = only_run().name
    assert plain(wandb_server.rows(name)) == merged(only_run())
    assert wandb_server.runs[name]["exit"] == 0
    assert wandb_server.summary(name)["status"] == "finished"
    known = read_json(only_run() / "wandb.json")
    assert (known["id"], known["project"], known["entity"]) == (name, "course", "someone")


def test_online_a_resumed_run_has_each_row_once_also_those_of_before_it_was_tracked(
    dlx_call, only_run, tiny, wandb_server, sigterm_at
):
    with sigterm_at(5):
        assert dlx_call("train", *tiny).code == 143
    assert not wandb_server.runs
    with sigterm_at(2):
        assert dlx_call("resume", "@last", "tracker=wandb", "trainer.log_every=1").code == 143
    assert wandb_server.runs[only_run().name]["exit"] == 130
    assert dlx_call("resume", "@last").code == 0
    assert plain(wandb_server.rows(only_run().name)) == merged(only_run())
    assert wandb_server.runs[only_run().name]["exit"] == 0


def test_a_server_that_refuses_costs_nothing(dlx_call, only_run, tiny, no_key, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    call = dlx_call("train", *tiny, "tracker=wandb")
    assert call.code == 0, call.err
    assert "no connection" in call.err
    assert written(only_run())


IMPATIENT = """
import sys
import dlx.cli
from dlx.tasks.supervised import Supervised
from dlx.tracking import wandb_status
import dlx.tracking.wandb as tracking
wandb_status.PROBE_SECONDS, tracking.INIT_SECONDS, tracking.Wandb.finish_seconds = 1, 2, 2
Supervised.showcase = lambda self, batch: {}
dlx.cli.main()
"""


@pytest.mark.parametrize(("mood", "patience", "code"), [("silent", 0, 0), ("silent", 1, 0), ("error", 4, 5)])
def test_a_server_that_is_there_but_ill_costs_seconds_and_no_local_file(here, tiny, no_key, mood, patience, code):
    """From the first request, from the client's own, and in the midst of the run; the process must end, too."""
    import os

    with serving() as server:
        server.mood, server.patience = mood, patience
        keys = {"WANDB_API_KEY": "x" * 40, "WANDB_BASE_URL": server.url}
        done = subprocess.run(
            [sys.executable, "-c", IMPATIENT, "train", *tiny, "tracker=wandb"],
            env={**os.environ, **keys}, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "dlx sync" in done.stderr
    (run,) = (here / "outputs" / "mlp").iterdir()
    assert RunFolder(run).status()["status"] == "finished"
    assert "test/accuracy" in RunFolder(run).summary()
    assert [row["step"] for row in merged(run)][-1] == 8


def test_whether_there_is_a_key_is_found_where_the_client_keeps_it(here, no_key, monkeypatch):
    assert base_url() == "https://api.wandb.ai"
    assert not has_key()
    (here / ".config" / "wandb").mkdir(parents=True)
    (here / ".config" / "wandb" / "settings").write_text("[default]\nbase_url = https://own.example:8080\n")
    (here / ".netrc").write_text("machine own.example\n login user\n password x\n")
    assert base_url() == "https://own.example:8080"
    assert has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://other.example")
    assert not has_key()


def test_an_ill_server_is_not_reachable(no_key, monkeypatch):
    with serving() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        assert is_reachable()
        server.mood = "error"
        assert not is_reachable()


def test_disabled_by_the_environment_nothing_is_written(dlx_call, only_run, tiny, no_key, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert dlx_call("train", *tiny, "tracker=wandb").code == 0
    assert not list(only_run().glob("wandb/**/*.wandb"))


def test_online_by_name_without_a_key_is_a_loss(dlx_call, only_run, tiny, no_key):
    call = dlx_call("train", *tiny, "tracker=wandb", "tracker.wandb.mode=online")
    assert call.code == 5
    assert "no API key" in call.err
    assert RunFolder(only_run()).status()["status"] == "finished"


def test_a_tracker_that_raises_ends_with_code_5_and_a_whole_run(dlx_call, only_run, tiny, monkeypatch):
    def fails(*arguments):
        raise RuntimeError("broken")

    monkeypatch.setattr(Wandb, "start", lambda *arguments: None)
    monkeypatch.setattr(Wandb, "log", fails)
    call = dlx_call("train", *tiny, "tracker=wandb")
    assert call.code == 5
    assert "broken" in call.err
    assert RunFolder(only_run()).status()["status"] == "finished"


def test_a_tracker_that_hangs_is_left_behind(monkeypatch):
    import threading

    from dlx.tracking.guard import Guard
    from dlx.tracking.tracker import Tracker

    class Hangs(Tracker):
        def log(self, step, scalars):
            threading.Event().wait(30)

    lost: list[str] = []
    guard = Guard("slow", Hangs(), lost.append, lost.append)
    guard.call("log", 1, {})
    guard.close(0.2)
    assert "not finished" in lost[0]
