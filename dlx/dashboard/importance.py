"""Importance of the configuration's keys for a metric, over some runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlx.runs.catalog import Entry, Value

FEWEST = 8  # runs: with fewer a forest says nothing
MOST_KEYS = 40


def importance(entries: Sequence[Entry], metric: str) -> dict[str, Any]:
    """Permutation importance (shares that sum to 1) of a small random forest, and Spearman's correlation where the key
    is a number. `n`: runs with a finite metric; with fewer than 8 there are no items. Keys that always change together
    count as one, the first of them."""
    runs = [entry for entry in entries if math.isfinite(entry.metrics.get(metric, math.nan)) and not entry.is_plan]
    y = np.array([entry.metrics[metric] for entry in runs])
    columns: dict[str, tuple[np.ndarray, bool]] = {}
    seen = set()
    for key in dict.fromkeys(key for entry in runs for key in entry.config):
        codes, numeric = _encoded([entry.config.get(key) for entry in runs])
        pattern = np.unique(codes, return_inverse=True)[1].tobytes()
        if len(runs) and codes.min() < codes.max() and pattern not in seen:
            seen.add(pattern)
            columns[key] = (codes, numeric)
    if len(runs) < FEWEST or not columns or len(columns) > MOST_KEYS * 10 or y.min() == y.max():
        return {"n": len(runs), "items": []}

    from scipy.stats import spearmanr
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    keys = list(columns)
    x = np.stack([columns[key][0] for key in keys], axis=1)
    forest = RandomForestRegressor(n_estimators=50, min_samples_leaf=2, random_state=0, n_jobs=1).fit(x, y)
    drops = np.maximum(permutation_importance(forest, x, y, n_repeats=5, random_state=0).importances_mean, 0)
    shares = drops / drops.sum() if drops.sum() > 0 else drops
    items: list[dict[str, Any]] = [
        {
            "key": key,
            "importance": float(share),
            "correlation": float(spearmanr(columns[key][0], y).statistic) if columns[key][1] else None,
        }
        for key, share in zip(keys, shares, strict=True)
    ]
    return {"n": len(runs), "items": sorted(items, key=lambda item: -item["importance"])[:MOST_KEYS]}


def _encoded(values: list[Value]) -> tuple[np.ndarray, bool]:
    """float64 codes, and whether they are the numbers themselves. Strings are numbered in order, None comes first."""
    if all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
        return np.array(values, dtype=np.float64), True
    texts = ["" if value is None else str(value) for value in values]
    return np.unique(texts, return_inverse=True)[1].astype(np.float64), False
