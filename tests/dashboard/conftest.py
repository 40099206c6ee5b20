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
