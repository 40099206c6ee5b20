"""Compares runs: the keys of their configurations that differ, and their metrics, as mean ± std over repeats."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dlx.config.groups import GROUPS
from dlx.config.monitor import Goal
from dlx.runs.catalog import Catalog, Entry, Value, read_entry
from dlx.runs.columns import Columns, Curve
from dlx.runs.config_diff import REPEATS, comparable, differing, short_names, signature
from dlx.runs.curves import Band, band, decimate
from dlx.runs.find import find_run
from dlx.runs.keys import shown_text, text_of
from dlx.runs.mask import mask
from dlx.runs.metric_info import check_metrics, goal_of, ranked_metrics, shown_metrics

LABEL_KEYS = 3
POINTS = 500
MAX_CURVES = 100


@dataclass(frozen=True)
class MetricStats:
    """A metric over the runs of a row. std: of the sample (n - 1); None for one run."""

    mean: float
    std: float | None
    values: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """One run, or runs that are repeats of each other."""

    label: str
    entries: tuple[Entry, ...]
    metrics: dict[str, MetricStats]

    @property
    def count(self) -> int:
        return len(self.entries)

    @property
    def status(self) -> str:
        """Such as `finished`, or `2 finished, 1 failed`."""
        counted = Counter(entry.status for entry in self.entries)
        return next(iter(counted)) if len(counted) == 1 else ", ".join(f"{n} {name}" for name, n in counted.items())

    def text(self, key: str, *, exact: bool = False) -> str:
        """A value of the configuration, with four digits unless `exact`; the first three values of repeats that differ
        in it. Secrets are masked."""
        written = text_of if exact else shown_text
        values = list(
            dict.fromkeys(mask(written(entry.config[key])) if key in entry.config else "" for entry in self.entries)
        )
        return values[0] if len(values) == 1 else f"{', '.join(values[:3])}{', …' if len(values) > 3 else ''}"

    def value(self, key: str) -> Value:
        """The value of a key as it is; a text for repeats that differ in it."""
        first, *rest = (entry.config for entry in self.entries)
        is_common = key in first and all(comparable(config, key) == comparable(first, key) for config in rest)
        return first[key] if is_common else self.text(key, exact=True)


@dataclass(frozen=True)
class Comparison:
    """keys: the configuration's columns. metrics: the metrics' columns. goals: min or max by metric, None if not known.
    best: by metric, the numbers of the best rows; none if all are equal."""

    rows: tuple[Row, ...]
    keys: tuple[str, ...]
    metrics: tuple[str, ...]
    goals: dict[str, Goal | None] = field(default_factory=dict)
    best: dict[str, frozenset[int]] = field(default_factory=dict)

    @property
    def entries(self) -> list[Entry]:
        return [entry for row in self.rows for entry in row.entries]

    @property
    def is_grouped(self) -> bool:
        return any(row.count > 1 for row in self.rows)

    @property
    def curve_metrics(self) -> list[str]:
        """The metrics with curves: those on val (a test metric is one point), the training loss, those on train."""
        names = [f"val/{name.removeprefix('test/')}" if name.startswith("test/") else name for name in self.metrics]
        kinds = [name.removeprefix("val/") for name in names if name.startswith("val/") and name != "val/loss"]
        return list(dict.fromkeys([*names, "train/loss", *(f"train/{kind}" for kind in kinds)]))


def select(runs: Iterable[str], root: Path | str | None = None) -> list[Entry]:
    """The named runs; a sweep, method or experiment stands for its members. Raises UserError as find_run does."""
    found: dict[Path, Entry] = {}
    for name in runs:
        folder = find_run(name, root)
        if folder.is_plan:
            catalog = Catalog(folder.path)
            catalog.refresh()
            entries = sorted(catalog.entries.values(), key=lambda entry: entry.id)
        else:
            entries = [read_entry(folder.path)]
        for entry in entries:
            if not entry.is_plan:
                found.setdefault(entry.path.resolve(), entry)
    return list(found.values())


def compare(entries: Sequence[Entry], metrics: Sequence[str] = (), *, grouped: bool = True) -> Comparison:
    """metrics: the metrics' columns; none is a short set of val and test metrics. The value of a metric that is not in
    the summaries, such as train/loss, is the last one logged. grouped: repeats are one row.

    Raises UserError for a metric that no run has.
    """
    entries = [
        entry
        if entry.metrics.keys() >= set(metrics)
        else replace(entry, metrics=_columns(entry).newest() | entry.metrics)
        for entry in entries
    ]
    known = {name for entry in entries for name in entry.metrics}
    if entries:
        check_metrics(metrics, known)
    shown = tuple(metrics or shown_metrics(entries))
    groups: dict[object, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(signature(entry.config) if grouped else entry.path, []).append(entry)
    members = list(groups.values())
    has_repeats = any(len(group) > 1 for group in members)
    keys = differing([group[0].config for group in members], ignore=REPEATS if has_repeats else ())
    if len(members) == 1:
        keys = [key for key in GROUPS if members[0][0].config.get(key)]
    labels = _labels(members, keys)
    rows = tuple(
        Row(label, tuple(group), {name: stats for name in known if (stats := _stats(group, name))})
        for label, group in zip(labels, members, strict=True)
    )
    monitors = [entry.monitor for entry in entries]
    goals = {name: goal_of(name, monitors) for name in shown}
    return Comparison(rows, tuple(keys), shown, goals, {name: _best(rows, name, goals[name]) for name in shown})


def curve_panels(comparison: Comparison, metrics: Iterable[str], axis: str = "step") -> dict[str, dict[str, Band]]:
    """By metric and row label, the mean and std of the repeats' curves.

    Curves of one point, metrics without a curve, and rows after the first MAX_CURVES are left out.
    """
    found: dict[str, dict[str, list[Curve]]] = {name: {} for name in metrics}
    for row in comparison.rows[:MAX_CURVES]:
        for entry in row.entries:
            columns = _columns(entry)
            for name in found.keys() & set(columns.names):
                if len((curve := columns.curve(name, axis)).x) > 1:
                    found[name].setdefault(row.label, []).append(curve)
    return {name: {label: _band(curves) for label, curves in panel.items()} for name, panel in found.items() if panel}


def _columns(entry: Entry) -> Columns:
    columns = Columns(entry.path / "metrics.jsonl")
    columns.refresh()
    return columns


def _band(curves: Sequence[Curve]) -> Band:
    if len(curves) > 1:
        return band(curves, POINTS)
    curve = decimate(curves[0], POINTS)  # keeps spikes, which a mean of thinned curves would not
    return Band(curve.x, curve.y, np.zeros(len(curve.x)), np.ones(len(curve.x), np.int64))


def _labels(groups: Sequence[Sequence[Entry]], keys: Sequence[str]) -> list[str]:
    """A short text of the keys that differ for each group; its first run's name if the text is not unique."""
    shown = [key for key in keys if any(key in group[0].config for group in groups)][:LABEL_KEYS]
    names = dict(zip(shown, short_names(shown), strict=True))
    labels = [
        ", ".join(
            shown_text(group[0].config[key]) if key in GROUPS else f"{names[key]} {shown_text(group[0].config[key])}"
            for key in shown
            if key in group[0].config
        )
        for group in groups
    ]
    counted = Counter(labels)
    given = [{str(entry.config.get("name") or "") for entry in group} for group in groups]
    is_named = len(set(map(frozenset, given))) > 1  # members of a sweep have one name
    labels = [
        _label(label if counted[label] == 1 and len(groups) > 1 else "", group, names if is_named else set())
        for label, group, names in zip(labels, groups, given, strict=True)
    ]
    seen: Counter[str] = Counter()
    for i, label in enumerate(labels):  # members of two sweeps can have one name
        seen[label] += 1
        labels[i] = label if seen[label] == 1 else f"{label} ({seen[label]})"
    return labels


