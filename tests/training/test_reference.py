"""Reference runs: a change of the loop that should change nothing gives the same numbers as before it.

The losses are held to a relative 1e-4 anywhere; on the kind of machine that they were taken on the weights are held to
the bit. After a change on purpose: `python tests/training/test_reference.py` prints the new ones.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from pathlib import Path

import pytest
import torch

from dlx.runs.checkpoint import latest_checkpoint, load_weights
from dlx.runs.metrics import read_metrics

STEPS = ("trainer.max_steps=12", "trainer.log_every=6", "trainer.validate_every=6", "trainer.threads=1")
RUNS = {
    "mlp": ("model=mlp", "model.hidden=[32]", "model.dropout=0.2"),
    "cnn": ("model=cnn", "reg=[augmentation,mixup]", "reg.augmentation.crop=1", "trainer.clip_norm=1"),
    "resnet": ("model=resnet", "trainer.ema=0.9", "trainer.accumulate=2", "optim=momentum"),
    "regression": ("model=mlp", "data=function1d", "reg=[input_noise,l2]", "optim=adamw"),
}
FILE = Path(__file__).with_suffix(".json")


def processor() -> str:
    """Its model: matrix products of another round otherwise, though they can the same instructions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def machine() -> str:
    return f"torch {torch.__version__.partition('+')[0]}, {platform.machine()}, {processor() or platform.processor()}"


def numbers(run: Path) -> dict:
    """The losses of all rows, and a hash of the last and best weights."""
    rows = read_metrics(run / "metrics.jsonl")
    losses = [value for row in rows for name, value in row.items() if name in ("train/loss", "val/loss", "test/loss")]
    folder, _ = latest_checkpoint(run / "checkpoints")
    digest = hashlib.sha256()
    for file in ("last", "best"):
        for name, tensor in sorted(load_weights(folder / f"{file}.safetensors").items()):
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return {"losses": losses, "weights": digest.hexdigest()[:16]}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_gives_the_numbers_that_it_gave(name, dlx_call):
    done = dlx_call("train", *RUNS[name], *STEPS, "--json")
    found, known = numbers(Path(json.loads(done.out)["run"])), json.loads(FILE.read_text())
    assert found["losses"] == pytest.approx(known["runs"][name]["losses"], rel=1e-4)
    if known["machine"] == machine():
        assert found["weights"] == known["runs"][name]["weights"]


if __name__ == "__main__":
    import os
    import tempfile

    from dlx.config import compose
    from dlx.training.run import train

    os.chdir(tempfile.mkdtemp())
    torch.set_num_threads(1)
    taken = {name: numbers(train(compose([*words, *STEPS]), quiet=True).run) for name, words in RUNS.items()}
    json.dump({"machine": machine(), "runs": taken}, sys.stdout, indent=1)
