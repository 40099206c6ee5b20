"""Two processes under torchrun train like one on the same global batch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dlx.runs.checkpoint import latest_checkpoint, load_weights
from dlx.runs.metrics import read_metrics

LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def torchrun(*arguments: str) -> str:
    """What the two processes print to stdout and stderr."""
    done = subprocess.run([*LAUNCHER, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def losses(run: Path) -> list[float]:
    return [row["train/loss"] for row in read_metrics(run / "metrics.jsonl") if "train/loss" in row]


SEVERAL = """
import json, os, signal, sys, torch
from dlx.cli import main
from dlx.tasks.system import System
from dlx.training.distributed import Dist
from dlx.training.loop import Loop
destroy, Dist.destroy = Dist.destroy, lambda self: None  # the processes stay together for all trainings
run, rank = Loop.run, os.environ["RANK"]
def kept(self):
    run(self)
    torch.save(self.system.state_dict(), f"{name}-{rank}.pt")
Loop.run = kept
def after_step(self, step):
    if name == "signalled" and step == 3 and rank == "1":
        os.kill(os.getpid(), signal.SIGTERM)
System.after_step = after_step
trainings = json.loads(sys.argv[1])
for name, words in trainings.items():
    if name == list(trainings)[-1]:
        Dist.destroy = destroy
    sys.argv = ["dlx", "train", *words, "trainer.device=cpu", "trainer.threads=1", f"name={name}"]
    try:
        main()
    except SystemExit as end:
        print(f"@{name} {rank} {end.code}", flush=True)
"""
TRAININGS = {
    "small": ["model=mlp", "data.subset=10", "data.batch_size=4"],
    "norms": ["model=resnet", "optim=sgd", "optim.lr=0.01", "trainer.max_steps=6", "trainer.log_every=1"],
    "signalled": ["model=mlp", "trainer.epochs=30"],
    "texts": [
        "model=seq2seq", "data=dates", "data.samples=300", "model.hidden=8", "optim=sgd", "optim.lr=0.5",
        "trainer.max_steps=4", "trainer.log_every=1", "data.batch_size=32",
    ],
    "curve": ["model=mlp", "optim=sgd", "trainer.max_steps=6", "trainer.log_every=1", "--json"],
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which one pair of processes trained them all, and what it printed."""
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DLX_OUTPUTS", raising=False)
        patch.chdir(folder)
        Path("several.py").write_text(SEVERAL)
        return folder, torchrun("several.py", json.dumps(TRAININGS))


def test_the_loss_curve_is_that_of_one_process(trained, dlx_call):
    folder, printed = trained
    assert "@curve 0 0" in printed
    (told,) = [line for line in printed.splitlines() if line.startswith("{")]  # by one of the two
    together = folder / json.loads(told)["run"]
    assert list((folder / "outputs/curve").iterdir()) == [together]
    words = (*TRAININGS["curve"], "trainer.device=cpu", "trainer.threads=1")
    alone = Path(json.loads(dlx_call("train", *words).out)["run"])
    assert losses(together) == pytest.approx(losses(alone), rel=1e-5)
    figures = [json.loads((run / "summary.json").read_text())["test/accuracy"] for run in (together, alone)]
    assert figures[0] == figures[1]


def test_the_loss_over_tokens_is_that_of_one_process(trained, dlx_call):
    """Of a batch whose texts are sorted by length the first process has the shorter half: fewer tokens."""
    folder, printed = trained
    assert "@texts 0 0" in printed
    (together,) = (folder / "outputs/texts").iterdir()
    words = (*TRAININGS["texts"], "trainer.device=cpu", "trainer.threads=1", "--json")
    alone, apart = (
        Path(json.loads(dlx_call("train", *words, *more).out)["run"]) for more in ((), ("trainer.accumulate=4",))
    )
    assert losses(together) == pytest.approx(losses(alone), rel=1e-5)
    assert losses(apart) == pytest.approx(losses(alone), rel=1e-5)


def test_with_batch_norm_both_processes_end_with_the_same_weights(trained):
    folder, printed = trained
    assert "@norms 0 0" in printed
    first, second = (torch.load(folder / f"norms-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    (run,) = (folder / "outputs/norms").iterdir()
    checkpoint, problems = latest_checkpoint(run / "checkpoints")
    assert not problems
    assert load_weights(checkpoint / "last.safetensors")
    assert (run / "status.json").read_text().count("finished") == 1


def test_a_signal_to_one_process_ends_both_at_the_same_step(trained):
    folder, printed = trained
    assert "@signalled 0 143" in printed
    (run,) = (folder / "outputs/signalled").iterdir()
    assert json.loads((run / "status.json").read_text())["status"] == "interrupted"
    checkpoint, problems = latest_checkpoint(run / "checkpoints")
    assert not problems
    assert checkpoint.name == "step-00000005"


def test_a_split_that_is_too_small_for_the_processes_is_said(trained):
    folder, printed = trained
    assert "@small 0 2" in printed
    assert "dataset: val has 1 samples, too few for 2 processes" in printed
    assert not (folder / "outputs/small").exists()
