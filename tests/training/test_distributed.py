"""Two processes under torchrun train like one on the same global batch."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from dlx.runs.checkpoint import latest_checkpoint, load_weights
from dlx.runs.metrics import read_metrics

COMMON = ("trainer.max_steps=6", "trainer.log_every=1", "trainer.device=cpu", "trainer.threads=1")

LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def torchrun(*arguments: str, program: Sequence[str] = ("-m", "dlx")) -> Path:
    command = [*LAUNCHER, *program, "train"]
    done = subprocess.run([*command, *arguments, "--json"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return Path(json.loads(lines[0])["run"])


def losses(run: Path) -> list[float]:
    return [row["train/loss"] for row in read_metrics(run / "metrics.jsonl") if "train/loss" in row]


def test_the_loss_curve_is_that_of_one_process(dlx_call):
    arguments = ("model=mlp", "optim=sgd", *COMMON)
    together = torchrun(*arguments)
    assert len(list(Path("outputs/mlp").iterdir())) == 1
    alone = Path(json.loads(dlx_call("train", *arguments, "--json").out)["run"])
    assert losses(together) == pytest.approx(losses(alone), rel=1e-5)
    figures = [json.loads((run / "summary.json").read_text())["test/accuracy"] for run in (together, alone)]
    assert figures[0] == figures[1]


KEEPS_WEIGHTS = """
import os, torch
from dlx.training.loop import Loop
run = Loop.run
def kept(self):
    run(self)
    torch.save(self.system.state_dict(), f"rank{os.environ['RANK']}.pt")
Loop.run = kept
from dlx.cli import main
main()
"""


def test_with_batch_norm_both_processes_end_with_the_same_weights(here):
    Path("keeps.py").write_text(KEEPS_WEIGHTS)
    run = torchrun("model=resnet", "optim=sgd", "optim.lr=0.01", *COMMON, program=["keeps.py"])
    first, second = (torch.load(f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    folder, problems = latest_checkpoint(run / "checkpoints")
    assert not problems
    assert load_weights(folder / "last.safetensors")
    assert (run / "status.json").read_text().count("finished") == 1


GETS_A_SIGNAL = """
import os, signal
from dlx.tasks.system import System
def after_step(self, step):
    if step == 3 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
System.after_step = after_step
from dlx.cli import main
main()
"""


def test_a_signal_to_one_process_ends_both_at_the_same_step(here):
    Path("signalled.py").write_text(GETS_A_SIGNAL)
    arguments = ("model=mlp", "trainer.epochs=30", "trainer.device=cpu", "trainer.threads=1")
    command = [*LAUNCHER, "signalled.py", "train", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    (run,) = Path("outputs/mlp").iterdir()
    assert json.loads((run / "status.json").read_text())["status"] == "interrupted"
    folder, problems = latest_checkpoint(run / "checkpoints")
    assert not problems
    assert folder.name == "step-00000005"


def test_a_split_that_is_too_small_for_the_processes_is_said(here):
    arguments = ("model=mlp", "data.subset=10", "data.batch_size=4", *COMMON)
    command = [*LAUNCHER, "-m", "dlx", "train", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "dataset: val has 1 samples, too few for 2 processes" in done.stderr
