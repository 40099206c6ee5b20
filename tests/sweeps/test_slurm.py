"""Sweeps on a real Slurm of one node, which these tests start; where it is not installed, on submitit's processes."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import warnings
from pathlib import Path

import pytest
from faults import pid_of, resumed_at, statuses, wait_until
from one_node_slurm import OneNodeSlurm, why_not

from dlx.config.errors import UserError
from dlx.sweeps.executors.execution import Execution
from dlx.sweeps.executors.slurm import Slurm, read_parameters

pytest.importorskip("submitit", reason="submitit is not installed")

SLURM = ("--executor", "slurm")


@pytest.fixture(scope="module")
def slurm():
    """The cluster, or None for submitit's processes."""
    missing = why_not()
    if missing:
        warnings.warn(f"no real Slurm ({missing}): submitit's local executor is tested instead", stacklevel=1)
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))  # short: it holds sockets
    cluster = OneNodeSlurm(folder)
    yield cluster
    cluster.stop()
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def cluster(slurm, monkeypatch):
    monkeypatch.setattr("dlx.sweeps.executors.slurm.STATE_SECONDS", 0.5)
    monkeypatch.setattr("dlx.sweeps.executors.slurm.RESULT_SECONDS", 1.0)
    for name, value in (slurm.environment if slurm else {"DLX_SLURM_CLUSTER": "local"}).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def real(slurm):
    if slurm is None:
        pytest.skip("needs a real Slurm")
    return slurm


def job_of(folder, member):
    """The job that trains a member: of the array's tasks, which are in the members' order."""
    jobs = {path.name.split("_")[0] for path in folder.glob("plan/slurm/*_submitted.pkl")}
    return f"{min(jobs, key=int)}_{int(member)}"


def hurry(slurm, count):
    """Starts that many jobs that were queued again; Slurm lets them rest for two minutes, and would refuse to start one
    in the second in which it ended."""
    hurried = set()

    def all_started():
        for job in slurm.ask("squeue", "-h", "-r", "-t", "PENDING", "-o", "%i").split():
            # Refused for a job that has started meanwhile, which needs no hurry.
            subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now+2"], check=False)
            hurried.add(job)
        return len(hurried) == count

    wait_until(all_started)


def wait_until_empty(slurm):
    wait_until(lambda: slurm.ask("squeue", "-h") == "", 30)


def test_a_killed_member_goes_on_from_its_checkpoint_and_one_that_crashes_is_recorded(grid, alone_as, meanwhile, slurm):
    faults = "none,crash,wait"
    with meanwhile(1, lambda folder: os.kill(pid_of(folder, "002"), signal.SIGKILL)):
        members, folder = grid(faults, *SLURM, "--slurm", "time=10", code=1)
    assert resumed_at(folder, "002") == [4]
    assert [resumed_at(folder, number) for number in ("000", "001")] == [[], []]
    alone_as(faults, members)
    if slurm:
        (script, _) = sorted(folder.glob("plan/slurm/[0-9]*_submission.sh"))
        text = script.read_text()
        assert "#SBATCH --array=0-2%3\n" in text  # all at once
        assert "#SBATCH --requeue\n" in text
        assert "#SBATCH --time=10\n" in text
        wait_until_empty(slurm)


def test_a_member_that_is_warned_is_queued_again_and_goes_on(grid, alone_as, meanwhile, slurm):
    def warn(folder):
        os.kill(pid_of(folder, "000"), signal.SIGUSR2)
        if slurm:
            subprocess.run(["scancel", "--signal=USR1", job_of(folder, "001")], check=True)
        else:
            os.kill(pid_of(folder, "001"), signal.SIGUSR1)
        if slurm:
            hurry(slurm, 2)
        wait_until(lambda: [resumed_at(folder, number) for number in ("000", "001")] == [[5], [5]])

    with meanwhile(2, warn):
        members, folder = grid("wait,wait", *SLURM)
    jobs = {path.name for path in folder.glob("plan/slurm/*_submitted.pkl")}
    assert len(jobs) == 2  # the same jobs
    alone_as("wait,wait", members)


