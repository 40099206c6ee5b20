"""The dashboard's page, driven in a browser over run folders that dlx wrote."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import reduce
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit
from urllib.request import urlopen

import pytest
import yaml

import dlx.cli

sync_api = pytest.importorskip("playwright.sync_api")

BROWSER = os.environ.get("PLAYWRIGHT_CHROMIUM") or shutil.which("chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
TABLE = {"tab": "config"}  # an address that selects nothing: the charts' code takes the browser a second
SCRIPT = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>"
WATCH = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`);
});
"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on the PATH and no PLAYWRIGHT_CHROMIUM")


def dlx_main(*words: str) -> None:
    """dlx in this process."""
    code: object = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["dlx", *words])
        try:
            dlx.cli.main()
        except SystemExit as end:
            code = end.code
    assert not code, words


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """A sweep of four, a run whose every name holds a script, and one that failed."""
    root = tmp_path_factory.mktemp("dashboard")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        tiny = [
            "model=mlp",
            "model.hidden=[16]",
            "trainer.max_steps=20",
            "trainer.log_every=2",
            "trainer.validate_every=4",
        ]
        dlx_main("sweep", *tiny, "optim.lr=1e-3,1e-2", "seed=0,1")
        dlx_main("train", *tiny, "name=poison")
        dlx_main("train", *tiny, "name=broken")
    (poisoned,) = (root / "outputs/poison").iterdir()
    poison(poisoned)
    (broken,) = (root / "outputs/broken").iterdir()
    failed = {"status": "failed", "reason": "out of memory at step 12", "time": 0}
    (broken / "status.json").write_text(json.dumps(failed))
    return root / "outputs"


def poison(run: Path) -> None:
    name = SCRIPT.replace("/", "")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config + f"'{SCRIPT}': '{SCRIPT}'\n")
    row = json.dumps({"step": 20, "epoch": 1.0, "time": time.time(), f"train/{name}": 1.0})
    (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text() + row + "\n")
    (run / "notes.json").write_text(json.dumps({"tags": [SCRIPT], "notes": SCRIPT}))
    (run / "log.txt").write_text(SCRIPT)
    (run / "status.json").write_text(json.dumps({"status": "diverged", "reason": SCRIPT, "time": 0}))
    run.rename(run.with_name(name))


def start(*words: str, **options) -> subprocess.Popen[str]:
    home = str(Path(dlx.cli.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": home, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen([sys.executable, "-m", "dlx", *words], env=environment, text=True, **options)


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def serve(folder: Path, *words: str) -> tuple[subprocess.Popen[str], str]:
    """A dashboard and its http://127.0.0.1:PORT."""
    process = start("dashboard", str(folder), "--no-open", *words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            return process, found.group()
    pytest.fail(f"dlx dashboard did not start: {said}")


@pytest.fixture(scope="module")
def address(outputs):
    process, address = serve(outputs)
    yield address
    stop(process)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


def open_context(browser, **options):
    context = browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce", **options)
    context.add_init_script(WATCH)
    context.set_default_timeout(15_000)
    return context


@pytest.fixture(scope="module")
def shared(browser):
    """Where most pages are opened, so that the charts' code comes from the browser's cache."""
    return open_context(browser)


@pytest.fixture
def visit(browser, shared, address):
    """visit(view): the page at that view of the URL; with options of a context, in one of its own.

    Afterwards: nothing left the machine, and the browser complained of nothing.
    """
    opened, requests, complaints = [], [], []

    def go(view: dict | None = None, **options):
        context = open_context(browser, **options) if options else shared
        page = context.new_page()
        opened.append(context if options else page)
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda said: said.type in ("error", "warning") and complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address + (f"/#{urlencode(view, doseq=True)}" if view else "/"))
        page.wait_for_selector("body[data-ready]")
        return page

    go.expected = None  # what the browser will complain of in this test
    yield go
    for item in opened:
        item.close()
    addresses = [urlsplit(url) for url in requests]
    assert addresses
    assert not [url for url in addresses if url.scheme not in ("data", "blob") and url.hostname != "127.0.0.1"]
    assert [text for text in complaints if go.expected is None or go.expected not in text] == []


@pytest.fixture(scope="module")
def members(outputs):
    """Ids of the four runs of the sweep."""
    found = sorted(str(path.relative_to(outputs)) for path in outputs.glob("sweep/*/runs/*"))
    assert len(found) == 4
    return found


@pytest.fixture
def copied(outputs, members, address):
    """copied(name): a run of that name, to be written to. Afterwards the server knows no more of it: a test names this
    before `visit`, whose page would ask for it still."""
    made = []

    def copy(name: str, source: str = members[0]) -> Path:
        made.append(Path(shutil.copytree(outputs / source, outputs / name)))
        return made[-1]

    yield copy
    for path in made:
        shutil.rmtree(path, ignore_errors=True)
    deadline = time.monotonic() + 15
    while any(run["id"] in {path.name for path in made} for run in listed(address)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def listed(address: str) -> list[dict]:
    with urlopen(f"{address}/api/runs") as answer:
        return json.load(answer)["runs"]


def told(page, run: Path) -> None:
    """Waits until the page has heard of all that was written to a run so far: news come in their order, those of rows
    after those of runs, so that the second note is told when the first one's rows are."""
    for word in ("told", "told again"):
        tags = [f"{word} {time.monotonic_ns()}"]
        (run / "notes.json").write_text(json.dumps({"tags": tags, "notes": ""}))
        page.locator("#grid tr.run", has_text=tags[0]).wait_for()


def add_row(run: Path, **figures) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"time": time.time(), **figures}) + "\n")


