"""What a person who resumes a run is told: why it is finished, what goes on with it, and what that changes."""

import json
import re
import shlex
from pathlib import Path

SMALL = ("model=mlp", "model.hidden=[8]", "trainer.validate_every=1")
STOPS = ("reg=[early_stopping]", "reg.early_stopping.patience=1", "optim.lr=1e-9", "trainer.epochs=2")


def advised(call):
    """The words after the run in the advice of an error line."""
    assert call.code == 2
    return re.search(r"trainer\.\S+", call.err)[0]


def test_the_advice_of_epochs_and_of_steps_is_followed_to_its_end(dlx_call):
    for words, expected in (("trainer.epochs=1", "trainer.epochs=2"), ("trainer.max_steps=3", "trainer.max_steps=6")):
        run = json.loads(dlx_call("train", *SMALL, words, "--json").out)["run"]
        word = advised(dlx_call("resume", run))
        assert word == expected
        steps = steps_of(run)
        assert dlx_call("resume", run, word).code == 0
        assert steps_of(run) == 2 * steps


def steps_of(run):
    return json.loads(Path(run, "summary.json").read_text())["steps"]


def test_more_epochs_do_not_lengthen_a_run_of_max_steps(dlx_call):
    dlx_call("train", *SMALL, "trainer.max_steps=3")
    assert advised(dlx_call("resume", "@last", "trainer.epochs=60")) == "trainer.max_steps=6"


def test_early_stopping_is_named_where_it_ended_a_run_and_by_resume(dlx_call, only_run):
    call = dlx_call("train", *SMALL, *STOPS)
    assert call.code == 0, call.err
    assert "ended early     early_stopping at step 2 of 80\n" in call.out
    assert json.loads((only_run() / "summary.json").read_text())["ended_early"] == "early_stopping at step 2 of 80"
    refused = dlx_call("resume", "@last")
    assert refused.code == 2
    assert "this run is finished: early_stopping at step 2 of 80 ended it" in refused.err
    assert "trainer.epochs" not in refused.err
    words = shlex.split(re.search(r"`(dlx resume [^`]*)`", refused.err)[1])
    forked = dlx_call(*words[1:], "--json")
    assert forked.code == 0, forked.err
    assert "ended early" not in forked.err


def test_a_run_that_came_to_its_last_step_did_not_end_early(dlx_call, only_run):
    out = dlx_call("train", *SMALL, "reg=[early_stopping]", "trainer.max_steps=3").out
    assert "ended early" not in out
    assert "ended_early" not in json.loads((only_run() / "summary.json").read_text())


def test_a_learning_rate_that_jumps_is_said(dlx_call):
    dlx_call("train", *SMALL, "scheduler=cosine", "trainer.epochs=1", "optim.lr=0.01")
    call = dlx_call("resume", "@last", "trainer.epochs=2")
    assert call.code == 0, call.err
    said = "warning: the learning rate goes from 1.54e-05 to 0.005 at step 41: cosine is over 80 steps now, not 40"
    assert said in call.err.splitlines()
    quiet = dlx_call("resume", "@last", "trainer.epochs=3", "--quiet")
    assert "warning: the learning rate goes from" in quiet.err


def test_one_that_does_not_is_not(dlx_call):
    for scheduler in ("constant", "plateau"):
        dlx_call("train", *SMALL, f"scheduler={scheduler}", "trainer.epochs=1")
        assert "learning rate" not in dlx_call("resume", "@last", "trainer.epochs=2").err
