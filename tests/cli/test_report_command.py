import json
import os
import shutil
from pathlib import Path

import pytest

from dlx.runs.catalog import Notes, write_notes
from dlx.runs.report import command


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
