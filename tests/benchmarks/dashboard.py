"""What `dlx dashboard` costs over many long runs: until it answers, lists and draws, and its memory.

    python tests/benchmarks/dashboard.py                              1,000 runs of 10,000 rows: 1.5 GB in $TMPDIR
    python tests/benchmarks/dashboard.py --runs 100 --rows 1000 --page

One run is trained, its folder multiplied with other seeds and learning rates, its metrics replaced by noise of 7
figures. The server starts without a cache, and again with it; with --page a headless Chromium opens the page too.
Everything is removed afterwards. The bars: the first
page within 1.5 s, an overlay of 50 runs within 0.5 s after the first time, less than 1 GiB of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

FIGURES = ("train/loss", "train/accuracy", "train/grad_norm", "lr", "val/loss", "val/accuracy", "time/step_ms")
BODIES = 8  # contents of metrics.jsonl that are made; the runs take turns


def make(folder: Path, runs: int, rows: int) -> Path:
    subprocess.run(
        [sys.executable, "-m", "dlx", "train", "model=mlp", "trainer.max_steps=10"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    (first,) = (config.parent for config in (folder / "outputs").glob("*/*/config.yaml"))
    files = {name: (first / name).read_text() for name in ("config.yaml", "status.json", "environment.json", "log.txt")}
    summary = json.loads((first / "summary.json").read_text())
    root = folder / "many"
    bodies = [body(rows, number) for number in range(BODIES)]
    random = np.random.default_rng(0)
    for number in range(runs):
        run = root / f"group{number % 20}" / f"20261101-{number:06d}-mlp-{number:04x}"
        run.mkdir(parents=True)
        for name, text in files.items():
            (run / name).write_text(
                text.replace("seed: 0", f"seed: {number}").replace("lr: 0.003", f"lr: {number + 1}e-5")
            )
        (run / "summary.json").write_text(
            json.dumps(summary | {"val/loss": random.uniform(), "val/accuracy": random.uniform()})
        )
        (run / "metrics.jsonl").write_bytes(bodies[number % BODIES])
    return root


def body(rows: int, seed: int) -> bytes:
    random = np.random.default_rng(seed)
    values = np.round(np.exp(-np.arange(rows)[:, None] / rows * 3) + random.normal(0, 0.05, (rows, len(FIGURES))), 4)
    lines = []
    for step, row in enumerate(values.tolist()):
        where = {"step": step, "epoch": round(step / 100, 2), "time": 1.79e9 + step}
        lines.append(json.dumps(where | dict(zip(FIGURES, row, strict=True))) + "\n")
    return "".join(lines).encode()


@contextmanager
def server(root: Path, cache: Path) -> Iterator[tuple[int, str, float]]:
    """Its process, its address, and the seconds until it answered."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "dlx", "dashboard", str(root), "--no-open"],
        env={**os.environ, "XDG_CACHE_HOME": str(cache)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        address = next(word for word in process.stdout.readline().split() if word.startswith("http"))
        ask(address)
        yield process.pid, address, time.perf_counter() - begin
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def ask(address: str) -> tuple[float, bytes]:
    begin = time.perf_counter()
    request = urllib.request.Request(address, headers={"Accept-Encoding": "identity"})
    with urllib.request.urlopen(request) as answer:
        data = answer.read()
    return time.perf_counter() - begin, data


def memory(pid: int) -> str:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    now, most = (int(lines[name].split()[0]) // 1024 for name in ("VmRSS", "VmHWM"))
    return f"{now} MiB, at most {most} MiB"


def worked(pid: int) -> float:
    """Seconds of processor time so far: what a machine that is busy with other things does not stretch."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(root: Path, cache: Path, say: str, counts: list[int]) -> None:
    begin = time.perf_counter()
    with server(root, cache) as (pid, address, up):
        took, data = ask(f"{address}api/runs")
        page = time.perf_counter() - begin
        work = worked(pid)
        ids = [run["id"] for run in json.loads(data)["runs"] if not run["is_plan"]]
        again = min(ask(f"{address}api/runs")[0] for _ in range(3))
        show(
            f"{say}: server up {up:.2f} s; /api/runs first {took:.2f} s, again {again:.3f} s ({len(data) / 1e6:.1f} MB)"
        )
        show(f"{say}: from the start to the list {page:.2f} s, {work:.2f} s of work; memory {memory(pid)}")
        for count in counts:
            chosen = ids[: min(count, len(ids))]
            query = urllib.parse.urlencode({"metric": "train/loss", "runs": chosen, "smooth": 0.6}, doseq=True)
            before = worked(pid)
            first, data = ask(f"{address}api/series?{query}")
            work = worked(pid) - before
            other = min(ask(f"{address}api/series?{query.replace('train%2Floss', 'val%2Floss')}")[0] for _ in range(3))
            size = len(data) / 1e6
            times = f"first {first:.2f} s, {work:.2f} s of work; again {other:.3f} s"
            show(f"{say}: series of {len(chosen)} runs: {times} ({size:.1f} MB)")
        query = urllib.parse.urlencode({"metric": "val/loss", "group": [json.dumps(ids[: counts[-1]])]}, doseq=True)
        show(f"{say}: band over {min(counts[-1], len(ids))} runs {ask(f'{address}api/bands?{query}')[0]:.2f} s")
        query = urllib.parse.urlencode({"metric": "val/loss", "runs": ids}, doseq=True)
        show(f"{say}: importance over {len(ids)} runs {ask(f'{address}api/importance?{query}')[0]:.2f} s")
        show(f"{say}: memory {memory(pid)}")


def look(root: Path, cache: Path, counts: list[int]) -> None:
    """In a browser: until the table is there, and until the curves of so many runs are drawn, one panel each."""
    from playwright.sync_api import sync_playwright

    with server(root, cache) as (_, address, _), sync_playwright() as playwright:
        ids = [run["id"] for run in json.loads(ask(f"{address}api/runs")[1])["runs"] if not run["is_plan"]]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        begin = time.perf_counter()
        page.goto(address)
        page.wait_for_selector("body[data-ready] [role=row]:nth-child(5)")
        show(f"page: the table {time.perf_counter() - begin:.2f} s after the navigation")
        for count in (count for count in counts if count <= 100):  # of more it draws bands
            for panel in ("train/loss", "val/loss", "val/accuracy"):
                view = {"tab": "curves", "metrics": panel, "sel": ids[:count]}
                begin = time.perf_counter()
                page.evaluate("view => { location.hash = view }", urllib.parse.urlencode(view, doseq=True))
                card = f"[data-metric='{panel}'][data-curves='{count}'] .plot .scatterlayer .trace"
                page.locator(card).nth(count - 1).wait_for(state="attached")
                show(f"page: {count} curves of {panel} {time.perf_counter() - begin:.2f} s after they were asked for")
        browser.close()


def show(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 50, 200], help="runs that are drawn at once")
    parser.add_argument("--page", action="store_true", help="also in a browser (playwright and chromium)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="dlx-dashboard-"))
    try:
        root = make(folder, options.runs, options.rows)
        size = sum(path.stat().st_size for path in root.rglob("metrics.jsonl"))
        show(f"{options.runs} runs of {options.rows} rows of {len(FIGURES)} figures: {size / 1e9:.2f} GB")
        measure(root, folder / "cache", "no cache", options.counts)
        measure(root, folder / "cache", "cached", options.counts)
        if options.page:
            look(root, folder / "cache", options.counts)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
