"""What the server answers, over real run folders."""

import asyncio
import json
import os
import shutil
import struct
import sys
import threading
import time
import zlib
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest

from dlx.dashboard import cache as caches
from dlx.dashboard.cache import ColumnCache, ConfigCache
from dlx.dashboard.importance import importance
from dlx.dashboard.index import Index, run_json
from dlx.dashboard.live import news
from dlx.runs.catalog import Catalog, Entry, read_config
from dlx.runs.columns import Columns
from dlx.runs.folder import RunFolder
from dlx.runs.metrics import MetricsWriter, read_metrics


def listed(client, **params):
    answer = client.get("/api/runs", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def by_kind(client):
    """The run, the sweep, and its members."""
    runs = listed(client)["runs"]
    (sweep,) = (run for run in runs if run["is_plan"])
    (alone,) = (run for run in runs if not run["is_plan"] and run["plan"] is None)
    members = [run for run in runs if run["plan"] == sweep["id"]]
    return alone, sweep, members


def unpacked(answer) -> dict[str, list[np.ndarray]]:
    """The series of a binary answer, as the contract says."""
    data = answer.content
    (length,) = struct.unpack_from("<I", data)
    assert (4 + length) % 8 == 0
    at, found = 4 + length, {}
    for item in json.loads(data[4:at])["series"]:
        found[item["id"]] = []
        for _ in range(3 if item["smooth"] else 2):
            found[item["id"]].append(np.frombuffer(data, "<f8", item["n"], at))
            at += 8 * item["n"]
    assert at == len(data)
    return found


def test_runs_are_listed_whole_and_then_by_what_changed(client, root):
    alone, _, members = by_kind(client)
    assert len(members) == 2
    assert alone["config"]["model"] == "mlp"
    assert alone["status"] == "finished"
    assert 0 <= alone["metrics"]["test/accuracy"] <= 1
    assert (alone["tags"], alone["notes"], alone["monitor"]) == ([], "", "val/accuracy:max")
    first = listed(client)
    assert first["root"] == "outputs"
    assert listed(client, since=first["version"]) == {**first, "runs": [], "gone": []}
    folder = RunFolder(root / members[0]["id"])
    folder.write_status("failed", "no space left")
    shutil.rmtree(root / alone["id"])
    time.sleep(0.35)
    news = listed(client, since=first["version"])
    assert [(run["id"], run["reason"]) for run in news["runs"]] == [(members[0]["id"], "no space left")]
    assert news["gone"] == [alone["id"]]
    assert news["version"] > first["version"]
    assert len(listed(client, since=1)["runs"]) == 3, "a version of an earlier start: everything"
    assert client.get("/api/runs", params={"since": "x"}).status_code == 400


def test_goals_are_those_of_the_runs_that_are_asked_for(client, root):
    """What a run monitors says it of its figure, even against the figure's name."""
    alone, _, members = by_kind(client)
    for run, monitor in ((alone, "val/accuracy:min"), (members[0], "val/accuracy:max")):
        folder = RunFolder(root / run["id"])
        folder.write_summary({**folder.summary(), "monitor": monitor, "val/odd": 1.0})
    time.sleep(0.35)
    listed(client)
    found = [client.get("/api/goals", params={"runs": run["id"]}).json()["goals"] for run in (alone, members[0])]
    assert [(goals["val/accuracy"], goals["val/loss"], goals["val/odd"]) for goals in found] == [
        ("min", "min", None), ("max", "min", None),
    ]  # fmt: skip


def test_repeats_have_one_signature(client):
    """As for `dlx compare`: what a run writes does not count; a learning rate does."""
    _, _, members = by_kind(client)
    assert members[0]["signature"] != members[1]["signature"]
    entry = Entry("a", Path(), False, None, 0.0, {"seed": 0, "optimizer.lr": 1, "dataset.fold": 0, "name": "a"})
    signatures = [
        run_json(replace(entry, config=entry.config | other))["signature"]
        for other in (
            {}, {"seed": 1}, {"dataset.fold": 4}, {"name": "b", "trainer.checkpoint_every": 9}, {"optimizer.lr": 1.0},
            {"optimizer.lr": True}, {"dataset.split_seed": 1}, {"dataset.fold": None},
        )
    ]  # fmt: skip
    assert len(set(signatures[:5])) == 1
    assert len(set(signatures)) == 4
    first = listed(client)
    assert "dataset.fold" in first["repeats"]
    assert "name" in first["outputs"]


def test_a_diverged_figure_is_strict_json(client, root):
    alone, *_ = by_kind(client)
    folder = RunFolder(root / alone["id"])
    folder.write_summary({**folder.summary(), "val/loss": float("nan"), "val/accuracy": float("-inf")})
    time.sleep(0.35)
    text = client.get("/api/runs").text
    found = {run["id"]: run for run in json.loads(text, parse_constant=lambda name: pytest.fail(name))["runs"]}
    assert found[alone["id"]]["metrics"]["val/loss"] == "NaN"
    assert found[alone["id"]]["metrics"]["val/accuracy"] == "-Infinity"


def test_answers_are_packed_for_who_takes_it(client):
    assert client.get("/api/runs").headers["content-encoding"] == "gzip"
    assert "content-encoding" not in client.get("/api/runs", headers={"accept-encoding": "identity"}).headers


def test_series_are_the_rows(client, root):
    alone, sweep, members = by_kind(client)
    ids = [run["id"] for run in (alone, sweep, *members)]
    for axis in ("step", "epoch", "time", "relative"):
        found = unpacked(client.get("/api/series", params={"metric": "train/loss", "runs": ids, "x": axis}))
        assert set(found) == set(ids) - {sweep["id"]}
        for name, (x, y) in found.items():
            rows = read_metrics(root / name / "metrics.jsonl")
            first = rows[0]["time"] if axis == "relative" else 0
            key = "time" if axis == "relative" else axis
            rows = [row for row in rows if "train/loss" in row]
            np.testing.assert_array_equal(x, [row[key] - first for row in rows])
            np.testing.assert_array_equal(y, [row["train/loss"] for row in rows])
    names = client.get("/api/curves", params={"runs": ids}).json()["names"]
    assert {"train/loss", "val/accuracy"} <= set(names)
    assert len(names) == len(set(names))
    assert unpacked(client.get("/api/series", params={"metric": "none", "runs": ids})) == {}
    smoothed = unpacked(client.get("/api/series", params={"metric": "train/loss", "runs": ids, "smooth": 0.5}))
    x, y, line = smoothed[alone["id"]]
    assert line[0] == y[0]
    assert abs(line[-1] - line[0]) < abs(y[-1] - y[0])


@pytest.mark.parametrize("asked", ["", "metric=a&x=steps", "metric=a&points=many", "metric=a&smooth=nan"])
def test_a_wrong_question_is_one_line(client, asked):
    answer = client.get(f"/api/series?{asked}&runs=a")
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]


