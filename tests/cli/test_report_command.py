import base64
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from dlx.runs.catalog import Notes, write_notes
from dlx.runs.html_report import command
from dlx.runs.media import Animation, Curve, Table, Text, encode


@pytest.fixture
def report(dlx_call, read_page):
    """The page that `dlx report RUN` writes."""

    def call(run: str):
        done = dlx_call("report", run)
        assert done.code == 0, done.err
        (file,) = Path().glob("report-*.html")
        return read_page(file)

    return call


def test_a_run_is_a_page(report, outputs):
    run = next(outputs.glob("mlp/*function1d*"))
    page = report("function1d")
    text = Path(f"report-{run.name}.html").read_text()
    for part in ("Command", "Results", "Curves", "Pictures", "Configuration", "Environment"):
        assert part in page.text
    assert "dlx train model=mlp data=function1d 'model.hidden=[8]'" in page.text
    assert f"dlx train --from {run.name}" in page.text
    summary = json.loads((run / "summary.json").read_text())
    assert f"{summary['test/loss']:.4f}" in page.text
    assert "torch" in page.text
    assert page.text.index("Set on the command line") < page.text.index("optimizer: adam")
    assert "fit, step 12" in page.text
    assert all(url.startswith("data:image/") for url in page.loads)
    assert sum(url.startswith("data:image/svg") for url in page.loads) == 2  # light and dark
    assert "script" not in page.tags
    assert "script-src 'none'" in page.policy
    assert "@media print" in text


def test_a_sweep_is_a_page_with_its_comparison(report, outputs):
    page = report("sweep")
    assert "4 runs in 2 groups" in page.text
    assert "±" in page.text
    assert "Pictures of the best" in page.text
    assert "Varied: optimizer.lr, seed." in page.text
    assert "trainer.max_steps" in page.text


def test_a_diverged_run_says_why(report, outputs):
    page = report("sgd")
    assert "diverged: the loss is nan" in page.text
    assert "Nothing was measured" in page.text


def test_where_it_is_written(dlx_call, outputs):
    told = json.loads(dlx_call("report", "sgd", "--out", "a.html", "--json").out)
    assert told["report"] == "a.html"
    assert Path("a.html").exists()
    call = dlx_call("report", "sgd", "--out", "-", "--json")
    assert call.code == 2
    assert "only one of them" in call.err
    assert dlx_call("report", "sgd", "--out", "-").out.startswith("<!doctype html>")
    assert "--out no/a.html: cannot be written" in dlx_call("report", "sgd", "--out", "no/a.html").err


def test_nothing_of_a_run_is_markup_and_links_are_not_followed(report, outputs, here, evil):
    run = next(outputs.glob("mlp/*function1d*"))
    write_notes(run, Notes((evil,), f"</script>{evil}"))
    environment = json.loads((run / "environment.json").read_text())
    environment["command"] += [evil]
    (run / "environment.json").write_text(json.dumps(environment))
    secret = b"\x89PNG\r\n\x1a\nsecret"
    (here / "secret.png").write_bytes(secret)
    (run / "media" / "link.png").symlink_to(here / "secret.png")
    (run / "media" / "text.png").write_text("no picture")
    run.rename(run.with_name(f"function1d{evil}"))
    page = report("function1d")
    assert evil in page.text
    assert page.tags.count("img") == 2  # the curves and the fit
    assert all(url.startswith("data:image/") for url in page.loads)
    assert "link" not in page.text


def write_medium(run, name, medium):
    suffix, content = encode(medium)
    (run / "media" / f"{name}{suffix}").write_bytes(content)


def test_each_kind_of_medium_is_shown_as_what_it_is_and_the_newest_of_its_name(report, outputs):
    run = next(outputs.glob("mlp/*function1d*"))
    nan = float("nan")
    for step in (4, 12):
        name = f"-{step:08d}"
        write_medium(run, f"film{name}", Animation(np.full((2, 4, 4, 3), step, np.uint8)))
        write_medium(run, f"words{name}", Text(f"said at step {step}: a < b & c"))
        write_medium(run, f"roc{name}", Curve({"_cat": ([0, 1], [0, 1]), "$dog": ([0, 1], [nan, 1])}, "x", "y", "ROC"))
        rows = [["cat", step / 100, 7], ["dog", nan, None]]
        write_medium(run, f"per_class{name}", Table(["class", "ap", "n"], rows))
    write_medium(run, "long", Table(["number"], [[n] for n in range(1250)]))
    write_medium(run, "many", Curve({f"line {n}": ([0, 1], [n, n]) for n in range(30)}, "x", "y"))
    page = report("function1d")
    text = Path(f"report-{run.name}.html").read_text()
    assert "said at step 12: a < b &amp; c".replace("<", "&lt;") in text
    assert "said at step 4" not in page.text
    for caption in ("film, step 12", "words, step 12", "roc, step 12", "per_class, step 12; 2 rows",
                    "long; the first 100 of 1,250 rows", "many; the first 20 of 30 lines"):  # fmt: skip
        assert caption in page.text
    for cell in ("0.1200", "7", "nan", "", "99"):
        assert f">{cell}</td>" in text
    assert ">100</td>" not in text
    film = (run / "media" / "film-00000012.gif").read_bytes()
    assert page_url(film, "image/gif") in page.loads
    # The curves of the run, that of the roc and that of many lines: each for light and dark.
    assert sum(url.startswith("data:image/svg") for url in page.loads) == 6
    assert all(url.startswith("data:image/") for url in page.loads)
    assert "script" not in page.tags
    for section in ("Pictures", "Texts and tables"):
        assert page.text.count(section) == 1


