"""The zoo is a package of a person outside dlx: its folder is on the import path, its options are a --conf-dir."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CONF = ("--conf-dir", str(HERE / "conf"))
COMPOSING = ("train", "sweep", "show", "config")


@pytest.fixture(autouse=True)
def outside(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
    monkeypatch.setenv("DLX_TRUST", "zoo")


@pytest.fixture
def call(dlx_call):
    """dlx_call with the zoo's options, where a command composes."""

    def run(command: str, *arguments: str):
        return dlx_call(command, *(CONF if command in COMPOSING else ()), *arguments)

    return run
