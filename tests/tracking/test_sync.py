"""dlx sync: runs are sent from their own files, each row once."""

import json
import os
import subprocess
import sys

import pytest
from wandb_files import merged, plain, written

import dlx.tracking.sync as sync
from dlx.runs.catalog import Notes, write_notes
from dlx.runs.files import read_json
from dlx.runs.folder import RunFolder
from dlx.tracking.wandb import Wandb, run_id


@pytest.fixture
def trained(dlx_call, only_run, tiny):
    """A run that was never tracked."""
    assert dlx_call("train", *tiny).code == 0
    return only_run()


def test_a_run_that_was_never_tracked_is_sent_whole_and_only_once(dlx_call, trained, wandb_server):
    write_notes(trained, Notes(("keep",), "a good one"))
    (drawn,) = (trained / "media").glob("*.png")
    (trained / "media" / "confusion.png").write_bytes(drawn.read_bytes())  # as `dlx eval` leaves it
    call = dlx_call("sync", "@last", "--project", "course", "--json")
    assert call.code == 0, call.err
    (said,) = json.loads(call.out)["runs"]
    count = len((trained / "metrics.jsonl").read_text().splitlines())
    assert (said["status"], said["rows"], said["pictures"], said["id"]) == ("sent", count, 2, trained.name)
    assert said["url"].endswith(f"/someone/course/runs/{trained.name}")

    run, rows = wandb_server.runs[trained.name], wandb_server.rows(trained.name)
    assert plain(rows) == merged(trained)
    assert [row["_step"] for row in rows] == sorted({row["_step"] for row in rows})
    times = [json.loads(line)["time"] for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert all(row["_timestamp"] in times for row in rows)
    assert (run["project"], run["jobType"], run["displayName"], run["exit"]) == ("course", "train", trained.name, 0)
    assert (run["tags"], run["notes"]) == (["keep"], "a good one")
    assert json.loads(run["config"])["model"]["value"]["hidden"] == [16]
    summary, own = wandb_server.summary(trained.name), RunFolder(trained).summary()
    assert {name: summary[name] for name in own if name != "finished"} == {
        name: value for name, value in own.items() if name != "finished"
    }
    assert summary["media/confusion"]["_type"] == "image-file"
    assert len([name for name in run["uploads"] if name.endswith(".png")]) == 2
    assert not (trained / "wandb").exists()

    known, requests = read_json(trained / "wandb.json"), wandb_server.requests
    assert (known["id"], known["project"], known["step"]) == (trained.name, "course", rows[-1]["_step"])
    call = dlx_call("sync", "@last")
    assert call.code == 0
    assert "nothing new" in call.out
    assert wandb_server.requests == requests


def test_media_of_every_kind_are_sent_at_their_step_or_in_the_summary(dlx_call, trained, wandb_server, write_media):
    write_media(trained, "-00000004")
    write_media(trained)
    (trained / "media" / "torn-00000004.curve.json").write_text("{")
    (trained / "media" / "no-picture.png").write_text("no picture")
    (trained / "media" / "notes.html").write_text("none of ours")
    call = dlx_call("sync", "@last", "--json")
    assert call.code == 0, call.err
    (said,) = json.loads(call.out)["runs"]
    assert (said["status"], said["pictures"]) == ("sent", 1 + 6 + 6)
    for name in ("torn-00000004.curve.json", "no-picture.png"):
        assert f"{name} is not sent: " in said["reason"]
    assert "notes.html" not in said["reason"]

    (row,) = (row for row in wandb_server.rows(trained.name) if row["_step"] == 4)
    types = {"picture": "image-file", "film": "video-file", "words": "html-file", "per_class": "table-file",
             "mixed": "table-file"}  # fmt: skip
    assert {name: row[f"media/{name}"]["_type"] for name in types} == types
    assert row["media/roc_table"]["_type"] == "table-file"
    summary = wandb_server.summary(trained.name)
    assert {name: summary[f"media/{name}"]["_type"] for name in types} == types
    assert summary["media/roc"]["_type"] == "table-file", "a summary has no charts"
    assert plain(wandb_server.rows(trained.name)) == merged(trained)
    uploads = wandb_server.runs[trained.name]["uploads"]
    for kind in ("images", "videos", "html", "table"):
        assert any(name.startswith(f"media/{kind}/") for name in uploads), kind
    assert "nothing new" in dlx_call("sync", "@last").out


def test_a_run_that_went_on_sends_what_is_new(dlx_call, only_run, tiny, wandb_server, sigterm_at):
    with sigterm_at(5):
        assert dlx_call("train", *tiny).code == 143
    assert dlx_call("sync", "@last").code == 0
    first, name = wandb_server.rows(only_run().name), only_run().name
    assert wandb_server.runs[name]["exit"] == 130
    assert dlx_call("resume", "@last").code == 0
    rest = len(merged(only_run())) - len(first)
    assert rest > 0
    would = dlx_call("sync", "@last", "--dry-run")
    assert "would be sent" in would.out
    call = dlx_call("sync", "@last", "--json")
    assert json.loads(call.out)["runs"][0]["rows"] == int(would.out.split("would be sent  ")[1].split()[0])
    rows = wandb_server.rows(name)
    assert rows[: len(first)] == first
    assert plain(rows) == merged(only_run())
    assert wandb_server.runs[name]["exit"] == 0


def test_what_the_server_has_is_not_sent_again_where_the_memory_is_lost(dlx_call, trained, wandb_server):
    assert dlx_call("sync", "@last").code == 0
    before = wandb_server.rows(trained.name)
    (trained / "wandb.json").write_text("{torn")
    call = dlx_call("sync", "@last", "--json")
    assert call.code == 0, call.err
    assert json.loads(call.out)["runs"][0]["rows"] == 0
    assert wandb_server.rows(trained.name) == before


def test_a_run_that_was_rewound_doubles_no_row(dlx_call, trained, wandb_server):
    """As after kill -9: rows past the checkpoint were sent, and are then written once more."""
    lines = (trained / "metrics.jsonl").read_text().splitlines(keepends=True)
    cut = next(n for n, line in enumerate(lines) if json.loads(line)["step"] > 4)
    (trained / "metrics.jsonl").write_text("".join(lines[: cut + 1]))
    assert dlx_call("sync", "@last").code == 0
    event = json.dumps({"_event": "resume", "step": 4}) + "\n"
    (trained / "metrics.jsonl").write_text("".join([*lines[: cut + 1], event, *lines[cut:]]))
    assert dlx_call("sync", "@last").code == 0
    assert plain(wandb_server.rows(trained.name)) == merged(trained)


def test_a_run_that_was_tracked_online_sends_no_row_again_and_goes_where_it_went(
    dlx_call, only_run, tiny, wandb_server
):
    assert dlx_call("train", *tiny, "tracker=wandb", "tracker.wandb.project=mine", "tracker.wandb.tags=[a]").code == 0
    before = wandb_server.rows(only_run().name)
    write_notes(only_run(), Notes(("b",), ""))
    call = dlx_call("sync", "@last")
    assert call.code == 0, call.err
    assert wandb_server.rows(only_run().name) == before
    run = wandb_server.runs[only_run().name]
    assert (run["project"], run["tags"]) == ("mine", ["a", "b"])


def test_a_run_that_was_tracked_offline_is_sent_from_its_own_files(dlx_call, only_run, tiny, wandb_server, monkeypatch):
    assert dlx_call("train", *tiny, "tracker=wandb", "tracker.wandb.mode=offline").code == 0
    assert written(only_run())
    assert not wandb_server.runs
    assert dlx_call("sync", "@last").code == 0
    assert plain(wandb_server.rows(only_run().name)) == merged(only_run())


def test_a_sweep_sends_its_members_in_one_group(dlx_call, here, tiny, wandb_server):
    for _ in range(2):  # members of two sweeps have the same names
        assert dlx_call("sweep", *tiny, "seed=0,1").code == 0
    plans = sorted((here / "outputs" / "sweep").iterdir())
    call = dlx_call("sync", plans[0].name)
    assert call.code == 0, call.err
    assert len(call.out.splitlines()) == len(wandb_server.runs) == 2
    call = dlx_call("sync", "--all")
    assert call.code == 0, call.err
    assert call.out.count("nothing new") == 2
    assert len(wandb_server.runs) == 4
    for plan in plans:
        for run in (plan / "runs").iterdir():
            sent = wandb_server.runs[f"{plan.name}.{run.name}"]
            assert (sent["groupName"], sent["jobType"], sent["displayName"]) == (plan.name, "sweep", run.name)
            assert plain(wandb_server.rows(f"{plan.name}.{run.name}")) == merged(run)


def files_of(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.parametrize("key", [False, True])
def test_without_a_key_or_a_network_it_says_so_and_changes_nothing(dlx_call, trained, no_key, monkeypatch, key):
    if key:
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    before = files_of(trained)
    call = dlx_call("sync", "@last")
    assert call.code == 2
    (line,) = call.err.splitlines()
    assert ("no connection to http://127.0.0.1:9" if key else "no API key") in line
    assert files_of(trained) == before


def test_without_a_key_at_a_terminal_nothing_is_asked(trained, no_key):
    """W&B's client shows a menu there, and waits for an answer."""
    import pty

    controller, terminal = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dlx", "sync", "@last"],
            stdin=terminal, stdout=terminal, stderr=terminal, env=dict(os.environ), timeout=60, check=False,
        )  # fmt: skip
        said = os.read(controller, 10_000).decode()
    finally:
        os.close(controller)
        os.close(terminal)
    assert done.returncode == 2
    assert said.startswith("error: no API key")
    assert len(said.splitlines()) == 1


def test_what_fails_on_the_way_is_said_and_sent_the_next_time(dlx_call, trained, wandb_server, monkeypatch):
    def fails(self, *arguments):
        self.run.finish(exit_code=1)
        raise ConnectionResetError("the server went away\nand more")

    before = files_of(trained)
    with monkeypatch.context() as patch:
        patch.setattr(Wandb, "finish", fails)
        call = dlx_call("sync", "@last")
    assert call.code == 1
    assert "failed  ConnectionResetError: the server went away" in call.out
    assert files_of(trained) == before
    assert dlx_call("sync", "@last").code == 0
    assert plain(wandb_server.rows(trained.name)) == merged(trained)


def test_offline_it_writes_what_the_client_can_send_and_remembers_nothing(dlx_call, trained, no_key):
    call = dlx_call("sync", "@last", "--mode", "offline")
    assert call.code == 0, call.err
    assert "written" in call.out
    (found,) = written(trained)
    assert plain(found.rows) == merged(trained)
    assert found.metrics["val/accuracy"].summary.max
    assert found.summary["test/accuracy"] == RunFolder(trained).summary()["test/accuracy"]
    assert found.exit_code == 0
    assert not (trained / "wandb.json").exists()


def test_a_dry_run_needs_no_network_and_does_nothing(dlx_call, trained, no_key):
    before = files_of(trained)
    call = dlx_call("sync", "@last", "--dry-run")
    assert call.code == 0
    count = len((trained / "metrics.jsonl").read_text().splitlines())
    assert f"would be sent  {count} rows, 1 pictures" in call.out
    assert files_of(trained) == before


def test_a_damaged_run_keeps_no_other_from_being_sent(dlx_call, trained, tiny, no_key):
    with (trained / "metrics.jsonl").open("a") as file:
        file.write('{"note": "by hand"}\n{"_event": "resume"}\n')
    assert dlx_call("train", *tiny, "name=other").code == 0
    (other,) = (trained.parents[1] / "other").iterdir()
    (other / "config.yaml").write_text("a: [")
    call = dlx_call("sync", "--all", "--dry-run")
    assert call.code == 1
    assert f"{other.name}  failed  cannot be read: " in call.out
    assert f"{trained.name}  would be sent  " in call.out


def test_an_id_holds_nothing_that_is_refused(tmp_path):
    assert run_id(tmp_path / "20261101-000000-mlp-00aa") == "20261101-000000-mlp-00aa"
    found = run_id(tmp_path / "000-lr=0.1,seed=2")
    assert len(found) == 32
    assert found.isalnum()
    assert found == run_id(tmp_path / "000-lr=0.1,seed=2") != run_id(tmp_path / "000-lr=0.1,seed=3")


def test_a_run_that_is_under_way_is_left_alone(dlx_call, trained, wandb_server, monkeypatch):
    monkeypatch.setattr(RunFolder, "status", lambda self: {"status": "running", "reason": None})
    call = dlx_call("sync", "@last")
    assert call.code == 0
    assert "running" in call.out
    assert not wandb_server.requests


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((), "name runs, or say --all"), (("--all", "x"), "name none"), (("nothing",), "no such run"),
     (("@last", "--mode", "on"), "must be online or offline")],
)  # fmt: skip
def test_mistakes(dlx_call, trained, arguments, words):
    call = dlx_call("sync", *arguments)
    assert call.code == 2
    assert words in call.err


def test_the_client_is_not_imported_before_it_is_needed():
    code = "import sys, dlx.cli, dlx.cli.sync, dlx.tracking.sync; sys.exit('wandb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_its_target_is_what_configurations_name():
    assert sync.TARGET == "dlx.tracking.wandb.Wandb"