def page_url(content, kind):
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def test_the_media_of_the_best_of_a_sweep_are_shown(report, outputs):
    (plan,) = outputs.glob("sweep/*")
    best = json.loads((plan / "summary.json").read_text())["best"]
    write_medium(plan / "runs" / best, "words-00000012", Text("of the best"))
    page = report("sweep")
    assert f"Texts and tables of the best, {best}" in page.text
    assert "of the best" in page.text


def test_media_hold_no_markup_and_damaged_ones_are_one_line(report, outputs, here, evil):
    run = next(outputs.glob("mlp/*function1d*"))
    media = run / "media"
    name = evil.replace("/", "")
    write_medium(run, name, Text(f"</pre><script>{evil}"))
    write_medium(run, name, Table([evil, "a"], [[evil, {evil: evil}], [evil, None]]))
    write_medium(run, name, Curve({evil: ([0, 1], [0, 1]), "b": ([0], [0])}, evil, evil, evil))
    write_medium(run, "large", Curve({"a": ([0, 1e308], [-1e308, 1e308])}, "x", "y"))
    (media / "torn.curve.json").write_text("{")
    (media / "odd.table.json").write_text('{"columns": ["a"], "rows": [[1, 2]]}')
    (media / "surrogate.table.json").write_text('{"columns": ["\\ud800"], "rows": [["\\udfff"]]}')
    (media / "bytes.txt").write_bytes(b"\xff\x00")
    (media / "long.txt").write_text("x" * 100_000)
    (media / "no.gif").write_text("no picture")
    (media / "other.html").write_text("other")
    (here / "secret.txt").write_text("secret")
    (media / "link.txt").symlink_to(here / "secret.txt")
    os.mkfifo(media / "pipe.txt")
    page = report("function1d")
    assert page.text.count(evil) >= 5
    assert "This curve cannot be shown: the file is damaged" in page.text
    assert "This table cannot be shown: row 1 does not have 1 cells" in page.text
    assert "… 34,464 more bytes are not shown" in page.text
    for absent in ("secret", "link", "pipe", "no.gif", "other"):
        assert absent not in page.text
    assert page.tags.count("img") == 4  # the run's curves, the fit, and two curves of its media
    assert page.tags.count("b") == page.tags.count("script") == 0
    assert all(url.startswith("data:image/") for url in page.loads)


def test_a_run_that_went_on_says_with_what_and_shows_no_picture_of_before(report, outputs):
    run = next(outputs.glob("mlp/*function1d*"))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"_event": "resume", "step": 7, "changed": {"trainer.epochs": 9}}\n')
    old = run / "media" / "confusion.png"
    old.write_bytes(next((run / "media").glob("*.png")).read_bytes())
    assert report("function1d").tags.count("img") == 3
    os.utime(old, (1, 1))
    page = report("function1d")
    assert "Resumed at step 7, with trainer.epochs=9." in page.text
    assert page.tags.count("img") == 2


@pytest.mark.parametrize("content", ["{junk", "[]", '{"command": 3, "versions": [1]}', '{"command": []}'])
def test_a_damaged_folder_is_still_a_page(content, report, outputs):
    run = next(outputs.glob("mlp/*function1d*"))
    for name in ("environment.json", "summary.json", "status.json", "notes.json"):
        (run / name).write_text(content)
    page = report("function1d")
    assert "(not known)" in page.text
    shutil.rmtree(run / "media")
    (run / "metrics.jsonl").unlink()
    assert "Curves" not in report("function1d").text


def test_a_password_in_a_command_is_left_out():
    told = command({"command": ["/bin/dlx", "sweep", "--storage", "postgresql://me:pass@host/db", "a=b c"]})
    assert told == "dlx sweep --storage postgresql://me:…@host/db 'a=b c'"
