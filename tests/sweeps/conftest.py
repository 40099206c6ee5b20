"""Sweeps whose members have faults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from faults import FAULTY, Meanwhile


@pytest.fixture(autouse=True)
def without_pictures(no_pictures):
    """Of the members."""


@pytest.fixture
def faulty(write_files):
    """The words that choose a model with a fault: `crash`, `kill` or `hang` in the third step; `wait`, in the fifth,
    for a file `go` or a signal."""
    option = "# @package _global_\n# A model with faults.\nmodel:\n  _target_: faulty_pkg.net.Faulty\n"
    files = {"faulty_pkg/__init__.py": "", "faulty_pkg/net.py": FAULTY, "mine/model/faulty.yaml": option}
    write_files(files)
    return ("--conf-dir", "mine", "--trust", "faulty_pkg", "model=faulty", "trainer.max_steps=6")


@pytest.fixture
def meanwhile(here):
    return lambda count, act: Meanwhile(here, count, act)


@pytest.fixture
def grid(faulty, dlx_call):
    """A sweep over the faults of that many members, each with its seed: its table by the members' numbers, its folder.

    Every second step has a checkpoint.
    """

    def run(faults: str, *how: str, code: int = 0):
        seeds = ",".join(str(seed) for seed in range(len(faults.split(","))))
        words = (f"model.fault={faults}", f"seed={seeds}", "trainer.checkpoint_every=2", "--zip", "--json")
        call = dlx_call("sweep", *faulty, *words, *how)
        assert call.code == code, call.err
        found = json.loads(call.out)
        return {member["name"][:3]: member for member in found["members"]}, Path(found["run"])

    return run


@pytest.fixture
def alone_as(grid, here):
    """Checks that members equal those of the same grid, run one after another in this process without interruption."""

    def check(faults: str, members: dict) -> None:
        (here / "go").touch()
        expected, _ = grid(faults, code=int("crash" in faults))
        (here / "go").unlink()
        for number, member in expected.items():
            assert members[number]["metrics"] == member["metrics"], number
            assert members[number]["status"] == member["status"], number
            assert members[number]["reason"] == member["reason"], number

    return check
