"""Figures of runs: which of them matter, which way is better, and how they are written."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from dlx.config.errors import UserError
from dlx.config.groups import nearest

if TYPE_CHECKING:
    from dlx.runs.catalog import Entry

Goal = Literal["min", "max"]
LOW = {
    "loss", "nll", "bpd", "error", "err", "mse", "rmse", "mae", "perplexity", "ppl", "fid", "kid", "wer", "cer", "ece",
    "brier", "seconds", "ms", "wait", "sharpness",
}  # fmt: skip
HIGH = {
    "accuracy", "acc", "f1", "precision", "recall", "auc", "auroc", "map", "map50", "map75", "miou", "iou", "dice",
    "bleu", "rouge", "exact", "return", "reward", "r2", "throughput", "psnr", "ssim", "score", "likelihood",
}  # fmt: skip
SPLITS = ("val", "test")
SHOWN_KINDS = 2  # such as accuracy and loss, each on val and test


def goal_of(metric: str, monitors: Iterable[str | None] = ()) -> Goal | None:
    """Which way is better: what a run monitors says it, of other figures their name; None where that says nothing.

    monitors: such as val/accuracy:max.
    """
    split, _, kind = metric.rpartition("/")
    if split == "gap":  # of train and val: smaller is not better
        return None
    for monitor in monitors:
        name, _, goal = (monitor or "").rpartition(":")
        if name.rpartition("/")[2] == kind and goal in ("min", "max"):
            return "max" if goal == "max" else "min"
    words = set(re.split(r"[^a-z0-9]+", kind.lower()))
    return "min" if words & LOW else "max" if words & HIGH else None


def ranked_metrics(entries: Sequence[Entry]) -> list[str]:
    """The figures that say how good runs are, the monitored kind first: on val and test, else training losses."""
    known = {name for entry in entries for name in entry.metrics}
    monitored = [(entry.monitor or "").rpartition(":")[0].rpartition("/")[2] for entry in entries if entry.monitor]
    judged = {name.rpartition("/")[2] for name in known if name.startswith(tuple(f"{split}/" for split in SPLITS))}
    usual = ("accuracy", "loss")
    kinds = [kind for kind in dict.fromkeys((*monitored, *usual, *sorted(judged))) if kind in judged]
    named = [f"{split}/{kind}" for kind in kinds for split in SPLITS if f"{split}/{kind}" in known]
    return named or sorted(name for name in known if name.startswith("train/") and "loss" in name)


def shown_metrics(entries: Sequence[Entry]) -> list[str]:
    """A short set of them."""
    ranked = ranked_metrics(entries)
    kinds = list(dict.fromkeys(name.rpartition("/")[2] for name in ranked))[:SHOWN_KINDS]
    return [name for name in ranked if name.rpartition("/")[2] in kinds]


def main_metric(entry: Entry) -> str | None:
    """The figure a list shows of a run: the monitored kind, on the test split where it is known."""
    ranked = ranked_metrics([entry])
    kind = ranked[0].rpartition("/")[2] if ranked else ""
    return f"test/{kind}" if f"test/{kind}" in entry.metrics else ranked[0] if ranked else None


def check_metrics(names: Iterable[str], known: Collection[str]) -> None:
    """Raises UserError for a figure that no run has, with the nearest name."""
    for name in names:
        if name not in known:
            raise UserError(f"{name}: no run has this metric{nearest(name, sorted(known))}")


def figure_text(value: float) -> str:
    """Four decimals, where they say something; whole numbers above 1 as such."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 2 and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4f}"
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.5g}"


def spread_text(mean: float, std: float | None, *, sign: str = "±") -> str:
    """The deviation has the mean's decimals."""
    text = figure_text(mean)
    if std is None:
        return text
    decimals = re.fullmatch(r"-?\d+(?:\.(\d+))?", text)
    own = f"{std:.{len(decimals[1] or '')}f}" if decimals and math.isfinite(std) and "." in text else figure_text(std)
    return f"{text} {sign} {own}"


def time_text(seconds: float | None) -> str:
    """A duration, such as 3.1 s, 12 min or 1.5 h."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 120:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
