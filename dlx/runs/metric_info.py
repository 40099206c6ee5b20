"""Metrics of runs: which of them matter, whether low or high is better, and how values are written."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from dlx.config.errors import UserError
from dlx.config.groups import nearest
from dlx.config.monitor import Goal, Monitor

if TYPE_CHECKING:
    from dlx.runs.catalog import Entry

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
    """Whether low or high is better, by what the runs monitor, else by the metric's name; None if neither tells.

    monitors: such as val/accuracy:max.
    """
    split, _, kind = metric.rpartition("/")
    if split == "gap":  # of train and val: smaller is not better
        return None
    for monitor in map(Monitor.find, monitors):
        if monitor and monitor.name.rpartition("/")[2] == kind:
            return monitor.goal
    words = set(re.split(r"[^a-z0-9]+", kind.lower()))
    return "min" if words & LOW else "max" if words & HIGH else None


def ranked_metrics(entries: Sequence[Entry]) -> list[str]:
    """The metrics that say how good runs are, the monitored kind first: on val and test, else training losses."""
    known = {name for entry in entries for name in entry.metrics}
    monitors = [monitor for entry in entries if (monitor := Monitor.find(entry.monitor))]
    monitored = [monitor.name.rpartition("/")[2] for monitor in monitors]
    judged = {name.rpartition("/")[2] for name in known if name.startswith(tuple(f"{split}/" for split in SPLITS))}
    usual = ("accuracy", "loss")
    kinds = [kind for kind in dict.fromkeys((*monitored, *usual, *sorted(judged))) if kind in judged]
    named = [f"{split}/{kind}" for kind in kinds for split in SPLITS if f"{split}/{kind}" in known]
    return named or sorted(name for name in known if name.startswith("train/") and "loss" in name)


def shown_metrics(entries: Sequence[Entry]) -> list[str]:
    """The first kinds of `ranked_metrics`, for a short table."""
    ranked = ranked_metrics(entries)
    kinds = list(dict.fromkeys(name.rpartition("/")[2] for name in ranked))[:SHOWN_KINDS]
    return [name for name in ranked if name.rpartition("/")[2] in kinds]


def main_metric(entry: Entry) -> str | None:
    """The metric that a list shows for a run: the monitored kind, on the test split if it was evaluated."""
    ranked = ranked_metrics([entry])
    kind = ranked[0].rpartition("/")[2] if ranked else ""
    return f"test/{kind}" if f"test/{kind}" in entry.metrics else ranked[0] if ranked else None


def check_metrics(names: Iterable[str], known: Collection[str]) -> None:
    """Raises UserError for a metric that no run has, with the nearest name."""
    for name in names:
        if name not in known:
            raise UserError(f"{name}: no run has this metric{nearest(name, sorted(known))}")


def metric_text(value: float) -> str:
    """A value with four decimals; integers above 1 have none, very small and very large values three digits."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 2 and value == int(value) and abs(value) < 1e15:
        return str(int(value))
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4f}"
    return f"{value:.3g}" if abs(value) < 1e4 else f"{value:.5g}"


def spread_text(mean: float, std: float | None, *, sign: str = "±") -> str:
    """`0.9712 ± 0.0031`: the deviation has as many decimals as the mean."""
    text = metric_text(mean)
    if std is None:
        return text
    decimals = re.fullmatch(r"-?\d+(?:\.(\d+))?", text)
    own = f"{std:.{len(decimals[1] or '')}f}" if decimals and math.isfinite(std) and "." in text else metric_text(std)
    return f"{text} {sign} {own}"


def time_text(seconds: float | None) -> str:
    """A duration, such as 3.1 s, 12 min or 1.5 h."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 120:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
