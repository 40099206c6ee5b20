"""Data that hang, raise or hold no numbers, in a run: it ends, is whole, and says which samples it was."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from dlx.runs.folder import RunFolder
from dlx.training import signals

DATASET = '''
import time

import torch

from dlx.data.dataset import Dataset
from dlx.tasks.spec import Label, LabeledReals, Reals


class Source:
    """Samples of noise; those from 40 on go wrong."""

    def __init__(self, way, count):
        self.way, self.labels = way, torch.arange(count) % 2
        self.keys = [f"photos/{n}.png" for n in range(count)]

    def __len__(self):
        return len(self.labels)

    def take(self, index, draw=0):
        x = torch.randn(len(index), 2)
        if (index >= 40).any():
            if self.way == "hang":
                open("hangs", "w").close()
                time.sleep(600)
            if self.way == "raise":
                raise KeyError("brightness")
            x[index >= 40, 1] = float("nan")
        return {"features": x, "label": self.labels[index]}


class Bad(Dataset):
    def __init__(self, *, way: str = "empty") -> None:
        self.way = way

    @property
    def spec(self):
        return LabeledReals(features=Reals(size=2), label=Label(classes=("a", "b")))

    def splits(self):
        return {"train": Source(self.way, 44), "val": Source("", 8), "test": Source("", 8)}
'''
WORDS = (
    "--conf-dir", "conf", "--trust", "my_data", "model=mlp", "model.hidden=[4]", "data=bad", "data.batch_size=4",
    "data.workers=1", "trainer.epochs=1", "--json",
)  # fmt: skip


@pytest.fixture
def bad(write_files, monkeypatch):
    write_files(
        {"my_data.py": DATASET, "conf/dataset/bad.yaml": "# @package dataset\n_target_: my_data.Bad\nway: empty\n"}
    )
    monkeypatch.syspath_prepend(str(Path.cwd()))


def status(call) -> dict:
    (folder,) = Path("outputs/mlp").iterdir()
    return RunFolder(folder).status()


def test_a_divergence_names_samples_that_are_not_finite(dlx_call, bad):
    call = dlx_call("train", *WORDS, "data.way=empty")
    assert call.code == 3
    reason = status(call)["reason"]
    assert "the data are not finite: features of samples photos/4" in reason
    assert "optim.lr" not in reason


def test_a_divergence_of_good_data_has_the_usual_advice(dlx_call, tiny):
    call = dlx_call("train", *tiny, "optim.lr=1e30", "--json")
    assert call.code == 3
    assert "a smaller optim.lr or trainer.clip_norm=1 often helps" in call.err


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_raises_is_one_line_in_the_status(dlx_call, bad, workers):
    call = dlx_call("train", *WORDS[:-3], f"data.workers={workers}", *WORDS[-2:], "data.way=raise")
    assert call.code == 1, call.err
    reason = status(call)["reason"]
    assert "sample photos/4" in reason
    assert reason.endswith("KeyError: 'brightness'")
    assert "Traceback" not in call.err


def test_data_that_hang_end_the_run(dlx_call, bad):
    call = dlx_call("train", *WORDS, "data.way=hang", "data.timeout=2")
    assert call.code == 1, call.err
    assert "dataset.timeout: no batch came for 2 s; samples photos/" in status(call)["reason"]


def test_a_signal_waits_a_bounded_time_for_data(dlx_call, bad, monkeypatch):
    """And what was trained until then is saved: the weights are those of the last whole step."""
    monkeypatch.setattr(signals, "PATIENCE", 1.0)

    def kill():
        while not Path("hangs").exists():
            time.sleep(0.1)
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=kill, daemon=True).start()
    begun = time.monotonic()
    call = dlx_call("train", *WORDS, "data.way=hang")
    assert call.code == 143, call.err
    assert time.monotonic() - begun < 120
    told = status(call)
    assert told["status"] == "interrupted"
    (folder,) = Path("outputs/mlp").iterdir()
    assert any(RunFolder(folder).checkpoints.iterdir())
    again = dlx_call("resume", str(folder), "--trust", "my_data", "data.timeout=2")
    assert "dataset.timeout" in again.err + str(status(again))
    assert json.loads(call.out.splitlines()[-1])["status"] == "interrupted"
