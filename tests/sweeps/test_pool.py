"""A pool keeps members running, restarts those whose worker died, and stops on a signal."""

import os
import signal
from pathlib import Path

import pytest

from dlx.sweeps.executors.pool import RETRIES, run_pool, worker_pythonpath
from dlx.sweeps.plan import Interrupted
from dlx.training.session import Result


class Scripted:
    """A pool whose members end, one at each look, as `endings` says: each name's statuses, the last of them again."""

    def __init__(self, **endings):
        self.endings, self.running, self.calls = endings, [], []

    def start(self, names):
        self.calls.append(("start", *names))
        self.running += names

    def ended(self):
        if not self.running:
            return {}
        name = self.running.pop(0)
        left = self.endings.get(name, ["finished"])
        status = left.pop(0) if len(left) > 1 else left[0]
        if status == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
            status = "finished"
        return {name: Result(Path(name), status, 0, {}, "it died" if status == "lost" else None)}

    def stop(self):
        self.calls.append(("stop",))

    def kill(self):
        self.calls.append(("kill", *self.running))


def run(pool, names, **how):
    told = []
    run_pool(pool, names, lambda name, result: told.append((name, result.status, result.reason)), **how)
    return told


@pytest.mark.parametrize(("jobs", "first"), [(None, ("start", "a", "b", "c")), (2, ("start", "a", "b"))])
def test_free_workers_start_at_once(jobs, first):
    pool = Scripted()
    assert [name for name, *_ in run(pool, ["a", "b", "c"], jobs=jobs)] == ["a", "b", "c"]
    assert pool.calls[0] == first


def test_a_name_is_taken_only_when_a_member_can_start():
    """A chain chooses the next member by the results so far."""
    told = []

    def chain():
        for name in ("a", "b", "c"):
            yield name
            assert told[-1] == name

    run_pool(Scripted(), chain(), lambda name, result: told.append(name), jobs=1)
    assert told == ["a", "b", "c"]


def test_a_member_whose_worker_died_gets_another_three_times_at_most(capsys):
    assert RETRIES == 3
    pool = Scripted(a=["lost", "interrupted", "finished"], b=["lost"])
    told = run(pool, ["a", "b"], jobs=None, retries=RETRIES)
    assert told == [("a", "finished", None), ("b", "failed", "it died, 4 times")]
    assert pool.calls.count(("start", "b")) == 3
    assert "b: it died; it goes on with another worker (3/3)" in capsys.readouterr().err


def test_without_retries_it_is_told_at_once():
    assert run(Scripted(a=["lost"]), ["a"], jobs=1) == [("a", "failed", "it died")]


def test_a_signal_stops_all_and_nothing_is_told_of_what_it_cut_off():
    told = []
    pool = Scripted(a=["signal"], b=["interrupted"], c=["lost"])
    with pytest.raises(Interrupted) as ending:
        run_pool(pool, iter("abcd"), lambda name, result: told.append(name), jobs=3, retries=RETRIES)
    assert ending.value.code == 143
    assert told == ["a"]
    assert pool.calls == [("start", "a", "b", "c"), ("stop",), ("kill",)]


def test_what_does_not_leave_within_the_grace_is_killed(monkeypatch):
    monkeypatch.setattr("dlx.sweeps.executors.pool.GRACE_SECONDS", 0.05)
    pool = Scripted(a=["signal"])
    before = pool.ended

    def slow():
        return before() if pool.running[0] == "a" else {}

    pool.ended = slow
    with pytest.raises(Interrupted):
        run(pool, ["a", "b"], jobs=None)
    assert pool.calls[-1] == ("kill", "b")


def test_workers_import_the_same(monkeypatch, here):
    monkeypatch.setenv("PYTHONPATH", f"mine{os.pathsep}/elsewhere")
    own, *given = worker_pythonpath().split(os.pathsep)
    assert (Path(own) / "dlx" / "sweeps" / "executors" / "pool.py").is_file()
    assert given == [str(here / "mine"), "/elsewhere"]
