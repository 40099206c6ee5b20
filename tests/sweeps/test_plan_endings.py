"""Summaries come before pictures, in sweeps, methods, searches and claims; a mistake in a picture costs the picture."""

import json
from pathlib import Path

import pytest

from dlx.runs.folder import RunFolder

QUICK = ("model=mlp", "model.hidden=[4]", "trainer.max_steps=2")
SEARCH = ("sweep", "optim.lr=tag(log,interval(1e-4,1e-1))", "--search", "random", "--trials", "2")


def broken(*arguments, **named):
    raise TypeError("a mistake in it")


DRAWN = {
    "method": (("train", *QUICK, "method=seeds", "method.count=2"), "dlx.methods.seeds.plot_members", "spread"),
    "claim": (("train", "experiment=bottleneck"), "dlx.claims.bottleneck.Bottleneck.figure", "figure"),
    "search": ((*SEARCH, *QUICK), "dlx.sweeps.search.search.plot_search", "search"),
}


@pytest.mark.parametrize("kind", DRAWN)
def test_the_summary_is_safe_when_a_picture_is_made(kind, dlx_call, here, monkeypatch):
    words, target, name = DRAWN[kind]
    seen = []

    def draws(*arguments, **named):
        (plan,) = Path("outputs").glob("*/*/plan.yaml")
        seen.append(((plan.parent / "summary.json").is_file(), RunFolder(plan.parent).status()["status"]))
        broken()

    monkeypatch.setattr(target, draws)
    call = dlx_call(*words)
    assert call.code == 5, call.err
    assert seen == [(True, "finished")]
    assert f"something was lost: picture {name} not made: TypeError: a mistake in it" in call.out
    (plan,) = Path("outputs").glob("*/*/plan.yaml")
    assert RunFolder(plan.parent).status()["reason"] == f"picture {name} not made: TypeError: a mistake in it"
    assert not (plan.parent / "run.lock").exists()
    monkeypatch.undo()


def test_a_point_whose_method_has_no_answer_is_recorded_and_the_others_go_on(dlx_call, here, monkeypatch):
    from dlx.methods.seeds import Seeds

    aggregate = Seeds.aggregate

    def sometimes(self, base, runs, folder):
        return broken() if base["optimizer"]["lr"] == 0.1 else aggregate(self, base, runs, folder)

    monkeypatch.setattr(Seeds, "aggregate", sometimes)
    call = dlx_call("sweep", *QUICK, "method=seeds", "method.count=2", "optim.lr=0.1,0.01", "--json")
    assert call.code == 1, call.err
    rows = {row["differs"]["optimizer.lr"]: row for row in json.loads(call.out)["members"]}
    assert rows[0.1]["reason"] == "its members have no answer: TypeError: a mistake in it"
    assert rows[0.01]["status"] == "finished"


def test_an_ensemble_that_is_interrupted_is_no_answer(dlx_call, here, monkeypatch):
    import os
    import signal

    from dlx.methods import ensemble

    train = ensemble.train

    def cut(*arguments, **named):
        os.kill(os.getpid(), signal.SIGTERM)
        return train(*arguments, **named)

    words = ("train", *QUICK, "method=bagging", "method.members=2")
    with monkeypatch.context() as patch:
        patch.setattr(ensemble, "train", cut)
        call = dlx_call(*words)
    assert call.code == 143, call.err
    (plan,) = Path("outputs").glob("*/*/plan.yaml")
    assert RunFolder(plan.parent).status()["status"] == "interrupted"
    assert dlx_call("resume", str(plan.parent)).code == 0
    assert json.loads((plan.parent / "ensemble" / "summary.json").read_text())["made_of"]


def test_a_worker_that_cannot_write_its_result_has_it_in_its_run(dlx_call, here, monkeypatch):
    """A disk that is full for one moment: the member is finished, and its sweep says so."""
    from dlx.sweeps.executors import pool
    from dlx.sweeps.plan import Plan

    call = dlx_call("sweep", *QUICK, "seed=0,1", "--json")
    assert call.code == 0, call.err
    found = json.loads(call.out)
    plan = Plan.load(Path(found["run"]))
    for member in found["members"]:
        path = plan.path / "plan" / f"{member['name']}.result.json"
        for content in ("", "[", None):
            path.write_text(content) if content is not None else path.unlink()
            result = pool.written_result(plan, member["name"])
            assert result is not None
            assert (result.status, result.metrics) == ("finished", member["metrics"])
