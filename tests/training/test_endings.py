"""What was trained is safe before anything else can fail, and signals are handled from the first line to the last."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlx.runs.checkpoint import latest_checkpoint
from dlx.runs.folder import RunFolder
from dlx.runs.metrics import read_metrics
from dlx.tasks.system import System
from dlx.tracking.recorder import RunRecorder
from dlx.tracking.tracker import Tracker
from dlx.training import pictures
from dlx.training import run as training
from dlx.training import session as sessions
from dlx.training.signals import Signals, Stopped


def before(module, name, act, count=1):
    """A patch: `act()` before the `count`-th call."""
    original, calls = getattr(module, name), []

    def patched(*arguments, **named):
        calls.append(1)
        if len(calls) == count:
            act()
        return original(*arguments, **named)

    return module, name, patched


def term():
    os.kill(os.getpid(), signal.SIGTERM)


# The order


def test_summary_and_status_come_before_the_pictures_and_the_trackers_last(dlx_call, only_run, tiny, monkeypatch):
    seen = []

    def look(name):
        summary = (only_run() / "summary.json").is_file() and RunFolder(only_run()).summary()
        seen.append((name, "test/accuracy" in (summary or {}), RunFolder(only_run()).status()["status"]))

    monkeypatch.setattr(*before(sessions, "evaluate", lambda: look("test")))
    monkeypatch.setattr(*before(pictures, "show", lambda: look("pictures")))
    monkeypatch.setattr(*before(RunRecorder, "close", lambda: look("trackers")))
    monkeypatch.setattr(*before(RunFolder, "write_summary", lambda: look("summary")))
    assert dlx_call("train", *tiny).code == 0
    assert seen == [
        ("test", False, "running"), ("summary", False, "running"), ("pictures", True, "finished"),
        ("trackers", True, "finished"),
    ]  # fmt: skip


def broken(*arguments):
    raise TypeError("a mistake in it")


@pytest.mark.parametrize("shown", [broken, lambda *arguments: {"odd": object()}, lambda *arguments: {"a/b": 3}])
def test_a_mistake_in_a_showcase_costs_its_picture_alone(shown, dlx_call, only_run, tiny, monkeypatch):
    """At a validation, at the end, and in every resume."""
    monkeypatch.setattr(System, "showcase", shown)
    monkeypatch.setattr("dlx.tasks.supervised.Supervised.showcase", shown)
    call = dlx_call("train", *tiny, "trainer.pictures_every=4")
    assert call.code == 5, call.err
    status = RunFolder(only_run()).status()
    assert status["status"] == "finished"
    assert "not made" in status["reason"]
    assert "done, but something was lost" in call.out
    assert "test/accuracy" in RunFolder(only_run()).summary()
    assert not (only_run() / "run.lock").exists()


def test_a_mistake_in_the_test_evaluation_is_made_good_by_resume(dlx_call, only_run, tiny, monkeypatch):
    whole = json.loads(dlx_call("train", *tiny, "name=whole", "--json").out)["metrics"]
    with monkeypatch.context() as patch:
        patch.setattr(sessions, "evaluate", broken)
        call = dlx_call("train", *tiny, "name=cut", "--json")
    assert call.code == 5, call.err
    run = Path(json.loads(call.out)["run"])
    status = RunFolder(run).status()
    assert status == {**status, "status": "finished"}
    assert "the test split is not evaluated: TypeError: a mistake in it" in status["reason"]
    again = dlx_call("resume", str(run), "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["metrics"] == whole
    assert RunFolder(run).status()["reason"] is None


def test_a_tracker_that_fails_at_the_end_is_said_in_the_status(dlx_call, only_run, tiny, monkeypatch):
    monkeypatch.setattr("dlx.training.prepare.build_all", only_tracker(Odd(broken)))
    call = dlx_call("train", *tiny)
    assert call.code == 5, call.err
    status = RunFolder(only_run()).status()
    assert status == {**status, "status": "finished"}
    assert status["reason"] == "tracker odd: finish failed: TypeError: a mistake in it; the local files are complete"


def only_tracker(tracker, name="odd"):
    """`build_all` with this tracker, which no option names."""
    return lambda config, group: {name: tracker} if group == "tracker" else {}


class Odd(Tracker):
    def __init__(self, finish):
        self._finish = finish

    def finish(self, status, summary, reason=None):
        self._finish()


# Signals

PHASES = {
    "composing": ("dlx.config.compose", "_compose"),
    "preparing": (training, "prepare"),
    "making the folder": (RunFolder, "write_environment"),
    "beginning the session": (RunRecorder, "__init__"),
    "building": (training, "build_loop"),
    "the last checkpoint": ("dlx.training.state", "save_checkpoint"),
    "testing": (sessions, "evaluate"),
    "pictures": (pictures, "show"),
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_in_any_phase_is_an_orderly_end(phase, dlx_call, here, tiny, monkeypatch):
    module, name = PHASES[phase]
    module = sys.modules[module] if isinstance(module, str) else module
    whole = json.loads(dlx_call("train", *tiny, "name=whole", "output_root=whole", "--json").out)["metrics"]
    with monkeypatch.context() as patch:
        patch.setattr(*before(module, name, term))
        call = dlx_call("train", *tiny)
    assert call.code == 143, call.err
    runs = list(Path("outputs").glob("*/*/config.yaml")) if Path("outputs").exists() else []
    if phase in ("composing", "preparing"):
        assert not Path("outputs").exists()
        assert call.err.splitlines()[-1] == "interrupted (signal 15) before anything was trained: start it again"
        return
    (run,) = (path.parent for path in runs)
    assert RunFolder(run).status()["status"] == "interrupted"
    assert "signal 15" in RunFolder(run).status()["reason"]
    assert not (run / "run.lock").exists()
    assert f"go on with: dlx resume {run}" in call.out
    again = dlx_call("resume", str(run), "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["metrics"] == whole
    assert RunFolder(run).status()["status"] == "finished"


def test_a_signal_at_the_last_step_leaves_the_test_to_resume(dlx_call, only_run, tiny, sigterm_at):
    with sigterm_at(8):
        call = dlx_call("train", *tiny)
    assert call.code == 143
    assert "test/accuracy" not in RunFolder(only_run()).summary()
    assert latest_checkpoint(only_run() / "checkpoints")[0].name == "step-00000008"
    assert dlx_call("resume", "@last").code == 0
    assert "test/accuracy" in RunFolder(only_run()).summary()


@pytest.mark.parametrize("words", [("train", "method=seeds", "method.count=2"), ("sweep", "seed=0,1")])
@pytest.mark.parametrize("phase", ["making the plan", "between members", "the member's end", "pictures"])
def test_a_signal_to_a_sweep_in_any_phase(words, phase, dlx_call, here, tiny, monkeypatch):
    from dlx.sweeps.executors import inprocess
    from dlx.sweeps.plan import Ending, Plan

    target = {
        "making the plan": (Plan, "write"), "between members": (inprocess, "run_member", term, 2),
        "the member's end": (RunRecorder, "close"), "pictures": (Ending, "finish"),
    }[phase]  # fmt: skip
    with monkeypatch.context() as patch:
        module, name, *rest = target
        patched = before(module, name, *(rest or [term]))
        if name == "write":
            patched = (module, name, staticmethod(patched[2]))
        patch.setattr(*patched)
        call = dlx_call(*words, *tiny)
    assert call.code == 143, call.err
    if phase == "making the plan":
        assert not Path("outputs").exists()
        return
    (plan,) = Path("outputs").glob("*/*/plan.yaml")
    folder = RunFolder(plan.parent)
    assert not (folder.path / "run.lock").exists()
    assert folder.status()["status"] == "interrupted"
    assert f"dlx resume {folder.path}" in call.out
    assert dlx_call("resume", str(folder.path)).code == 0
    assert folder.status()["status"] == "finished"


def test_a_signal_while_a_tracker_finishes_does_not_wait_for_it(dlx_call, only_run, tiny, monkeypatch):
    def slow():
        term()
        time.sleep(30)

    monkeypatch.setattr("dlx.training.prepare.build_all", only_tracker(Odd(slow), "slow"))
    begun = time.monotonic()
    call = dlx_call("train", *tiny)
    assert time.monotonic() - begun < 10
    status = RunFolder(only_run()).status()
    assert (call.code, status["status"]) == (5, "finished")
    assert "tracker slow: cut off by a signal before it was finished" in status["reason"]
    assert not (only_run() / "run.lock").exists()


def test_a_second_signal_leaves_at_once(forked, tiny):
    """Also where the first waits for a write that does not end."""

    def slow():
        Path("writes").touch()
        time.sleep(30)

    process = forked("train", *tiny, before=lambda: setattr(*before(RunFolder, "write_summary", slow)))
    wait_for("writes")
    begun = time.monotonic()
    while (code := process.poll()) is None and time.monotonic() - begun < 5:
        os.kill(process.pid, signal.SIGTERM)  # two that come before the first is handled are one
        time.sleep(0.3)
    assert code == 143


def wait_for(name):
    deadline = time.monotonic() + 20
    while not Path(name).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_slurms_sigterm_and_sigkill_leave_a_checkpoint(forked, only_run, tiny, dlx_call):
    """A step that has a checkpoint is saved again at the signal; the kill comes while that one is put in its place."""

    def patch():
        rename = Path.rename

        def slow(path, target):
            found = rename(path, target)
            if Path(target).name.startswith(".old-step"):
                Path("moved").touch()
                time.sleep(30)
            return found

        Path.rename = slow
        steps = before(System, "after_step", term, 4)
        setattr(*steps)

    process = forked("train", *tiny, "trainer.checkpoint_every=4", before=patch)
    wait_for("moved")
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    run = only_run()
    assert [path.name for path in (run / "checkpoints").glob("step-*")] == []
    found, problems = latest_checkpoint(run / "checkpoints")
    assert (found.name, problems) == (".old-step-00000004", [])
    call = dlx_call("resume", str(run))
    assert call.code == 0, call.err
    assert "begins anew" not in call.err
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if "_event" in line]
    assert [event["step"] for event in events] == [4]
    assert not list((run / "checkpoints").glob(".*"))


def test_a_run_that_stopped_early_is_not_trained_on_after_an_interruption(dlx_call, only_run, monkeypatch):
    words = [
        "model=mlp", "model.hidden=[8]", "optim.lr=0.0", "reg=[early_stopping]", "reg.early_stopping.patience=1",
        "trainer.epochs=9",
    ]  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(*before(sessions, "evaluate", term))
        assert dlx_call("train", *words).code == 143
    steps = read_metrics(only_run() / "metrics.jsonl")[-1]["step"]
    assert dlx_call("resume", "@last").code == 0
    assert read_metrics(only_run() / "metrics.jsonl")[-1]["step"] == steps == RunFolder(only_run()).summary()["steps"]


def test_a_run_with_workers_that_was_killed_goes_on_at_once(forked, only_run, tiny):
    """Its workers live on for a while, and had its lock."""

    def die():
        import multiprocessing

        Path("workers").write_text(json.dumps([child.pid for child in multiprocessing.active_children()]))
        os.kill(os.getpid(), signal.SIGKILL)

    words = (*tiny, "dataset.workers=2", "trainer.checkpoint_every=2")
    process = forked("train", *words, before=lambda: setattr(*before(System, "after_step", die, 4)))
    assert process.wait() == -signal.SIGKILL
    workers = json.loads(Path("workers").read_text())
    alive = [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    assert alive, "no worker lives on: the test shows nothing"
    try:
        assert forked("resume", str(only_run())).wait() == 0, Path("forked.err").read_text()
    finally:
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


# The handler


def test_regions_nest_and_the_innermost_decides():
    previous = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)]
    with Signals() as outer:
        with pytest.raises(Stopped) as stop, Signals(raises=True):  # noqa: PT012
            with Signals() as held:
                term()
                assert (held.received, outer.received) == (signal.SIGTERM, signal.SIGTERM)
            with Signals(raises=True):
                pass
        assert stop.value.signum == signal.SIGTERM
        assert Signals.pending() == signal.SIGTERM
    assert Signals.pending() == 0
    assert [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)] == previous


def test_workers_do_not_act_on_a_signal():
    with Signals(raises=True):
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGUSR1)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGUSR1, 130), (signal.SIGUSR2, 130), (signal.SIGINT, 130)])
def test_slurms_warnings_and_ctrl_c_end_it_too(signum, code, dlx_call, only_run, tiny, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(*before(training, "build_loop", lambda: os.kill(os.getpid(), signum)))
        assert dlx_call("train", *tiny).code == code
    assert RunFolder(only_run()).status()["reason"] == f"signal {signum:d}"


def test_a_signal_while_python_ends_does_not_undo_the_end(here):
    """By then the run is finished and has said so: the exit code is the run's."""
    code = """
import atexit, os, signal
atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))
from dlx.cli.interrupt import interruptible
interruptible(lambda: None)()
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
