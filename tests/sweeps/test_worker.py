"""What a worker does beside running its member: it ends in time, and says what became of it."""

import json
import math
import os
import time

import pytest

from dlx.config import compose
from dlx.runs.checkpoint import latest_checkpoint
from dlx.sweeps.executors.inprocess import run_member
from dlx.sweeps.executors.pool import written_result
from dlx.sweeps.executors.worker import run
from dlx.sweeps.plan import Plan
from dlx.training.session import Result
from dlx.training.signals import Signals


@pytest.fixture
def plan(here):
    base = compose(["model=mlp", "model.hidden=[8]", "trainer.epochs=100000"])
    return Plan.write(here, {"a": base}, {"a": {}})


def written(plan):
    return json.loads((plan.path / "plan" / "a.result.json").read_text())


def test_over_its_limit_a_member_saves_and_has_failed(plan):
    fields = run(plan.path, "a", limit=3.0)
    assert fields == {"status": "failed", "code": 1, "metrics": {}, "reason": "stopped (over its 3 s)"}
    assert written(plan) == fields
    assert latest_checkpoint(plan.run("a").checkpoints)[0]


def test_one_that_hangs_is_ended_after_the_grace(plan, monkeypatch):
    def hang(plan, name):
        with Signals():  # it is told, and goes on
            time.sleep(2)
        return Result(plan.run(name).path, "finished", 0)

    ended = []
    monkeypatch.setattr("dlx.sweeps.executors.worker.GRACE_SECONDS", 0.1)
    monkeypatch.setattr("dlx.sweeps.executors.inprocess.run_member", hang)
    monkeypatch.setattr(os, "_exit", lambda code: ended.append((code, written(plan))))
    run(plan.path, "a", limit=0.5)
    failed = {"status": "failed", "code": 1, "metrics": {}, "reason": "killed (over its 0.5 s)"}
    assert ended == [(1, failed)]


def test_a_plan_that_cannot_be_read_is_a_failure_with_its_reason(plan):
    (plan.path / "plan" / "a.yaml").write_text("choices: 3")
    fields = run(plan.path, "a")
    assert fields["status"] == "failed"
    assert "not a configuration that dlx wrote" in fields["reason"]
    assert written(plan) == fields


def test_a_member_that_was_killed_before_it_wrote_anything_begins_anew(here):
    base = compose(["model=mlp", "model.hidden=[8]", "trainer.max_steps=2"])
    plan = Plan.write(here, {"a": base}, {"a": {}})
    plan.run("a").media.mkdir(parents=True)
    assert run_member(plan, "a").status == "finished"


def test_metrics_that_are_no_numbers_come_back(here):
    base = compose(["model=mlp", "data=function1d", "optim=sgd", "optim.lr=1e30", "trainer.max_steps=1"])
    plan = Plan.write(here, {"a": base}, {"a": {}})
    run(plan.path, "a")
    result = written_result(plan, "a")
    assert result.status == "finished"
    assert not math.isfinite(result.metrics["val/loss"])
