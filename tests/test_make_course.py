"""`make course`: what it trains, that a second call trains nothing, that changed and failed results are made anew."""

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    here = tmp_path_factory.mktemp("course")

    def call(*words):
        places = ["--results", str(here / "results"), "--runs", str(here / "runs"), "--jobs", "1"]
        only = ["--only", "model=independent_pixels$|experiment=deconvolution"]
        command = [sys.executable, str(ROOT / "docs" / "course.py"), *only, *places, *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=here, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    call.results, call.page, call.runs = here / "results", here / "results.md", here / "runs"
    call("--seeds", "2")
    return call


def read(course, name):
    return json.loads((course.results / f"{name}.json").read_text())


def test_results_are_data_and_the_page_is_made_of_them(course):
    names = {path.stem for path in course.results.glob("*.json")}
    assert names == {"model-independent_pixels-0", "model-independent_pixels-1", "experiment-deconvolution"}
    record = read(course, "model-independent_pixels-1")
    assert record["command"] == "dlx train model=independent_pixels"
    assert record["seed"] == 1
    assert record["status"] == "finished"
    assert record["metrics"]["test/nll"] == pytest.approx(25.25, abs=0.05)
    assert record["seconds"] > 0
    assert {"torch", "dlx"} <= set(record["versions"])
    assert read(course, "experiment-deconvolution")["held"]
    page = course.page.read_text()
    assert "| `dlx train model=independent_pixels` | 2 | nll 25.25" in page
    assert "| `dlx train experiment=deconvolution` | yes |" in page


def test_a_second_call_trains_nothing(course):
    assert "0 of 3 results are missing or out of date" in course("--seeds", "2", "--dry-run")


def test_what_changed_is_out_of_date_and_what_a_run_folder_holds_is_not_trained_again(course):
    path = course.results / "model-independent_pixels-0.json"
    record = read(course, path.stem)
    path.write_text(json.dumps({**record, "fingerprint": "of another configuration"}))
    assert "dlx train model=independent_pixels seed=0" in course("--dry-run")
    folders = set(course.runs.glob("*/*/*"))
    assert "1 of 2 results" in course()
    again = read(course, path.stem)
    assert set(course.runs.glob("*/*/*")) == folders
    assert again["fingerprint"] == record["fingerprint"]
    assert again["metrics"] == record["metrics"]


def test_a_failed_result_is_said_and_tried_again(course):
    path = course.results / "experiment-deconvolution.json"
    record = read(course, path.stem)
    path.write_text(json.dumps({**record, "status": "failed", "reason": "no reason"}))
    course("--tables")
    assert "`dlx train experiment=deconvolution` failed: no reason" in course.page.read_text()
    assert "1 of 2 results" in course()
    assert read(course, path.stem)["held"]


def test_what_another_call_trains_is_left_to_it(course):
    path = course.results / "experiment-deconvolution.json"
    path.write_text(json.dumps({**read(course, path.stem), "status": "failed"}))
    with (course.runs / "logs" / f"{path.stem}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        course()
        assert read(course, path.stem)["status"] == "failed"
    course()
    assert read(course, path.stem)["held"]


def test_what_other_source_files_trained_is_trained_again(course):
    path = course.results / "model-independent_pixels-1.json"
    (folder,) = (course.runs / path.stem).glob("*")
    assert folder.name == read(course, path.stem)["fingerprint"]
    folder.rename(folder.with_name("0123456789abcdef"))
    path.write_text(json.dumps({**read(course, path.stem), "fingerprint": "0123456789abcdef"}))
    course("--seeds", "2")
    assert len(list((course.runs / path.stem).glob("*/*/config.yaml"))) == 2
