import csv
import io
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from dlx.runs.catalog import Notes, write_notes


def test_a_sweep_stands_for_its_members(dlx_call, outputs):
    call = dlx_call("compare", "sweep")
    assert call.code == 0, call.err
    first, *rows = call.out.splitlines()
    assert first.split() == ["lr", "n", "val/accuracy", "test/accuracy", "val/loss", "test/loss"]
    assert [row.split()[:2] for row in rows] == [["0.001", "2"], ["0.01", "2"]]
    assert all("±" in row for row in rows)
    assert call.out.count("*") >= 3
    assert "\x1b" not in call.out
    assert "┤" not in call.out
    each = dlx_call("compare", "sweep", "--all", "--metric", "test/loss,seconds").out.splitlines()
    assert each[0].split() == ["run", "lr", "seed", "test/loss", "seconds"]
    assert len(each) == 5
    logged = dlx_call("compare", "sweep", "--metric", "train/loss", "--curves").out.splitlines()
    assert logged[0].split() == ["lr", "n", "train/loss"]
    assert "train/loss" in logged[4]


def test_the_figures_are_those_of_the_runs(dlx_call, outputs):
    found = json.loads(dlx_call("compare", "sweep", "--json").out)
    for row in found["rows"]:
        values = [json.loads((Path(run) / "summary.json").read_text())["test/loss"] for run in row["runs"]]
        assert row["metrics"]["test/loss"]["values"] == values
        assert row["metrics"]["test/loss"]["mean"] == pytest.approx(sum(values) / 2)
    means = [row["metrics"]["val/accuracy"]["mean"] for row in found["rows"]]
    assert found["best"]["val/accuracy"] == [means.index(max(means))]
    assert found["goals"]["test/loss"] == "min"


def test_a_terminal_has_bold_and_curves(dlx_call, outputs, screen):
    screen(80)
    call = dlx_call("compare", "sweep")
    assert "\x1b[1;32m" in call.out
    assert "*" not in call.out
    plain = re.sub(r"\x1b\[[0-9;]*m", "", call.out)
    assert "┤" in plain
    assert "a lr 0.001" in plain
    assert max(map(len, plain.splitlines())) <= 80
    assert "┤" not in dlx_call("compare", "sweep", "--no-curves").out


def test_tables_for_elsewhere(dlx_call, outputs):
    call = dlx_call("compare", "sweep", "--csv", "a.csv", "--md", "a.md", "--latex", "a.tex", "--plot", "a.png")
    assert call.code == 0, call.err
    rows = list(csv.DictReader(io.StringIO(Path("a.csv").read_text())))
    assert [row["optimizer.lr"] for row in rows] == ["0.001", "0.01"]
    assert all(float(row["val/loss_std"]) >= 0 for row in rows)
    assert "**" in Path("a.md").read_text()
    assert r"\toprule" in Path("a.tex").read_text()
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")
    before = Path("a.png").read_bytes()
    assert dlx_call("compare", "sweep", "--plot", "a.png", "--metric", "test/loss", "--x", "epoch").code == 0
    assert Path("a.png").read_bytes() != before
    assert dlx_call("compare", "sweep", "--plot", "a.svg").code == 0
    assert sorted(path.name for path in Path().iterdir()) == ["a.csv", "a.md", "a.png", "a.svg", "a.tex", "outputs"]


def test_the_picture_has_runs_by_name_and_training_beside_validation(dlx_call, here, tiny, monkeypatch):
    from dlx.runs import draw

    figures, own = [], draw.draw_curves
    monkeypatch.setattr(draw, "draw_curves", lambda *given: (figures.append(own(*given)), figures[-1])[1])
    for name, lr in (("slow", "1e-3"), ("猫", "1e-2")):
        assert dlx_call("train", *tiny, f"name={name}", f"optim.lr={lr}").code == 0
    call = dlx_call("compare", "slow", "@last", "--plot", "a.png")
    assert call.code == 0, call.err
    assert "Glyph" not in call.err
    (figure,) = figures
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["slow (lr 0.001)", f"{draw.LACKING} (lr 0.01)"]
    panels = {axes.get_title(): axes.lines for axes in figure.axes}
    assert list(panels) == [f"{kind}: validation, and dashed training" for kind in ("accuracy", "loss")]
    for lines in panels.values():
        assert len(lines) == 4  # two runs, each twice
        assert [line.get_linestyle() for line in lines] == ["-", "-", "--", "--"]
        assert lines[0].get_color() == lines[2].get_color() != lines[1].get_color()


