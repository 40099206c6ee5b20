"""docs/extend.md, done: its files are written, and its commands are run, a few steps each."""

from __future__ import annotations

import json
import re
import shlex
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlx.config.signature import read, read_module
from dlx.tasks.spec import Entry
from dlx.tasks.system import System

PAGE = (Path(__file__).parents[1] / "docs" / "extend.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^# (my_\w+/\S+\.(?:py|yaml))\n", re.MULTILINE)
COMMANDS = re.findall(r"^(dlx .*?)(?: {4,}.*)?$", PAGE, re.MULTILINE)
WITH_PARTS = next(number for number, command in enumerate(COMMANDS) if "model.encoder" in command)
STEPS = ("trainer.max_steps=4", "trainer.log_every=1", "trainer.validate_every=2", "trainer.threads=1")


def files_of_page() -> dict[str, str]:
    """Contents by path. A block of code is files, each of which begins with a line that is its path."""
    found = {}
    for language, text in BLOCK.findall(PAGE):
        before, *parts = FILE.split(text)
        assert before == "" or not language, f"a block without a path:\n{text}"
        found |= dict(zip(parts[::2], parts[1::2], strict=True))
    return found


def forget() -> None:
    """Other tests have a `my_pkg` of their own."""
    read.cache_clear()
    read_module.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_pkg"]:
        del sys.modules[name]


@pytest.fixture
def page(write_files, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    forget()
    write_files({"my_pkg/__init__.py": "", **files_of_page()})
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).save("photo.png")
    yield
    forget()


def run_all(commands, dlx_call) -> str:
    """What they print."""
    printed = ""
    for command in commands:
        _, name, *words = shlex.split(command)
        call = dlx_call(name, *words, *(STEPS if name == "train" else ()))
        assert call.code == 0, f"{command}\n{call.err}{call.out}"
        printed += call.out
    return printed


def test_every_command_works(page, dlx_call):
    printed = run_all(COMMANDS[:WITH_PARTS], dlx_call)
    for metric in ("test/accuracy", "test/mse"):  # a classifier, and a regressor
        assert metric in printed
    assert re.search(r"best +width-\d+", printed)
    rows = Path("lines.txt").read_text()
    assert "train/out/loss" in rows
    assert "train/hidden/loss" in rows
    (metrics,) = Path("outputs").glob("two_players/*/metrics.jsonl")
    steps = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [row["step"] for row in steps if "train/out/loss" in row] == [3, 4]  # of the second stage
    assert [row["step"] for row in steps if "train/hidden/loss" in row] == [4]


def test_every_command_with_parts_works(page, dlx_call):
    printed = run_all(COMMANDS[WITH_PARTS:], dlx_call)
    assert "photo.png: error" in printed
    (picture,) = Path("outputs").glob("second/*/media/sample-image-0.png")
    assert picture.stat().st_size
    assert "my_pkg.auto.Autoencoder" in next(Path("outputs").glob("second/*/config.yaml")).read_text()


def test_it_is_one_page():
    lines = PAGE.splitlines()
    assert 120 <= len(lines) <= 200
    assert max(map(len, lines)) <= 120


def test_it_has_every_kind_of_entry_and_every_hook():
    for kind in Entry.__subclasses__():
        if kind.__module__ == Entry.__module__:
            (row,) = re.findall(rf"^\| `{kind.__name__}\((.*?)\)` \|", PAGE, re.MULTILINE)
            shown = set(filter(None, row.split(", ")))
            assert {field.name for field in fields(kind) if field.default is MISSING} <= shown
            assert shown <= {field.name for field in fields(kind)}
    names = [name for name in vars(System) if not name.startswith("_") and name not in ("defines", "spec")]
    assert [name for name in names if not re.search(rf"\b{name}\b", PAGE)] == []