def test_long_curves_are_thinned_and_keep_their_spike(client, root):
    alone, *_ = by_kind(client)
    with (root / alone["id"] / "metrics.jsonl").open("w") as file:
        for step in range(5000):
            file.write(json.dumps({"step": step, "time": 1e9 + step, "spiky": 9.0 if step == 3210 else 0.1}) + "\n")
    asked = {"metric": "spiky", "runs": alone["id"], "points": 100}
    ((x, y),) = unpacked(client.get("/api/series", params=asked)).values()
    assert len(x) <= 100
    assert x[y.argmax()] == 3210
    with (root / alone["id"] / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 5000, "time": 2e9, "spiky": -7.0}) + "\n")
    ((x, y),) = unpacked(client.get("/api/series", params=asked)).values()
    assert (x[-1], y[-1]) == (5000, -7)


def test_bands_are_by_group(client, root):
    alone, _, members = by_kind(client)
    groups = ([run["id"] for run in members], [alone["id"]], ["nobody"])
    asked = {"metric": "val/loss", "group": [json.dumps(ids) for ids in groups]}
    both, one, none = client.get("/api/bands", params=asked).json()["bands"]
    assert (both["n"], one["n"], none["n"]) == (2, 1, 0)
    assert set(both["count"]) == {2}
    values = [
        [row["val/loss"] for row in read_metrics(root / run["id"] / "metrics.jsonl") if "val/loss" in row]
        for run in members
    ]
    np.testing.assert_allclose(both["mean"], np.mean(values, 0))
    np.testing.assert_allclose(both["std"], np.std(values, 0, ddof=1))
    assert one["std"] == [0] * len(one["x"])
    assert none["x"] == []
    with (root / alone["id"] / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "time": 1, "gap": 1}\n{"step": 10, "time": 2, "gap": "NaN"}\n')
    (gap,) = client.get("/api/bands", params={"metric": "gap", "group": json.dumps([alone["id"]])}).json()["bands"]
    assert gap["mean"] == [1, None]
    for wrong in (alone["id"], "[1]", "{}", "[" * 10_000):
        assert client.get("/api/bands", params={"metric": "gap", "group": wrong}).status_code == 400