def test_a_dash_is_stdout_alone(dlx_call, outputs):
    call = dlx_call("compare", "sweep", "--csv", "-")
    assert next(csv.DictReader(io.StringIO(call.out)))["n"] == "2"
    call = dlx_call("compare", "sweep", "--csv", "-", "--json")
    assert (call.code, call.out) == (2, "")
    assert "--csv and --json: only one of them" in call.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "no such run"),
        (["sweep", "--metric", "val/acuracy"], "did you mean val/accuracy?"),
        (["sweep", "--plot", "a.txt"], "must end in .png, .svg or .pdf"),
        (["sweep", "--csv", "no/such/a.csv"], "--csv no/such/a.csv: cannot be written"),
        (["sgd", "--plot", "a.png"], "with two points yet"),
    ],
)
def test_mistakes_are_one_line(words, said, dlx_call, outputs):
    call = dlx_call("compare", *words)
    assert call.code == 2
    assert said in call.err
    assert len(call.err.splitlines()) == 1
    assert not Path("a.png").exists()


def test_one_run_is_its_own_table(dlx_call, outputs):
    lines = dlx_call("compare", "function1d", "--curves").out.splitlines()
    told = dict(line.split(maxsplit=1) for line in lines[1:9])
    assert told["dataset"] == "function1d"
    assert told["status"] == "finished"
    assert "val/loss" in told
    assert any("┤" in line for line in lines)
    assert "diverged: the loss is nan" in dlx_call("compare", "sgd").out


def test_runs_of_all_kinds(dlx_call, outputs):
    run = next(outputs.glob("mlp/*function1d*"))
    fresh = shutil.copytree(run, run.with_name("20990101-fresh"))
    for name in ("summary.json", "metrics.jsonl", "status.json"):
        (fresh / name).unlink()
    call = dlx_call("compare", "sweep", "sgd", "function1d-adam", "fresh", "--html", "all.html")
    assert call.code == 0, call.err
    assert {"finished", "diverged", "lost"} <= set(call.out.split())
    assert dlx_call("compare", "fresh", "sgd", "--html", "none.html").code == 0
    assert "chart-0" not in Path("none.html").read_text()


def test_a_folder_with_a_pipe_in_it_is_said_at_once(dlx_call, outputs):
    run = next(outputs.glob("mlp/*function1d*"))
    (run / "summary.json").unlink()
    os.mkfifo(run / "summary.json")
    for command in ("compare", "report"):
        call = dlx_call(command, "function1d")
        assert call.code == 2
        assert "summary.json is not a plain file" in call.err


def test_a_sweep_of_which_nothing_started(dlx_call, outputs):
    shutil.rmtree(next(outputs.glob("sweep/*/runs")))
    call = dlx_call("compare", "sweep", "--csv", "a.csv")
    assert call.code == 0, call.err
    assert "none of its runs has started" in call.out
    assert json.loads(dlx_call("compare", "sweep", "--json").out)["rows"] == []
    assert dlx_call("compare", "sweep", "--html", "a.html").code == 0


@pytest.fixture
def hostile(outputs, evil):
    """A member with markup in its name, its notes and its configuration."""
    member = next(outputs.glob("sweep/*/runs/000*"))
    write_notes(member, Notes((evil,), f"</script>{evil}"))
    config = member / "config.yaml"
    config.write_text(config.read_text().replace("activation: relu", f"activation: '</script>{evil}'"))
    member.rename(member.with_name(evil))
    return outputs


def test_the_page_is_one_file_and_holds_no_markup_of_runs(dlx_call, hostile, evil, read_page):
    assert dlx_call("compare", "sweep", "--html", "page.html").code == 0
    page = read_page("page.html")
    assert evil in page.text
    assert "img" not in page.tags
    assert page.loads == []
    assert page.tags.count("script") == 4  # the data, sorting, plotly and drawing
    assert page.policy.count("'sha256-") == 3
    assert "unsafe-inline" not in page.policy.partition("script-src")[2]
    assert "table" in page.tags


def test_the_page_draws_and_sorts_without_a_network(dlx_call, hostile, here, evil):
    playwright = pytest.importorskip("playwright.sync_api")
    browser_path = shutil.which("chromium")
    if browser_path is None:
        pytest.skip("no chromium")
    assert dlx_call("compare", "sweep", "--html", "page.html").code == 0
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        asked, said = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"file://{here}/page.html")
        page.wait_for_selector(".chart .scatterlayer .trace")
        assert page.locator(".chart").count() == 4
        column = "table.sortable tbody tr td:last-child"
        page.click("th button >> text=test/loss")
        up = page.locator(column).all_inner_texts()
        page.click("th button >> text=test/loss")
        assert page.locator(column).all_inner_texts() == up[::-1]
        assert up == sorted(up, key=lambda cell: float(cell.split()[0]))
        assert any(evil in text for text in page.locator(".legendtext").all_text_contents())
        assert page.evaluate("window.evil") is None
        assert page.locator("img").count() == 0
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert said == []
