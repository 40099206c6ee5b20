"""docs/extend.md, done: its files are written, and its commands are run, a few steps each."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PAGE = (Path(__file__).parents[1] / "docs" / "extend.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^# (my_\w+/\S+\.(?:py|yaml))\n", re.MULTILINE)
TINY = ("trainer.max_steps=4", "trainer.log_every=2", "trainer.validate_every=2", "trainer.threads=1")


def files_of_page() -> dict[str, str]:
    """Contents by path: each begins with a line that is its path."""
    found = {}
    for language, text in BLOCK.findall(PAGE):
        parts = FILE.split(text)
        assert parts[0] == "" or not language, f"a block without a path:\n{text}"
        found |= dict(zip(parts[1::2], parts[2::2], strict=True))
    return found


COMMANDS = re.findall(r"^(dlx .*?)(?: {4,}.*)?$", PAGE, re.MULTILINE)


@pytest.fixture
def page(write_files, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_pkg"]:
        monkeypatch.delitem(sys.modules, name)
    write_files({"my_pkg/__init__.py": "", **files_of_page()})
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).save("photo.png")


def test_the_page_is_a_page():
    assert 120 <= len(PAGE.splitlines()) <= 200
    assert max(map(len, PAGE.splitlines())) <= 120


def test_every_command_of_the_page_works(page, dlx_call):
    for command in COMMANDS:
        _, name, *words = shlex.split(command)
        call = dlx_call(name, *words, *(TINY if name == "train" else ()))
        assert call.code == 0, f"{command}\n{call.err}{call.out}"
