"""Runs that dlx wrote, and the server's application over a copy of them."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sys
from pathlib import Path

import pytest

import dlx.cli

TINY = ("model=mlp", "model.hidden=[16]", "trainer.max_steps=8", "trainer.log_every=3", "trainer.validate_every=4")
BASE = "http://localhost:8008"


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """outputs/ with one run and a sweep of two."""
    here = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        for words in (["train", *TINY], ["sweep", *TINY, "optim.lr=1e-3,1e-2"]):
            patch.setattr(sys, "argv", ["dlx", *words])
            with contextlib.suppress(SystemExit):
                dlx.cli.main()
    assert len(list((here / "outputs").rglob("summary.json"))) == 4
    return here / "outputs"


@pytest.fixture
def root(written, here):
    """A copy that a test may change, below the current folder."""
    shutil.copytree(written, here / "outputs", copy_function=shutil.copy2)
    return Path("outputs")


@pytest.fixture
def index(root, here):
    from dlx.dashboard.index import Index

    found = Index(root, cache=here / "cache")
    found.look()
    yield found
    found.close()


@pytest.fixture
def client(index):
    """Asks as the page does."""
    from starlette.testclient import TestClient

    from dlx.dashboard.app import make_app

    with TestClient(make_app(index), base_url=BASE, headers={"origin": BASE}, follow_redirects=False) as client:
        yield client


@pytest.fixture(scope="session")
def media():
    """media(folder, step): writes one medium of each kind there, called kind-STEP."""
    import numpy as np

    from dlx.runs.media import Animation, Curve, Table, Text, encode

    def write(folder: Path, step: int) -> None:
        pixels = np.full((4, 4, 3), step, np.uint8)
        x, nan = [0.0, 0.5, 1.0], float("nan")
        made = {
            "picture": pixels,
            "film": Animation(np.stack([pixels, 255 - pixels])),
            "words": Text(f"at step {step}\n<b>é</b>"),
            "roc": Curve(
                {"cat": (x, [0.0, step / 100, 1.0]), "dog": (x, [0.0, float("nan"), 1.0])}, "fpr", "tpr", "ROC"
            ),
            "per_class": Table(["class", "ap", "n"], [["cat", 0.5, step], ["dog", nan, 2]]),
        }
        for name, medium in made.items():
            suffix, content = encode(medium)
            (folder / f"{name}-{step:08d}{suffix}").write_bytes(content)

    return write


@pytest.fixture
def tree():
    """What a folder holds, to the byte, and when it was written: tree(path)."""

    def hashed(path: Path) -> dict[str, tuple[str, int]]:
        return {
            str(item.relative_to(path)): (
                hashlib.sha256(item.read_bytes()).hexdigest() if item.is_file() else "",
                item.lstat().st_mtime_ns,
            )
            for item in sorted(path.rglob("*"))
        }

    return hashed