def test_an_id_may_hold_a_comma(client, root):
    alone, *_ = by_kind(client)
    name = "odd/a,b"
    shutil.copytree(root / alone["id"], root / name)
    time.sleep(0.35)
    assert name in [run["id"] for run in listed(client)["runs"]]
    asked = {"runs": ["x", name], "metric": "val/loss"}
    assert client.get("/api/curves", params=asked).json()["names"]
    assert {item["run"] for item in client.get("/api/media", params=asked).json()["media"]} == {name}
    assert client.get("/api/importance", params=asked).json()["n"] == 1
    (band,) = client.get("/api/bands", params={"metric": "val/loss", "group": json.dumps(["x", name])}).json()["bands"]
    assert band["n"] == 1


def test_a_run_tells_how_to_make_it_again(client, root):
    alone, sweep, _ = by_kind(client)
    about = client.get("/api/run", params={"id": alone["id"]}).json()
    assert about["reproduce"] == f"dlx train --from outputs/{alone['id']}"
    assert about["path"] == f"outputs/{alone['id']}"
    assert about["config_text"] == (root / alone["id"] / "config.yaml").read_text()
    assert about["environment"]["versions"]["dlx"]
    assert about["command"][1] == "train"
    assert about["summary"]["monitor"] == "val/accuracy:max"
    assert about["log"] is True
    plan = client.get("/api/run", params={"id": sweep["id"]}).json()
    assert plan["reproduce"].startswith("dlx sweep model=mlp")
    assert client.get("/api/run", params={"id": "nobody"}).status_code == 404


def test_a_log_is_read_from_where_one_stopped(client, root):
    alone, *_ = by_kind(client)
    path = root / alone["id"] / "log.txt"
    path.write_bytes("first é\n".encode() + b"half \xc3")
    read = client.get("/api/log", params={"id": alone["id"], "offset": -1}).json()
    assert read == {"text": "first é\nhalf ", "next": path.stat().st_size - 1}
    with path.open("ab") as file:
        file.write(b"\xa9\n")
    read = client.get("/api/log", params={"id": alone["id"], "offset": read["next"]}).json()
    assert read == {"text": "é\n", "next": path.stat().st_size}
    path.write_text("".join(f"line {number}\n" for number in range(20_000)))
    read = client.get("/api/log", params={"id": alone["id"], "offset": -1}).json()
    assert read["text"].startswith("line ")
    assert read["text"].endswith("line 19999\n")
    assert len(read["text"]) <= 64 << 10
    path.unlink()
    assert client.get("/api/log", params={"id": alone["id"], "offset": 0}).status_code == 404


def test_pictures_by_run_and_step(client, root):
    alone, _, members = by_kind(client)
    found = client.get("/api/media", params={"runs": [alone["id"], members[0]["id"]]}).json()["media"]
    assert {(item["run"], item["name"], item["step"]) for item in found} == {
        (alone["id"], "predictions", 8),
        (members[0]["id"], "predictions", 8),
    }
    answer = client.get(found[0]["url"])
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == (root / alone["id"] / "media" / "predictions-00000008.png").read_bytes()


