"""How runs end, to compare one that was cut off and resumed with one that was not."""

from __future__ import annotations

from pathlib import Path

import torch

from dlx.runs.checkpoint import latest_checkpoint, load_weights
from dlx.runs.metrics import read_metrics


def end_of(run: Path) -> tuple[dict, dict, list]:
    """The last weights, the best weights, and the rows without what a clock says."""
    folder, problems = latest_checkpoint(run / "checkpoints")
    assert folder is not None
    assert not problems
    rows = read_metrics(run / "metrics.jsonl")
    kept = [{k: v for k, v in row.items() if not k.startswith(("time", "train/throughput"))} for row in rows]
    return load_weights(folder / "last.safetensors"), load_weights(folder / "best.safetensors"), kept


def assert_same_end(one: Path, other: Path) -> None:
    """To the bit."""
    (last, best, rows), (other_last, other_best, other_rows) = end_of(one), end_of(other)
    for ours, theirs in ((last, other_last), (best, other_best)):
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert rows == other_rows
