"""Sweeps on a real Ray cluster, which these tests start on this machine."""

import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from faults import pid_of, resumed_at, statuses, wait_until

from dlx.cli.sweep import make_execution
from dlx.config.errors import UserError

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")

RAY = ("--executor", "ray")


@pytest.fixture(scope="module")
def environment():
    """Of whoever uses the cluster, which has two CPUs, and takes tasks from nobody else."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # short: it holds sockets
    words = ["--head", "--block", f"--port={port}", "--num-cpus=2", "--include-dashboard=false", f"--temp-dir={folder}"]
    ray = Path(sys.executable).with_name("ray")
    with (folder / "log").open("wb") as log:
        variables = {**os.environ, **token, "RAY_USAGE_STATS_ENABLED": "0"}
        head = subprocess.Popen([str(ray), "start", *words], env=variables, stdout=log, stderr=log)
    try:
        wait_until(lambda: head.poll() is not None or "Ray runtime started" in (folder / "log").read_text())
        assert head.poll() is None, (folder / "log").read_text()
        yield {**token, "RAY_ADDRESS": f"127.0.0.1:{port}"}
    finally:
        head.terminate()  # and with it all that it started
        head.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def cluster(environment, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_a_killed_member_goes_on_from_its_checkpoint_and_one_that_crashes_is_recorded(grid, alone_as, meanwhile):
    faults = "none,crash,wait,none"
    with meanwhile(1, lambda folder: os.kill(pid_of(folder, "002"), signal.SIGKILL)):
        members, folder = grid(faults, *RAY, code=1)
    assert resumed_at(folder, "002") == [4]
    assert [resumed_at(folder, number) for number in ("000", "001", "003")] == [[], [], []]
    alone_as(faults, members)


def test_a_member_whose_worker_dies_again_and_again_has_failed(grid, monkeypatch):
    monkeypatch.setattr("dlx.sweeps.executors.pool.RETRIES", 1)  # each takes seconds
    members, folder = grid("kill", *RAY, code=1)
    assert members["000"]["status"] == "failed"
    assert members["000"]["reason"] == "its Ray worker died (WorkerCrashedError), 2 times"
    assert "A worker died" in (folder / "plan" / "ray.log").read_text()  # Ray's own words


def test_members_save_at_ctrl_c_and_the_sweep_goes_on(grid, alone_as, meanwhile, dlx_call):
    def interrupt(folder):
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: statuses(folder) == ["interrupted"] * 2)

    with meanwhile(2, interrupt):
        members, folder = grid("wait,wait", *RAY, "--jobs", "2", code=130)
    assert members == {}
    (folder.parents[2] / "go").touch()
    call = dlx_call("resume", str(folder), *RAY, "--trust", "faulty_pkg", "--json")
    assert call.code == 0, call.err
    assert [resumed_at(folder, number) for number in ("000", "001")] == [[5], [5]]
    alone_as("wait,wait", {member["name"][:3]: member for member in json.loads(call.out)["members"]})


def test_a_folder_that_a_node_does_not_see_is_said(here):
    from dlx.sweeps.executors.ray import run_in

    fields = run_in(str(here), here / "elsewhere", "000", (), None)
    assert fields["status"] == "failed"
    assert "must be on a file system that all nodes share" in fields["reason"]
    with pytest.raises(FileNotFoundError, match=r"does not see .*, where the sweep was started"):
        run_in(str(here / "nowhere"), here, "000", (), None)


def test_where_nobody_answers_it_is_said(dlx_call, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    call = dlx_call("sweep", "model=mlp", "seed=1,2", *RAY)
    assert call.code == 2
    assert f"RAY_ADDRESS=127.0.0.1:{port}: no Ray cluster answers" in call.err


def test_without_ray_it_is_said(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'dlx\[ray\]'"):
        make_execution("ray", None, None, None, ())