def test_media_of_each_kind_by_name_and_step(client, root, media):
    alone, *_ = by_kind(client)
    folder = root / alone["id"] / "media"
    for step in (4, 8):
        media(folder, step)
    (folder / "confusion.png").write_bytes((folder / "picture-00000004.png").read_bytes())
    found = client.get("/api/media", params={"runs": alone["id"]}).json()["media"]
    assert {(item["name"], item["kind"], item["step"]) for item in found} == {
        ("predictions", "image", 8), ("confusion", "image", None),
        *((name, kind, step) for step in (4, 8) for name, kind in
          (("picture", "image"), ("film", "animation"), ("words", "text"), ("roc", "curve"), ("per_class", "table"))),
    }  # fmt: skip
    answers = {item["name"]: client.get(item["url"]) for item in found if item["step"] in (8, None)}
    assert {name: answer.headers["content-type"] for name, answer in answers.items()} == {
        "predictions": "image/png", "confusion": "image/png", "picture": "image/png", "film": "image/gif",
        "words": "text/plain; charset=utf-8", "roc": "application/json", "per_class": "application/json",
    }  # fmt: skip
    for name in ("picture-00000008.png", "film-00000008.gif"):
        assert answers[name.partition("-")[0]].content == (folder / name).read_bytes()
    assert answers["words"].text == "at step 8\n<b>é</b>"
    assert answers["roc"].json() == {
        "lines": {"cat": [[0, 0.5, 1], [0, 0.08, 1]], "dog": [[0, 0.5, 1], [0, None, 1]]},
        "x": "fpr", "y": "tpr", "title": "ROC", "count": 2,
    }  # fmt: skip
    assert answers["per_class"].json() == {
        "columns": ["class", "ap", "n"], "rows": [["cat", 0.5, 8], ["dog", "NaN", 2]], "numbers": [1, 2],
        "count": 2, "wide": 3,
    }  # fmt: skip


def test_a_medium_that_changes_has_another_address(client, root):
    alone, *_ = by_kind(client)
    file, urls = root / alone["id"] / "media" / "words.txt", []
    for text in ("first", "second"):
        file.write_text(text)
        found = client.get("/api/media", params={"runs": alone["id"]}).json()["media"]
        urls += [item["url"] for item in found if item["name"] == "words"]
        answer = client.get(urls[-1])
        assert answer.text == text
        assert "immutable" in answer.headers["cache-control"]
    assert urls[0] != urls[1]


def test_importance_finds_the_key_that_matters(tmp_path):
    random = np.random.default_rng(0)
    entries = []
    for number in range(40):
        lr, seed, model = 10 ** random.uniform(-4, -1), number, random.choice(["mlp", "cnn"])
        config = {"optimizer.lr": lr, "lr_again": lr, "seed": seed, "model": str(model), "same": 1}
        figure = -np.log10(lr) + (0.05 if model == "cnn" else 0)
        entries.append(Entry(f"r{number}", tmp_path, False, None, 0.0, config, metrics={"val/loss": figure}))
    found = importance(entries, "val/loss")
    assert found["n"] == 40
    first, *rest = found["items"]
    assert first["key"] == "optimizer.lr"
    assert first["importance"] > 0.9
    assert -1 <= first["correlation"] < -0.99
    assert {item["key"]: item["correlation"] is None for item in rest} == {"model": True}  # no seed
    assert sum(item["importance"] for item in found["items"]) == pytest.approx(1)
    assert all(0 <= item["std"] < 0.1 for item in found["items"])
    assert importance(entries[:15], "val/loss") == {"n": 15, "fewest": 16, "items": []}
    assert importance(entries, "nothing") == {"n": 0, "fewest": 16, "items": []}


def test_filter_speaks_the_language_of_the_terminal(client):
    pytest.importorskip("dlx.runs.expression", reason="the filter language is not there yet")
    _, _, members = by_kind(client)
    answer = client.get("/api/filter", params={"where": "optimizer.lr == 0.01 and model == mlp"})
    assert answer.json() == {"ids": [run["id"] for run in members if run["config"]["optimizer.lr"] == 0.01]}
    for wrong in ("lr ==", "no_such_key == 1", "((((", "optimizer.lr > 90%"):
        answer = client.get("/api/filter", params={"where": wrong})
        assert answer.status_code == 400
        assert answer.json()["error"]


def test_notes_are_written_and_nothing_else(client, root, tree):
    alone, *_ = by_kind(client)
    before = tree(root / alone["id"])
    begun = {"tags": [], "notes": ""}
    said = {"id": alone["id"], "before": begun, "tags": ["good", "good", "<b>"], "notes": "line\nline é"}
    run = client.post("/api/notes", json=said).json()["run"]
    assert (run["tags"], run["notes"]) == (["good", "<b>"], "line\nline é")
    assert by_kind(client)[0]["tags"] == ["good", "<b>"]
    after = tree(root / alone["id"])
    assert set(after) - set(before) == {"notes.json"}
    assert {name: after[name] for name in before} == before
    for wrong in (
        {"tags": "good"},
        {"tags": [1]},
        {"notes": None},
        {"tags": ["x" * 1000]},
        {"notes": "\ud800"},
        {"before": 0},
    ):
        data = json.dumps(said | wrong)
        answer = client.post("/api/notes", content=data, headers={"content-type": "application/json"})
        assert answer.status_code == 400, wrong
    assert client.post("/api/notes", json=said | {"id": "../.."}).status_code == 404
    assert by_kind(client)[0]["notes"] == "line\nline é"


