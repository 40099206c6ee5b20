"""Two processes under torchrun train like one on the same global batch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dlx.runs.checkpoint import latest_checkpoint, load_weights
from dlx.runs.metrics import read_metrics

COMMON = ("trainer.max_steps=6", "trainer.log_every=1", "trainer.device=cpu", "trainer.threads=1")


def torchrun(*arguments: str) -> Path:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "dlx",
        "train",
    ]
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


def test_with_batch_norm_it_runs_and_ends_with_whole_weights(here):
    run = torchrun("model=resnet", "optim=sgd", "optim.lr=0.01", *COMMON)
    folder, problems = latest_checkpoint(run / "checkpoints")
    assert not problems
    assert load_weights(folder / "last.safetensors")
    assert (run / "status.json").read_text().count("finished") == 1