def set_config(run: Path, **values) -> None:
    """Sets keys of a frozen configuration, given as dataset__fold."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    for key, value in values.items():
        *groups, name = key.split("__")
        reduce(dict.__getitem__, groups, config)[name] = value
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def set_summary(run: Path, **values) -> None:
    """Sets figures, given as val__loss; None takes one away."""
    summary = json.loads((run / "summary.json").read_text())
    summary |= {key.replace("__", "/"): value for key, value in values.items()}
    (run / "summary.json").write_text(json.dumps({key: value for key, value in summary.items() if value is not None}))


def legend(page) -> list[str]:
    return page.locator(".legend .key > span").all_inner_texts()


def names(page) -> list[str]:
    return page.locator("#grid tbody tr .label").all_inner_texts()


def until(page, true: str) -> None:
    """Playwright's own wait_for_function evaluates text in the page, which the page's policy forbids."""
    deadline = time.monotonic() + 15
    while not page.evaluate(true):
        assert time.monotonic() < deadline, true
        time.sleep(0.03)


def column(page, title: str) -> list[str]:
    """What the rows of runs say below that heading."""
    head = page.locator("#grid thead th .sort span").all_inner_texts()
    return page.locator(f"#grid tbody tr.run td:nth-child({head.index(title) + 1})").all_inner_texts()


def test_table_shows_what_differs_and_the_reasons(visit):
    page = visit(TABLE)
    assert [name for name in names(page) if re.match(r"00\d-", name)] == [
        "000-lr-0.001-seed-0", "001-lr-0.001-seed-1", "002-lr-0.01-seed-0", "003-lr-0.01-seed-1",
    ]  # fmt: skip
    head = page.locator("#grid thead th .sort span").all_inner_texts()
    assert {"Name", "Status", "lr", "seed", "val/accuracy"} <= set(head)
    assert not any("hidden" in title or "batch_size" in title for title in head)
    assert "out of memory at step 12" in page.locator("#grid tr.run", has_text="failed").inner_text()
    assert page.locator("#root").inner_text().strip().endswith("outputs")
    page.wait_for_selector("#live[data-state=live]")


def test_sweep_folds_below_its_plan(visit):
    page = visit(TABLE)
    plan = page.locator("#grid tr.plan")
    assert plan.get_attribute("aria-expanded") == "true"
    plan.locator(".fold").click()
    assert "000-lr-0.001-seed-0" not in names(page)
    page.reload()
    page.wait_for_selector("#grid tr.plan")
    assert "000-lr-0.001-seed-0" not in names(page)
    page.focus("#grid")
    while "cursor" not in plan.get_attribute("class"):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert "000-lr-0.001-seed-0" in names(page)


def test_filter_by_text(visit):
    page = visit(TABLE)
    page.keyboard.press("/")
    page.keyboard.type("seed-1")
    until(page, "document.querySelectorAll('#grid tr.run').length === 2")
    assert "2 of 6 runs" in page.locator("#bar").inner_text()
    page.fill("#filter", "nothing has this")
    page.get_by_text("No run matches", exact=True).wait_for()
    page.get_by_role("button", name="Clear the filter").click()
    assert len(names(page)) == 7


def test_filter_by_expression(visit):
    page = visit(TABLE)
    page.fill("#filter", "optimizer.lr > 0.005 and seed == 0")
    until(page, "document.querySelectorAll('#grid tr.run').length === 1")
    assert "002-lr-0.01-seed-0" in names(page)
    page.fill("#filter", "optimizer.lr >")
    page.wait_for_selector("#filter[aria-invalid=true]")
    assert "expected" in page.locator("#filter-note").inner_text()
    assert len(names(page)) == 2, "the rows stay while an expression is being typed"
    # The browser itself notes an answer of 400.
    visit.expected = "status of 400"


def test_sort_and_group(visit):
    page = visit({"q": "lr-0."})  # the members alone: the tree keeps other runs apart, whatever they reached
    head = page.get_by_role("button", name="val/accuracy", exact=True)
    head.click()
    values = [float(text) for text in column(page, "val/accuracy")]
    assert values == sorted(values, reverse=True)
    assert page.locator("th[aria-sort=descending]").inner_text().strip().startswith("val/accuracy")
    head.click()
    values = [float(text) for text in column(page, "val/accuracy")]
    assert values == sorted(values)
    page.get_by_role("button", name="Group").click()
    page.locator(".sheet:popover-open").get_by_label("optimizer.lr").check()
    page.locator(".sheet:popover-open").get_by_label("seed", exact=True).check()
    groups = page.locator("#grid tr.group")
    assert groups.count() == 2 + 4
    assert "±" in groups.first.inner_text()
    page.keyboard.press("Escape")
    assert urlsplit(page.url).fragment.count("group=") == 2


def test_columns_that_follow_from_a_choice_are_left_out(visit):
    page = visit(TABLE)
    configs = [
        {"model": "mlp", "model.hidden": "[64]", "model.bias": True, "trainer": "recipe/mlp", "trainer.epochs": 30},
        {"model": "mlp", "model.hidden": "[64]", "model.bias": True, "trainer": "recipe/mlp", "trainer.epochs": 30},
        {"model": "cnn", "model.width": 32, "model.bias": False, "trainer": "default", "trainer.epochs": 15},
    ]
    common = {"is_plan": False, "plan": None, "status": "finished", "tags": [], "metrics": {}}
    runs = [
        {**common, "id": f"{n}", "name": f"{n}", "config": {**config, "seed": n, "tracker.project": f"p{n}"}}
        for n, config in enumerate(configs)
    ]
    found = page.evaluate(
        """async (runs) => {
          const store = await import("/static/store.js");
          store.applyAll({ ...store.info, runs });
          return (await import("/static/columns.js")).automatic();
        }""",
        runs,
    )
    assert [name for name in found if name.startswith("config:")] == [
        "config:model", "config:seed", "config:model.bias", "config:trainer.epochs",
    ]  # fmt: skip


def test_columns_are_chosen(visit):
    page = visit(TABLE)
    page.get_by_role("button", name="Columns").click()
    sheet = page.locator(".sheet:popover-open")
    sheet.get_by_label("Search this list").fill("batch_size")
    sheet.get_by_label("dataset.batch_size").check()
    assert "32" in column(page, "batch_size")


def test_selected_runs_are_drawn(visit):
    page = visit({"tab": "curves"})  # an address that selects nothing
    page.get_by_text("No runs selected").wait_for()
    assert "plotly" not in "".join(page.evaluate("performance.getEntriesByType('resource').map(r => r.name)"))
    page.locator("#grid tr.run", has_text="000-lr").click()
    page.locator("#grid tr.run", has_text="003-lr").click(modifiers=["Shift"])
    card = page.locator("[data-metric='val/loss'][data-curves='4'] .plot .scatterlayer .trace")
    card.first.wait_for()
    assert card.count() == 4
    colors = page.evaluate("document.querySelector('[data-metric=\"val/loss\"] .plot').data.map(t => t.line.color)")
    assert len(set(colors)) == 4
    page.get_by_role("button", name="Mean ± std").click()
    page.wait_for_selector("[data-metric='val/loss'][data-curves='2']")
    assert legend(page) == ["lr 0.001", "lr 0.01"]
    until(page, "[...document.querySelectorAll('.legend small')].map((item) => item.textContent).join() === 'n 2,n 2'")
    assert "3-" in page.locator("#grid tr[aria-selected=true]").last.inner_text()


def test_smoothing_keeps_the_raw_curve_and_axes_change(visit, members):
    page = visit({"sel": members[:1], "metrics": ["train/loss"], "smooth": 0.8, "logy": 1, "x": "epoch"})
    page.wait_for_selector("[data-metric='train/loss'][data-curves='1']")
    plot = page.evaluate("""() => {
        const plot = document.querySelector(".plot");
        const [raw, smooth] = plot.data.map((trace) => [...trace.y]);
        return {y: plot.layout.yaxis.type, x: plot.layout.xaxis.title.text, n: plot.data.length, raw, smooth};
    }""")
    assert (plot["y"], plot["x"], plot["n"]) == ("log", "epoch", 2)
    assert plot["raw"] != plot["smooth"]


def test_keyboard_selects_and_shows_help(visit):
    page = visit({"tab": "curves"})  # an address that selects nothing
    page.focus("#grid")
    page.keyboard.press("End")
    page.keyboard.press("Space")
    assert page.locator("#grid tr[aria-selected=true]").count() == 1
    page.keyboard.press("Shift+ArrowUp")
    assert page.get_by_text("2 selected").count() == 1
    assert page.evaluate("document.activeElement.id") == "grid"
    assert page.locator("#" + page.get_attribute("#grid", "aria-activedescendant")).count() == 1
    page.keyboard.press("Escape")
    assert page.locator("#grid tr[aria-selected=true]").count() == 0
    page.keyboard.press("?")
    page.get_by_role("heading", name="Keys and filters").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    assert page.get_by_role("tab", name="Config").get_attribute("aria-selected") == "true"


def test_config_shows_only_what_differs(visit, members):
    page = visit({"sel": members[:4:3], "tab": "config"})
    keys = page.locator("#diff tbody").first.locator("th").all_inner_texts()
    assert keys == ["optimizer.lr", "seed"]
    assert page.locator("#diff tbody").first.locator("td").all_inner_texts() == ["0.001", "0.01", "0", "1"]
    page.locator("#diff .best").first.wait_for()
    page.get_by_role("button", name="All settings").click()
    assert "dataset.batch_size" in page.locator("#diff tbody").first.locator("th").all_inner_texts()


def test_parameters_and_media(visit):
    page = visit({"tab": "parameters", "q": "seed"})
    page.locator(".parallel path.run").first.wait_for(state="attached")
    assert page.locator(".parallel path.run").count() == 4
    page.locator("#scatter-card .points path").first.wait_for()
    page.evaluate("document.querySelector('#tab-media').click()")
    page.get_by_text("No runs selected").wait_for()
    page.locator("#grid tr.run", has_text="000-lr").click()
    page.locator("#grid tr.run", has_text="001-lr").click(modifiers=["Control"])
    until(page, "[...document.querySelectorAll('.gallery img')].filter(i => i.naturalWidth > 0).length === 2")
    page.locator(".picture").first.click()
    assert page.locator("#zoom[open] img").count() == 1
    page.keyboard.press("Escape")
    assert page.locator("#zoom[open]").count() == 0


def test_pictures_by_step(visit, members, outputs):
    """The slider goes to the step before; a run without a picture by then says so; the URL holds the step."""
    media = outputs / members[0] / "media"
    (last,) = media.glob("predictions-*.png")
    (media / "predictions-00000008.png").write_bytes(last.read_bytes())
    page = visit({"tab": "media", "sel": members[:2]})
    slider = page.get_by_role("slider", name="Step")
    slider.wait_for()
    captions = page.locator(".gallery figcaption small")
    assert captions.all_inner_texts() == ["step 20", "step 20"]
    slider.focus()
    page.keyboard.press("ArrowLeft")
    page.get_by_text("No predictions at this step").wait_for()
    assert captions.all_inner_texts() == ["step 8"]
    page.reload()
    page.get_by_text("No predictions at this step").wait_for()
    page.get_by_role("slider", name="Step").focus()
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelectorAll('.gallery figcaption small').length === 2")


def test_each_kind_of_medium_is_shown_as_what_it_is(copied, visit, media):
    run = copied("shown")
    for step in (8, 30):
        media(run / "media", step)
    page = visit({"tab": "media", "sel": "shown"})
    choice = page.get_by_label("Show", exact=True)
    choice.wait_for()
    assert choice.locator("option").all_inner_texts() == ["film", "per_class", "picture", "predictions", "roc", "words"]
    card = page.locator(".gallery .card")

    for name in ("picture", "film"):
        choice.select_option(name)
        until(page, f"document.querySelector('.gallery img[alt^=\"{name} of\"]')?.naturalWidth === 256")

    choice.select_option("words")
    text = card.locator("pre")
    text.wait_for()
    assert text.text_content() == "at step 30\n<b>é</b>"
    assert text.evaluate("(element) => getComputedStyle(element).overflowY") == "auto"

    choice.select_option("roc")
    page.wait_for_selector(".gallery .medium[data-lines='2'] .scatterlayer .trace")
    assert page.locator(".gallery .legend .key").all_inner_texts() == ["cat", "dog"]
    assert card.locator(".title").inner_text() == "ROC"
    shown = """() => {
      const plot = document.querySelector(".gallery .plot");
      return [plot.data.map((line) => [...line.y]), plot.layout.xaxis.title.text, plot.layout.yaxis.title.text];
    }"""
    assert page.evaluate(shown) == [[[0, 0.3, 1], [0, None, 1]], "fpr", "tpr"]
    page.locator("#theme").click()
    until(page, "document.querySelectorAll('.gallery .scatterlayer .trace').length === 2")

    choice.select_option("per_class")
    card.locator("td").first.wait_for()
    assert card.locator("th").all_inner_texts() == ["class", "ap", "n"]
    assert card.locator("td").all_inner_texts() == ["cat", "0.5000", "30", "dog", "NaN", "2"]
    assert card.locator("td.number").count() == 4
    assert card.locator(".medium > small").inner_text() == "2 rows"


def test_every_kind_has_steps_and_is_enlarged(copied, visit, media):
    """The slider goes to the step before; the card keeps its place; what is enlarged is of that step."""
    run = copied("shown")
    for step in (8, 30):
        media(run / "media", step)
    shown = {
        "words": "document.querySelector('{} pre')?.textContent.startsWith('at step {}\\n')",
        "roc": "document.querySelector('{} .plot')?.data?.[0].y[1] === {} / 100",
        "per_class": "document.querySelector('{} td:last-child')?.textContent === '{}'",
        "picture": "document.querySelector('{} img')?.naturalWidth === 256",
        "film": "document.querySelector('{} img')?.naturalWidth === 256",
    }
    for name, condition in shown.items():
        page = visit({"tab": "media", "sel": "shown", "media": name})
        until(page, condition.format(".gallery", 30))
        page.evaluate("window.card = document.querySelector('.gallery .card')")
        source = "document.querySelector('.gallery img')?.src"
        before = page.evaluate(source)
        page.get_by_role("slider", name="Step").focus()
        page.keyboard.press("ArrowLeft")
        until(page, condition.format(".gallery", 8))
        assert page.locator(".gallery figcaption small").all_inner_texts() == ["step 8"]
        assert page.evaluate("window.card === document.querySelector('.gallery .card')")
        assert (page.evaluate(source) != before) == (name in ("picture", "film"))
        page.get_by_role("button", name=re.compile("^Enlarge")).click()
        until(page, condition.format("#zoom[open]", 8))
        assert page.locator("#zoom[open] header").inner_text().startswith(f"{name} · step 8")
        page.keyboard.press("Escape")
        until(page, "document.querySelector('#zoom').childElementCount === 0")


def test_a_name_of_two_kinds_has_two_choices(copied, visit, media):
    run = copied("shown")
    media(run / "media", 8)
    (run / "media" / "words.png").write_bytes((run / "media" / "picture-00000008.png").read_bytes())
    page = visit({"tab": "media", "sel": "shown", "media": "words"})
    choice = page.get_by_label("Show", exact=True)
    choice.wait_for()
    assert choice.locator("option").all_inner_texts()[-2:] == ["words (picture)", "words (text)"]
    until(page, "document.querySelector('.gallery img')?.naturalWidth === 256")
    choice.select_option("words (text)")
    page.locator(".gallery pre").wait_for()


def test_a_new_step_is_shown_while_the_media_are_open(copied, visit, media):
    run = copied("shown")
    media(run / "media", 8)
    page = visit({"tab": "media", "sel": "shown", "media": "words"})
    until(page, "document.querySelector('.gallery pre')?.textContent.startsWith('at step 8')")
    media(run / "media", 30)
    add_row(run, step=30, **{"train/loss": 0.5})
    until(page, "document.querySelector('.gallery pre')?.textContent.startsWith('at step 30')")
    assert page.locator(".field output").inner_text() == "step 30"


def test_media_of_a_run_that_comes_after_the_page(copied, visit, media):
    """Its address selects the run already: from a link that was sent before, or a server that has not looked again."""
    page = visit({"tab": "media", "sel": "later", "media": "words"})
    page.get_by_text("No runs selected").wait_for()
    media(copied("later") / "media", 8)
    until(page, "document.querySelector('.gallery pre')?.textContent.startsWith('at step 8')")


def test_a_long_table_and_many_lines_say_how_many_there_are(copied, visit):
    media = copied("shown") / "media"
    rows = [[number, f"answer {number}"] for number in range(1250)]
    (media / "long.table.json").write_text(json.dumps({"columns": ["index", "answer"], "rows": rows}))
    (media / "none.table.json").write_text(json.dumps({"columns": ["index"], "rows": []}))
    lines = {f"line {number}": [[0, 1], [number, None]] for number in range(30)}
    (media / "many.curve.json").write_text(json.dumps({"lines": lines, "x": "x", "y": "y", "title": ""}))
    page = visit({"tab": "media", "sel": "shown", "media": "long"})
    note = page.locator(".medium > small")
    note.wait_for()
    assert note.inner_text() == "The first 100 of 1\u2009250 rows"
    assert page.locator(".cells tbody tr").count() == 100
    page.get_by_label("Show", exact=True).select_option("none")
    page.get_by_text("0 rows").wait_for()
    page.get_by_label("Show", exact=True).select_option("many")
    page.wait_for_selector(".medium[data-lines='20']")
    assert note.inner_text() == "The first 20 of 30 lines"
    assert page.locator(".medium .legend .key").count() == 20


def test_damaged_media_are_one_plain_line(copied, visit):
    media = copied("shown") / "media"
    for file in media.iterdir():
        file.unlink()
    contents = {"a.curve.json": "{", "b.table.json": '{"columns": ["a"], "rows": [[1, 2]]}', "c.png": "no picture",
                "d.gif": "", "e.txt": " \n"}  # fmt: skip
    for name, content in contents.items():
        (media / name).write_text(content)
    page = visit({"tab": "media", "sel": "shown"})
    said = page.locator(".medium .none")
    for name, text in {
        "a": "This curve cannot be shown: the file is damaged",
        "b": "This table cannot be shown: row 1 does not have 1 cells", "c": "This picture cannot be shown",
        "d": "This animation cannot be shown", "e": "An empty text",
    }.items():  # fmt: skip
        page.get_by_label("Show", exact=True).select_option(name)
        page.get_by_text(text, exact=True).wait_for()
        assert said.all_inner_texts() == [text]
    visit.expected = "status of 404"  # of the picture that is none: the browser itself notes it


def test_scripts_in_media_run_nothing(copied, visit):
    media = copied("shown") / "media"
    name = SCRIPT.replace("/", "")
    (media / f"{name}-00000008.txt").write_text(SCRIPT)
    curve = {"lines": {SCRIPT: [[0, 1], [0, 1]], f"<b>{SCRIPT}": [[0], [1]]}, "x": SCRIPT, "y": SCRIPT, "title": SCRIPT}
    (media / f"{name}-00000008.curve.json").write_text(json.dumps(curve))
    table = {"columns": [SCRIPT, "n"], "rows": [[SCRIPT, 1], [{SCRIPT: SCRIPT}, "<a href=javascript:1>x</a>"]]}
    (media / f"{name}-00000008.table.json").write_text(json.dumps(table))
    page = visit({"tab": "media", "sel": "shown"})
    choice = page.get_by_label("Show", exact=True)
    choice.wait_for()
    assert choice.locator("option").all_inner_texts()[:3] == [f"{name} ({kind})" for kind in ("curve", "table", "text")]
    zoom = page.get_by_role("button", name=re.compile("^Enlarge"))

    choice.select_option(f"{name} (text)")
    page.locator(".gallery pre").wait_for()
    assert page.locator(".gallery pre").text_content() == SCRIPT

    choice.select_option(f"{name} (curve)")
    page.wait_for_selector(".gallery .medium[data-lines='2']")
    assert page.locator(".medium .title").inner_text() == SCRIPT
    assert page.locator(".gallery .plot .xtitle").text_content() == SCRIPT
    box = page.locator(".gallery .plot").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 3)
    zoom.click()
    page.wait_for_selector("#zoom[open] .medium[data-lines='2']")
    page.keyboard.press("Escape")

    choice.select_option(f"{name} (table)")
    page.locator(".gallery td").first.wait_for()
    assert page.locator(".gallery th").first.inner_text() == SCRIPT
    assert page.locator(".gallery td").first.inner_text() == SCRIPT
    zoom.click()
    page.locator("#zoom[open] td").first.wait_for()

    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("body script, .medium a").count() == 0


def test_notes_and_tags_survive_a_reload(visit, outputs):
    page = visit(TABLE)
    page.locator("#grid tr.run", has_text="001-lr").click()
    page.get_by_role("tab", name="Run", exact=True).click()
    page.fill("#tags", "baseline, again")
    page.fill("#notes", "a second try")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Saved").wait_for()
    page.reload()
    until(page, "document.querySelector('#notes')?.value === 'a second try'")
    assert page.input_value("#tags") == "baseline, again"
    assert "baseline" in page.locator("#grid tr.run", has_text="001-lr").inner_text()
    (file,) = outputs.glob("sweep/*/runs/001-*/notes.json")
    assert json.loads(file.read_text()) == {"tags": ["baseline", "again"], "notes": "a second try"}


def test_details_reproduce_and_log(visit, members):
    page = visit({"run": members[0], "tab": "run"}, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy: Reproduce").click()
    page.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").startswith("dlx train --from ")
    until(page, "document.querySelector('.log')?.textContent.length > 0")
    assert "optimizer" in page.locator("details", has_text="Configuration").locator("pre").text_content()


def test_csv_has_what_the_table_shows(visit):
    page = visit({"q": "seed-0"})
    with page.expect_download() as caught:
        page.get_by_role("button", name="CSV").click()
    lines = Path(caught.value.path()).read_text().splitlines()
    assert lines[0].startswith("run,Status")
    assert "optimizer.lr" in lines[0]
    assert len(lines) == 3


def test_trash_and_undo(visit, outputs):
    page = visit(TABLE)
    page.locator("#grid tr.run", has_text="003-lr").click()
    page.locator("#bar").get_by_role("button", name="Delete").click()
    page.get_by_text("to the trash").wait_for()
    until(page, "!document.querySelector('#grid').innerText.includes('003-')")
    assert not list(outputs.glob("sweep/*/runs/003-*"))
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("Restored").wait_for()
    assert "003-lr-0.01-seed-1" in names(page)
    assert len(list(outputs.glob("sweep/*/runs/003-*"))) == 1


def test_what_the_filter_hides_is_not_deleted(visit, outputs, members):
    page = visit({**TABLE, "sel": members[:4], "q": "003-"})
    page.get_by_text("4 selected, 3 hidden").wait_for()
    page.locator("#bar").get_by_role("button", name="Delete 1").click()
    page.get_by_text("to the trash").wait_for()
    page.get_by_text("3 selected, 3 hidden").wait_for()
    assert page.locator("#bar").get_by_role("button", name="Delete").is_disabled()
    assert [len(list(outputs.glob(f"sweep/*/runs/00{number}-*"))) for number in range(4)] == [1, 1, 1, 0]
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("Restored").wait_for()


def test_a_sweep_is_deleted_by_its_row(copied, visit, members):
    plan = copied("sweeping", members[0].partition("/runs/")[0])
    page = visit(TABLE)
    page.locator("#grid tr.plan[data-id=sweeping]").click()
    page.get_by_text("4 selected").wait_for()
    page.locator("#bar").get_by_role("button", name="Delete").click()
    page.get_by_text("to the trash").wait_for()
    until(page, "!document.querySelector('#grid tr[data-id^=sweeping]')")
    assert not plan.exists()
    page.get_by_role("button", name="Undo").click()
    page.get_by_text("Restored").wait_for()
    assert page.locator("#grid tr[data-id^='sweeping/runs/']").count() == 4


def test_url_holds_the_view(visit):
    page = visit()
    page.locator("#grid tr.run", has_text="000-lr").click()
    page.locator("#grid tr.run", has_text="002-lr").click(modifiers=["Control"])
    page.fill("#filter", "seed-0")
    until(page, "document.querySelectorAll('#grid tr.run').length === 2")
    page.get_by_role("button", name="seed", exact=True).click()
    page.get_by_label("log y").check()
    page.get_by_role("tab", name="Config").click()
    page.reload()
    page.wait_for_selector("#diff")
    assert page.input_value("#filter") == "seed-0"
    assert page.locator("#grid tr.run[aria-selected=true]").count() == 2
    assert page.locator("th[aria-sort=ascending]").inner_text().strip().startswith("seed")
    page.go_back()
    page.wait_for_selector(".board .card")
    assert page.get_by_label("log y").is_checked()
    page.go_back()
    until(page, "!document.querySelector('.pair input:last-child, .pair label:last-child input').checked")
    page.go_forward()
    page.go_forward()
    page.wait_for_selector("#diff")


def test_scripts_in_names_notes_and_settings_run_nothing(visit):
    page = visit({"cols": ["status", "tags", "notes", f"config:{SCRIPT}"]})
    row = page.locator("#grid tr.run", has_text="diverged")
    row.click()
    assert SCRIPT in row.inner_text()
    page.wait_for_selector(".board .card[data-curves='1']")
    page.get_by_role("button", name="Figures").click()
    page.locator(".sheet:popover-open").get_by_label(re.compile("^train/<img")).check()
    page.keyboard.press("Escape")
    page.wait_for_selector(".card[data-metric^='train/<img'][data-curves='1']")
    box = page.locator(".card[data-metric^='train/<img'] .plot").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for name in ("Config", "Parameters", "Media", "Run"):
        page.get_by_role("tab", name=name, exact=True).click()
        page.wait_for_timeout(150)
    until(page, "document.querySelector('.log')?.textContent.includes('<script>')")
    assert page.input_value("#notes") == SCRIPT
    assert page.evaluate("window.hacked") is None
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("body script").count() == 0


@pytest.fixture
def training(outputs):
    """A training that goes on, with a row every few steps."""
    words = ["model=mlp", "model.hidden=[16]", "name=live", "trainer.max_steps=1000000", "trainer.log_every=200"]
    process = start("train", *words, cwd=outputs.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield process
    stop(process)
    shutil.rmtree(outputs / "live", ignore_errors=True)


def test_new_points_arrive_while_a_training_runs(visit, training):
    page = visit({"q": "live"})
    page.get_by_text("No run matches", exact=True).wait_for()
    row = page.locator("#grid tr.run", has_text="running")
    row.wait_for(timeout=30_000)
    row.click()
    page.wait_for_selector("[data-metric='train/loss'][data-last]", timeout=20_000)
    last = "Number(document.querySelector('[data-metric=\"train/loss\"]')?.dataset.last)"
    first = page.evaluate(last)
    until(page, f"{last} > {first}")
    stop(training)
    page.locator("#grid tr.run .badge.interrupted").wait_for()


def test_a_curve_grows_while_another_tab_is_open(copied, visit):
    run = copied("watched")
    page = visit({"sel": "watched", "metrics": "train/loss", "cols": "tags"})
    page.wait_for_selector("[data-metric='train/loss'][data-last='20']")
    page.get_by_role("button", name="Mean ± std").click()
    page.wait_for_selector(".board .fill, .board .scatterlayer .js-fill", state="attached")
    page.get_by_role("tab", name="Config").click()
    page.wait_for_selector("#diff")
    add_row(run, step=40, **{"train/loss": 0.5})
    told(page, run)
    page.get_by_role("tab", name="Curves").click()
    page.wait_for_selector("[data-metric='train/loss'][data-last='40']")
    page.get_by_role("button", name="Runs", exact=True).click()
    until(page, "document.querySelector('.plot').data.length === 1")
    page.wait_for_selector("[data-metric='train/loss'][data-last='40']")


def test_details_follow_a_run_and_keep_what_is_folded(copied, visit):
    run = copied("watched")
    page = visit({"run": "watched", "tab": "run"})
    figures, config = (page.locator("details", has=page.locator("h3", has_text=name)) for name in ("Figures", "Config"))
    config.locator("summary").click()
    config.get_by_text("split_seed").wait_for()
    figures.locator("summary").click()
    summary = json.loads((run / "summary.json").read_text())
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + "written_later: 7\n")
    (run / "summary.json").write_text(json.dumps({**summary, "val/loss": 0.0625, "val/later": 0.125}))
    config.get_by_text("written_later: 7").wait_for()
    assert not figures.locator("dl").is_visible()
    figures.locator("summary").click()
    assert figures.locator("div", has=page.get_by_text("val/later", exact=True)).last.inner_text().endswith("0.1250")
    assert figures.locator("div", has=page.get_by_text("val/loss", exact=True)).last.inner_text().endswith("0.0625")


def test_notes_from_elsewhere_are_kept(copied, visit):
    run = copied("watched")
    file = run / "notes.json"
    page = visit({"run": "watched", "tab": "run"})
    file.write_text(json.dumps({"tags": ["from elsewhere"], "notes": "first"}))
    until(page, "document.querySelector('#notes').value === 'first'")
    page.fill("#notes", "mine")
    file.write_text(json.dumps({"tags": ["a", "b"], "notes": "second"}))
    until(page, "document.querySelector('#tags').value === 'a, b'")
    assert page.input_value("#notes") == "mine", "what is typed stays"
    page.evaluate("import('/static/detail.js').then((m) => m.detail.mount(document.getElementById('body')))")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("alert").get_by_text("changed elsewhere").wait_for()
    assert "second" in page.get_by_role("alert").inner_text()
    assert page.input_value("#notes") == "mine"
    assert json.loads(file.read_text()) == {"tags": ["a", "b"], "notes": "second"}
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Saved", exact=True).wait_for()
    assert json.loads(file.read_text()) == {"tags": ["a", "b"], "notes": "mine"}
    assert page.get_by_role("button", name="Save").is_disabled()
    # The browser itself notes an answer of 409.
    visit.expected = "status of 409"


def test_details_of_a_sweep_count_its_members(copied, visit, members):
    plan = copied("sweeping", members[0].partition("/runs/")[0])
    page = visit({"run": "sweeping", "tab": "run"})
    page.get_by_text("4 runs belong to it").wait_for()
    shutil.rmtree(next(plan.glob("runs/003-*")))
    page.get_by_text("3 runs belong to it").wait_for()


def test_groups_are_what_the_terminal_calls_repeats(copied, visit):
    """Folds are repeats, whatever their names and how often they are saved; another split of the data is none."""
    for fold in range(3):
        set_config(copied(f"fold-{fold}"), dataset__fold=fold, name=f"fold {fold}", trainer__checkpoint_every=fold + 1)
    set_config(copied("other-split"), dataset__fold=0, dataset__split_seed=7)
    page = visit({"sel": ["fold-0", "fold-1", "fold-2", "other-split"], "metrics": "val/loss", "bands": 1})
    page.wait_for_selector("[data-metric='val/loss'][data-curves='2']")
    assert legend(page) == ["split_seed 0", "split_seed 7"]
    assert page.locator(".legend .key small").all_inner_texts() == ["n 3", "n 1"]
    set_config(copied("all-data"))
    page = visit({"sel": ["fold-0", "fold-1", "all-data"], "metrics": "val/loss", "bands": 1})
    page.wait_for_selector("[data-metric='val/loss'][data-curves='2']")
    assert sorted(legend(page)) == ["all-data", "fold-0 and 1 more"]


def test_the_legend_counts_what_is_drawn(copied, visit):
    """Also of runs whose names hold what parts others."""
    runs = [copied(name) for name in ("a,b", "c,d", "none")]
    (runs[2] / "metrics.jsonl").write_text("")
    add_row(runs[1], step=21, **{"val/later": 1.0})
    add_row(runs[1], step=22, **{"val/later": 2.0})
    sel = [run.name for run in runs]
    page = visit({"sel": sel, "metrics": ["val/loss"], "bands": 1})
    page.wait_for_selector("[data-metric='val/loss'][data-curves='1']")
    assert page.locator(".legend .key small").all_inner_texts() == ["n 2"]
    page = visit({"sel": sel, "metrics": ["val/loss", "val/later"], "bands": 1})
    page.wait_for_selector("[data-metric='val/loss'][data-curves='1']")
    page.wait_for_selector("[data-metric='val/later'][data-curves='1']")
    assert page.locator(".legend .key small").all_inner_texts() == ["n 1 to 2"]


def test_groups_say_how_many_of_their_runs_have_a_figure(copied, visit):
    for number, loss in enumerate((0.25, 0.75, None)):
        set_summary(copied(f"some-{number}"), val__loss=loss)
    page = visit({"q": "some-", "group": "model", "cols": ["metric:val/loss", "metric:val/accuracy"]})
    cells = page.locator("#grid tr.group td.total").all_inner_texts()
    assert cells[0] == "0.5000 ± 0.3536 (2 of 3)"
    assert "of" not in cells[1]


def test_best_is_what_the_terminal_calls_better(copied, visit):
    set_summary(copied("one"), val__wer=0.5, val__return=3, val__odd=1, val__psnr=4, gap__loss=1)
    set_summary(copied("two"), val__wer=0.25, val__return=2, val__odd=2, val__psnr=4, gap__loss=2)
    page = visit({"sel": ["one", "two"], "tab": "config"})
    page.locator("#diff .best").first.wait_for()
    rows = {name: page.locator("#diff tr", has=page.get_by_text(name, exact=True)).locator(".best").all_inner_texts()
            for name in ("val/wer", "val/return", "val/odd", "val/psnr", "gap/loss")}  # fmt: skip
    assert rows == {"val/wer": ["0.2500"], "val/return": ["3"], "val/odd": [], "val/psnr": [], "gap/loss": []}


CONTRAST = """
() => {
  const style = getComputedStyle(document.documentElement);
  const light = (name) => {
    const canvas = document.createElement("canvas").getContext("2d");
    canvas.fillStyle = style.getPropertyValue(name).trim();
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const surfaces = ["--page", "--raised", "--sunken", "--tint", "--hover"];
  const result = {};
  for (const text of ["--text", "--muted", "--accent"]) {
    for (const below of surfaces) result[`${text} on ${below}`] = ratio(text, below);
  }
  for (const below of ["--raised", "--page", "--bad-tint"]) result[`--bad on ${below}`] = ratio("--bad", below);
  result["--warn on --warn-tint"] = ratio("--warn", "--warn-tint");
  result["--on-accent on --accent"] = ratio("--on-accent", "--accent");
  const lines = {};
  for (let i = 0; i < 8; i += 1) lines[`--run-${i}`] = ratio(`--run-${i}`, "--raised");
  return {text: result, lines};
}
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(visit, theme):
    """WCAG 2.2: text at least 4.5, lines of charts at least 3, in both themes."""
    page = visit(TABLE, color_scheme=theme)
    found = page.evaluate(CONTRAST)
    assert {name: value for name, value in found["text"].items() if value < 4.5} == {}
    assert {name: value for name, value in found["lines"].items() if value < 3} == {}
    other = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()  # light
    if theme == "light":
        page.locator("#theme").click()  # dark
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != other


def test_nothing_is_wider_than_a_small_screen(visit):
    page = visit(has_touch=True)
    page.locator("#grid tr.run", has_text="000-lr").click()
    for width, height in ((820, 1180), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        for name in ("Curves", "Config", "Parameters", "Media", "Run"):
            page.get_by_role("tab", name=name, exact=True).click()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    # A phone shows one thing at a time.
    assert not page.locator("#grid").is_visible()
    page.get_by_role("tab", name="Runs").click()
    assert page.locator("#grid").is_visible()
    assert not page.locator("#body").is_visible()


def test_empty_folder_and_a_lost_connection(visit, tmp_path):
    process, address = serve(tmp_path)
    page = visit()
    page.goto(address)
    page.get_by_text("No runs yet").wait_for()
    page.wait_for_selector("#live[data-state=live]")
    stop(process)
    page.wait_for_selector("#live[data-state=lost]")
    process, again = serve(tmp_path, "--port", str(urlsplit(address).port))
    assert again == address
    page.wait_for_selector("#live[data-state=live]")
    stop(process)
    # The browser itself notes that nobody answered.
    visit.expected = "ERR_"


def test_it_opens_with_the_newest_runs_selected(visit, address):
    trained = sorted((run for run in listed(address) if not run["is_plan"]), key=lambda run: -run["created"])
    page = visit()
    assert page.locator("#runs").is_visible()
    chosen = parse_qs(urlsplit(page.url).fragment)["sel"]
    assert chosen == [run["id"] for run in trained[:5]]
    assert page.get_by_text(f"{len(chosen)} selected").is_visible()
    assert "sel" not in parse_qs(urlsplit(visit({"tab": "run"}).url).fragment)  # an address says what is looked at


def test_an_experiment_shows_its_verdict_and_its_figure(visit, outputs, address):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(outputs.parent)
        dlx_main("train", "experiment=convolution", "experiment.digits=[3]", "experiment.scale=1", "name=claim")
    (folder,) = (outputs / "claim").iterdir()
    try:
        name = f"claim/{folder.name}"
        deadline = time.monotonic() + 15
        while name not in {run["id"] for run in listed(address)}:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        page = visit({"run": name, "tab": "run"})
        result = page.locator("details", has=page.get_by_text("Result", exact=True))
        result.get_by_text("The claim held: largest difference between conv2d").wait_for()
        page.wait_for_function("document.querySelector('.detail figure img')?.naturalWidth > 0")
        assert "0 values" not in page.locator("body").inner_text()  # it has no members
        page.close()
    finally:
        shutil.rmtree(outputs / "claim")