def test_notes_that_were_changed_elsewhere_are_not_overwritten(client, root):
    alone, *_ = by_kind(client)
    mine, other = {"tags": ["mine"], "notes": "a"}, {"tags": ["other", "other"], "notes": "b"}
    (root / alone["id"] / "notes.json").write_text(json.dumps(other))
    answer = client.post("/api/notes", json={"id": alone["id"], "before": {"tags": [], "notes": ""}, **mine})
    assert answer.status_code == 409
    assert "changed elsewhere" in answer.json()["error"]
    assert answer.json()["now"] == other
    assert json.loads((root / alone["id"] / "notes.json").read_text()) == other
    answer = client.post("/api/notes", json={"id": alone["id"], "before": other, **mine})
    assert answer.status_code == 200
    again = client.post("/api/notes", json={"id": alone["id"], "before": other, **mine})
    assert again.status_code == 200, "it is there already: nothing is lost"


def test_deleted_runs_come_back_as_they_were(client, root, tree):
    alone, sweep, members = by_kind(client)
    before = tree(root)
    answer = client.post("/api/trash", json={"ids": [sweep["id"], members[0]["id"], alone["id"]]}).json()
    assert set(answer["gone"]) == {alone["id"], sweep["id"], *(run["id"] for run in members)}
    assert listed(client)["runs"] == []
    assert not (root / sweep["id"]).exists()
    assert (root / ".trash" / answer["undo"] / "manifest.json").is_file()
    restored = client.post("/api/restore", json={"undo": answer["undo"]}).json()["restored"]
    assert set(restored) == {alone["id"], sweep["id"]}
    files = {name: found[0] for name, found in before.items() if not name.startswith(".trash")}
    assert {name: found[0] for name, found in tree(root).items() if not name.startswith(".trash")} == files
    assert len(listed(client)["runs"]) == 4
    for undo in (answer["undo"], "..", "nothing", ""):
        assert client.post("/api/restore", json={"undo": undo}).status_code == 409


def test_a_sweep_goes_with_the_last_of_its_members(client, root, tree):
    alone, sweep, members = by_kind(client)
    before = tree(root)
    first, *rest = (run["id"] for run in members)
    inner = f"{sweep['id']}/runs/inner"  # a method that is a member: its last run takes it along, and it the sweep
    shutil.copytree(root / sweep["id"], "inner")
    shutil.move("inner", root / inner)
    time.sleep(0.35)
    inside = [run["id"] for run in listed(client)["runs"] if run["plan"] == inner]
    assert len(inside) == 2
    some = client.post("/api/trash", json={"ids": [first, *inside]}).json()
    assert set(some["gone"]) == {first, inner, *inside}
    assert (root / sweep["id"]).exists()
    shutil.rmtree(root / ".trash" / some["undo"] / "1")
    assert client.post("/api/restore", json={"undo": some["undo"]}).json() == {"restored": [first]}
    answer = client.post("/api/trash", json={"ids": [first, *rest, alone["id"]]}).json()
    assert set(answer["gone"]) == {alone["id"], sweep["id"], first, *rest}
    assert not (root / sweep["id"]).exists()
    restored = client.post("/api/restore", json={"undo": answer["undo"]}).json()["restored"]
    assert set(restored) == {alone["id"], sweep["id"]}
    files = {name: found[0] for name, found in before.items() if not name.startswith(".trash")}
    assert {name: found[0] for name, found in tree(root).items() if not name.startswith(".trash")} == files


def test_what_is_alive_is_not_deleted_and_what_is_in_the_way_stays(client, root):
    alone, sweep, members = by_kind(client)
    running = RunFolder(root / members[0]["id"])
    running.lock.acquire()
    running.write_status("running")
    for ids in ([alone["id"], members[0]["id"]], [sweep["id"]]):
        answer = client.post("/api/trash", json={"ids": ids})
        assert answer.status_code == 409
        assert "running" in answer.json()["error"]
    running.lock.release()
    assert len(listed(client)["runs"]) == 4
    undo = client.post("/api/trash", json={"ids": [alone["id"]]}).json()["undo"]
    (root / alone["id"]).mkdir()
    answer = client.post("/api/restore", json={"undo": undo})
    assert answer.status_code == 409
    (root / alone["id"]).rmdir()
    assert client.post("/api/restore", json={"undo": undo}).json() == {"restored": [alone["id"]]}


