"""Makes the pictures of the README, from runs that it trains: `make pictures` (needs Chromium, and takes a minute)."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).parent / "pictures"
SWEEP = ("sweep", "model=mlp,cnn", "optim.lr=1e-3,1e-2", "seed=range(3)", "trainer.epochs=15", "trainer.log_every=20")
FLAGS = ["--no-sandbox", "--disable-gpu"]


def dlx(*words: str, here: str) -> None:
    subprocess.run([sys.executable, "-m", "dlx", *words], cwd=here, check=True)


def photograph(here: str) -> None:
    """The page with the curves of all members, by model and learning rate."""
    members = [str(path.relative_to(f"{here}/outputs")) for path in Path(here).glob("outputs/sweep/*/runs/*")]
    groups = ["model", "optimizer.lr"]
    view = {
        "sel": sorted(members), "tab": "curves", "bands": "1", "group": groups, "logy": "1", "sort": "-val/accuracy",
        "metrics": ["val/accuracy", "val/loss", "train/loss", "train/accuracy"],
    }  # fmt: skip
    command = [sys.executable, "-m", "dlx", "dashboard", "--no-open"]
    with subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = next(found.group() for line in server.stdout if (found := re.search(r"http://\S+", line)))
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
                page = browser.new_page(viewport={"width": 1440, "height": 860})
                page.goto(f"{address}#{urlencode(view, doseq=True)}")
                page.wait_for_selector("body[data-ready]")
                page.locator(".js-plotly-plot .scatterlayer .trace").nth(15).wait_for(state="attached")
                page.wait_for_timeout(500)  # until it is drawn
                page.screenshot(path=FOLDER / "dashboard.png")
                browser.close()
        finally:
            server.terminate()


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as here:
        dlx(*SWEEP, here=here)
        dlx("compare", "@last", "--plot", str(FOLDER / "compare.png"), here=here)
        photograph(here)


if __name__ == "__main__":
    main()