def _label(differs: str, group: Sequence[Entry], names: set[str]) -> str:
    """The given name of the runs, if it is unique to this row, and the keys that differ."""
    name = next(iter(names)) if len(names) == 1 else ""
    first = group[0].name if len(group) == 1 else f"{group[0].name} and {len(group) - 1} more"
    return f"{name} ({differs})" if name and differs else name or differs or first


def _stats(group: Sequence[Entry], name: str) -> MetricStats | None:
    values = tuple(entry.metrics[name] for entry in group if name in entry.metrics)
    if not values:
        return None
    if not all(map(math.isfinite, values)):
        return MetricStats(math.nan, None, values)
    return MetricStats(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, values)


def _best(rows: Sequence[Row], name: str, goal: Goal | None) -> frozenset[int]:
    found = {i: row.metrics[name].mean for i, row in enumerate(rows) if name in row.metrics}
    found = {i: mean for i, mean in found.items() if math.isfinite(mean)}
    if goal is None or len(set(found.values())) < 2:
        return frozenset()
    best = max(found.values()) if goal == "max" else min(found.values())
    return frozenset(i for i, mean in found.items() if mean == best)


def metric_names(entries: Sequence[Entry]) -> list[str]:
    """All metrics, those that rank runs first."""
    ranked = ranked_metrics(entries)
    return [*ranked, *sorted({name for entry in entries for name in entry.metrics} - set(ranked))]