def test_a_manifest_leads_nowhere_else(client, root):
    alone, *_ = by_kind(client)
    undo = client.post("/api/trash", json={"ids": [alone["id"]]}).json()["undo"]
    manifest = root / ".trash" / undo / "manifest.json"
    manifest.write_text(json.dumps({"moved": {"0": "../outside"}}))
    assert client.post("/api/restore", json={"undo": undo}).status_code == 409
    assert not Path("outside").exists()


def test_news_come_as_events(index, root):
    """The catalog's change and the new rows of a run, to one who listens."""
    name = next(name for name, entry in index.entries.items() if not entry.is_plan)

    async def listen():
        stream = news(index)
        assert (await anext(stream)).startswith(b":")
        writer = MetricsWriter(root / name / "metrics.jsonl")
        writer.write({"step": 9, "train/loss": 0.5})
        writer.close()
        rows = await asyncio.wait_for(anext(stream), 5)
        RunFolder(root / name).write_status("failed", "why")
        runs = await asyncio.wait_for(anext(stream), 5)
        index.close()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(anext(stream), 5)
        return rows.decode(), runs.decode()

    rows, runs = asyncio.run(listen())
    assert rows.startswith("event: rows\ndata: ")
    assert json.loads(rows.split("data: ")[1]) == {"runs": [name]}
    assert runs.startswith("event: runs\ndata: ")
    (run,) = json.loads(runs.split("data: ")[1])["runs"]
    assert (run["id"], run["reason"]) == (name, "why")
    assert not index._listeners


def test_a_look_that_fails_does_not_end_the_news(index, root, monkeypatch, caplog):
    real, failures = index.catalog.refresh, [OSError("gone"), RuntimeError("odd")]

    def refresh():
        if failures:
            raise failures.pop()
        return real()

    monkeypatch.setattr(index.catalog, "refresh", refresh)
    woken = threading.Event()
    index.listen(woken.set)
    name = next(iter(index.entries))
    RunFolder(root / name).write_status("failed", "why")
    assert woken.wait(5)
    assert len(caplog.records) == 2
    assert index.entries[name].reason == "why"


def test_nothing_is_looked_at_while_nobody_listens(index, monkeypatch):
    looks = []
    monkeypatch.setattr(index.catalog, "refresh", lambda: looks.append(1) or (set(), set()))
    time.sleep(0.8)
    assert not looks


def test_browsing_writes_nothing(client, root, tree):
    alone, sweep, members = by_kind(client)
    ids = urlencode([("runs", run["id"]) for run in (alone, sweep, *members)])
    group = urlencode({"group": json.dumps([alone["id"], sweep["id"]])})
    before = tree(root)
    for path in (
        "/", "/static/main.js", "/api/runs", f"/api/curves?{ids}", f"/api/series?metric=lr&{ids}",
        f"/api/bands?metric=lr&{group}", f"/api/media?{ids}", f"/api/run?id={alone['id']}",
        f"/api/log?id={alone['id']}&offset=-1", f"/api/importance?metric=val/loss&{ids}",
        f"/api/goals?{ids}",
    ):  # fmt: skip
        assert client.get(path).status_code == 200, path
    assert tree(root) == before


# The cache


@pytest.fixture
def long_run(tmp_path, monkeypatch):
    monkeypatch.setattr(caches, "WORTH", 1000)
    path = tmp_path / "run" / "metrics.jsonl"
    path.parent.mkdir()
    path.write_text(
        "".join(json.dumps({"step": step, "time": 1.0 * step, "lr": step / 3}) + "\n" for step in range(100))
    )
    return path


def saved(folder, path):
    columns = Columns(path)
    columns.refresh()
    assert ColumnCache(folder).save(columns)
    (file,) = folder.glob("*.columns")
    return columns, file


