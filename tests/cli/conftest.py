"""Runs that several tests look at: written once by dlx, copied for each test."""

import os
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import dlx.cli

TINY = ("model.hidden=[8]", "trainer.max_steps=12", "trainer.log_every=3", "trainer.validate_every=4")


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """outputs/ with a sweep of two rates and two seeds, a run that diverged and a regression."""
    folder = tmp_path_factory.mktemp("written")
    before, argv, codes = Path.cwd(), sys.argv, []
    os.chdir(folder)
    try:
        for words in (
            ["sweep", "model=mlp", "optim.lr=1e-3,1e-2", "seed=0,1", *TINY],
            ["train", "model=mlp", "optim=sgd", "optim.lr=1e15", *TINY],
            ["train", "model=mlp", "data=function1d", *TINY],
        ):
            sys.argv = ["dlx", *words]
            with pytest.raises(SystemExit) as end:
                dlx.cli.main()
            codes.append(end.value.code)
    finally:
        os.chdir(before)
        sys.argv = argv
    assert codes == [0, 3, 0]
    return folder / "outputs"


@pytest.fixture
def outputs(written, here):
    """A copy of them in the current directory."""
    shutil.copytree(written, here / "outputs")
    return here / "outputs"


@pytest.fixture
def screen(monkeypatch):
    """screen(width): what is printed goes to a terminal of that width."""

    def set_up(width: int) -> None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.delenv("NO_COLOR", raising=False)

    return set_up


class Page(HTMLParser):
    """The tags of a page, its text outside scripts and styles, and everything that it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.loads, self.text, self.policy, self._inside = [], [], "", "", ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self._inside = tag
        if ("http-equiv", "Content-Security-Policy") in attributes:
            self.policy = dict(attributes)["content"]
        self.loads += [value for name, value in attributes if name in ("src", "href", "srcset")]
        assert not any(name.startswith("on") for name, _ in attributes)

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.text += data


@pytest.fixture
def read_page():
    return lambda file: Page(Path(file).read_text())


@pytest.fixture
def evil():
    """Markup that runs a script where it is taken for markup."""
    return "<b>x<img src=x onerror=window.evil=1>"