def test_jobs_that_others_queue_again_go_on_and_those_that_they_cancel_are_recorded(grid, meanwhile, real):
    def meddle(folder):
        subprocess.run(["scontrol", "requeue", job_of(folder, "000")], check=True)
        subprocess.run(["scancel", job_of(folder, "001")], check=True)
        hurry(real, 1)
        wait_until(lambda: statuses(folder)[1] == "interrupted")

    with meanwhile(2, meddle):
        members, folder = grid("wait,wait", *SLURM, code=1)
    assert members["001"]["status"] == "failed"
    assert members["001"]["reason"] == "cancelled"
    assert resumed_at(folder, "000") == [5]
    wait_until_empty(real)


def test_members_save_at_ctrl_c_and_the_sweep_goes_on(grid, alone_as, meanwhile, dlx_call, slurm):
    def interrupt(folder):
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: statuses(folder) == ["interrupted"] * 2)

    with meanwhile(2, interrupt):
        members, folder = grid("wait,wait,none", *SLURM, "--jobs", "2", code=130)
    assert members == {}
    if slurm:
        wait_until_empty(slurm)
    (folder.parents[2] / "go").touch()
    call = dlx_call("resume", str(folder), *SLURM, "--trust", "faulty_pkg", "--json")
    assert call.code == 0, call.err
    assert [resumed_at(folder, number) for number in ("000", "001")] == [[5], [5]]
    alone_as("wait,wait,none", {member["name"][:3]: member for member in json.loads(call.out)["members"]})


def test_a_job_that_does_not_start_says_why(grid, monkeypatch, real):
    said = []

    def partition(state):
        subprocess.run(["scontrol", "update", "PartitionName=test", f"State={state}"], check=True)

    def note(text):
        said.append(text)
        partition("UP")

    monkeypatch.setattr("dlx.sweeps.executors.slurm.WAITING_SECONDS", 1.0)
    monkeypatch.setattr("dlx.sweeps.executors.slurm.note", note)
    partition("DOWN")
    late = threading.Timer(40, partition, ["UP"])
    late.start()
    try:
        grid("none,none", *SLURM)
    finally:
        late.cancel()
        partition("UP")
    # On a busy machine they may then wait for another reason, which is said too.
    (text,) = [line for line in said if "PartitionDown" in line]
    assert re.fullmatch(r"slurm: job \d+_0 and 1 more wait in the queue for 1 s \(PartitionDown\)", text)


def test_what_slurm_refuses_is_said(dlx_call, real):
    call = dlx_call("sweep", "model=mlp", "seed=1,2", *SLURM, "--slurm", "partition=moon")
    assert call.code == 2
    assert "Slurm: invalid partition specified: moon; dlx resume outputs" in call.err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--slurm", "partiton=x"], "--slurm partiton: unknown option; did you mean partition?"),
        (["--slurm", "partition"], "--slurm partition: must be KEY=VALUE"),
        (["--slurm", "time=soon"], "--slurm time=soon: must be minutes, or a time such as 90min"),
        (["--slurm", "signal_delay_s=long"], "must be a number of seconds"),
    ],
)
def test_bad_options_write_nothing(words, text, dlx_call, here):
    call = dlx_call("sweep", "model=mlp", "seed=1,2", *SLURM, *words)
    assert call.code == 2
    assert text in call.err
    assert list(here.iterdir()) == []


def test_options_are_sbatchs():
    words = ("partition=gpu", "cpus-per-task=4", "time=90min", "mem=8GB", "exclusive=true")
    found = read_parameters(Execution("slurm", slurm=words))
    assert found == {
        "job_name": "dlx", "partition": "gpu", "cpus_per_task": 4, "time": 90, "mem": "8GB", "exclusive": True,
        "signal_delay_s": 90,
    }  # fmt: skip
    assert read_parameters(Execution("slurm", time_limit=100.0))["time"] == 5  # 100 s, 90 s to be warned, and a minute
    assert "time" not in read_parameters(Execution("slurm"))


def test_without_submitit_or_slurm_it_is_said(monkeypatch):
    monkeypatch.delenv("DLX_SLURM_CLUSTER", raising=False)
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"pip install 'dlx\[slurm\]'"):
            Slurm(Execution("slurm"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="there is no sbatch"):
        Slurm(Execution("slurm"))


def test_slurm_options_need_slurm(dlx_call):
    call = dlx_call("sweep", "model=mlp", "seed=1,2", "--slurm", "partition=x")
    assert "--slurm needs --executor slurm" in call.err