def test_columns_come_back_from_the_cache_and_grow(long_run, tmp_path):
    columns, file = saved(tmp_path / "cache", long_run)
    again = ColumnCache(tmp_path / "cache").load(long_run)
    assert again.offset == columns.offset
    assert not again.refresh()
    np.testing.assert_array_equal(again.curve("lr").y, columns.curve("lr").y)
    with long_run.open("a") as out:
        out.write('{"step": 100, "time": 1, "lr": 5, "new": "NaN"}\n')
    assert again.refresh()
    assert again.curve("lr").y[-1] == 5
    assert again.names == ["lr", "new"]
    assert file.stat().st_mode & 0o077 == 0 or file.parent.stat().st_mode & 0o077 == 0


def swapped(data: bytes) -> bytes:
    """Another run's, its checksum right."""
    start = len(caches.MAGIC) + 16
    body = data[start:].replace(b"/run/metrics", b"/rum/metrics")
    return caches.MAGIC + struct.pack("<QII", len(body), zlib.crc32(body), 0) + body


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"", lambda data: data[:-1], lambda data: data[:10], lambda data: data + b"x", swapped,
        lambda data: data[:-100] + b"\1" + data[-99:], lambda data: b"x" + data[1:], lambda data: bytes(len(data)),
    ],
)  # fmt: skip
def test_a_damaged_cache_is_read_anew(long_run, tmp_path, damage):
    columns, file = saved(tmp_path / "cache", long_run)
    file.write_bytes(damage(file.read_bytes()))
    again = ColumnCache(tmp_path / "cache").load(long_run)
    assert again.offset == 0
    assert again.refresh()
    np.testing.assert_array_equal(again.curve("lr").y, columns.curve("lr").y)


def test_a_replaced_run_is_read_anew(long_run, tmp_path):
    saved(tmp_path / "cache", long_run)
    long_run.with_name("beside").write_text('{"step": 1, "time": 1, "lr": 7}\n')
    long_run.with_name("beside").replace(long_run)
    again = ColumnCache(tmp_path / "cache").load(long_run)
    again.refresh()
    np.testing.assert_array_equal(again.curve("lr").y, [7])


def test_old_files_go_and_a_full_disk_is_borne(long_run, tmp_path):
    folder = tmp_path / "cache"
    _, file = saved(folder, long_run)
    os.utime(file, (0, 0))
    ColumnCache(folder).prune()
    assert not file.exists()
    (tmp_path / "file").write_text("")
    columns = Columns(long_run)
    columns.refresh()
    assert not ColumnCache(tmp_path / "file" / "cache").save(columns)


def test_configurations_are_parsed_once(root, tmp_path, monkeypatch):
    parsed = []
    monkeypatch.setattr(caches, "read_config", lambda path: parsed.append(path) or read_config(path))
    folder = tmp_path / "cache"
    for expected in (4, 0):
        parsed.clear()
        configs = ConfigCache(folder, root)
        catalog = Catalog(root, read=configs)
        catalog.refresh()
        assert len(parsed) == expected
        plain = Catalog(root)
        plain.refresh()
        assert catalog.entries == plain.entries
        configs.save()
    (file,) = folder.iterdir()
    for damage in ("", "[]", '{"root": 1}', '{"root": "x", "runs": {"a": 1}}'):
        file.write_text(damage)
        assert ConfigCache(folder, root)(plain.entries[min(plain.entries)].path / "config.yaml")["model"] == "mlp"


def test_columns_that_are_not_looked_at_go(index, monkeypatch):
    monkeypatch.setattr("dlx.dashboard.index.HELD_RUNS", 1)
    for _ in range(2):
        for entry in index.entries.values():
            index.names(entry)
    assert len(index._columns) == 1


def test_a_second_start_answers_from_the_cache(root, here, monkeypatch):
    monkeypatch.setattr(caches, "WORTH", 100)
    for _ in range(2):
        index = Index(root, cache=here / "cache")
        index.look()
        curves = [index.curve(entry, "train/loss", "step") for entry in index.entries.values()]
        assert sum(len(curve.x) > 0 for curve in curves) == 3
        index.close()
        monkeypatch.setattr(Columns, "_take", lambda *_: pytest.fail("parsed again"))
    assert sorted(path.suffix for path in (here / "cache").iterdir()) == [".columns"] * 3 + [".json"]


def test_nothing_of_it_is_imported_by_other_commands(here):
    import subprocess

    code = (
        "import sys, dlx.cli\nsys.argv = ['dlx', 'runs']\n"
        "try: dlx.cli.main()\nexcept SystemExit: pass\n"
        "print([name for name in ('starlette', 'uvicorn', 'plotly', 'anyio', 'dlx.dashboard') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
