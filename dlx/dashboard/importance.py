"""Importance of the configuration's keys for a metric, over some runs.

Keys in which repeats differ (seed, fold, bootstrap) are left out: to repeat a run is no setting, and what they explain
is chance. Few runs say little, so that 16 are asked for, and the spread over forests is given beside each share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dlx.runs.catalog import Entry, Value
from dlx.runs.config_diff import REPEATS

FEWEST = 16  # runs: with fewer a forest says little
FORESTS = 4
MOST_KEYS = 40


def importance(entries: Sequence[Entry], metric: str) -> dict[str, Any]:
    """Permutation importance (shares that sum to 1) of small random forests, mean and standard deviation over them, and
    Spearman's correlation where the key is a number. `n`: runs with a finite metric; with fewer than `fewest` there are
    no items. Keys that always change together count as one, the first of them."""
    runs = [entry for entry in entries if math.isfinite(entry.metrics.get(metric, math.nan)) and not entry.is_plan]
    y = np.array([entry.metrics[metric] for entry in runs])
    columns: dict[str, tuple[np.ndarray, bool]] = {}
    seen = set()
    for key in dict.fromkeys(key for entry in runs for key in entry.config if key not in REPEATS):
        codes, numeric = _encoded([entry.config.get(key) for entry in runs])
        pattern = np.unique(codes, return_inverse=True)[1].tobytes()
        if len(runs) and codes.min() < codes.max() and pattern not in seen:
            seen.add(pattern)
            columns[key] = (codes, numeric)
    if len(runs) < FEWEST or not columns or len(columns) > MOST_KEYS * 10 or y.min() == y.max():
        return {"n": len(runs), "fewest": FEWEST, "items": []}

    from scipy.stats import spearmanr
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    keys = list(columns)
    x = np.stack([columns[key][0] for key in keys], axis=1)
    drawn = []
    for seed in range(FORESTS):
        forest = RandomForestRegressor(n_estimators=25, min_samples_leaf=2, random_state=seed, n_jobs=1).fit(x, y)
        worse = permutation_importance(forest, x, y, n_repeats=3, random_state=seed).importances_mean
        drops = np.maximum(worse, 0)
        drawn.append(drops / drops.sum() if drops.sum() > 0 else drops)
    means, spreads = np.mean(drawn, 0), np.std(drawn, 0)
    items: list[dict[str, Any]] = [
        {
            "key": key,
            "importance": float(mean),
            "std": float(spread),
            "correlation": float(spearmanr(columns[key][0], y).statistic) if columns[key][1] else None,
        }
        for key, mean, spread in zip(keys, means, spreads, strict=True)
    ]
    items = sorted(items, key=lambda item: -item["importance"])[:MOST_KEYS]
    return {"n": len(runs), "fewest": FEWEST, "items": items}


def _encoded(values: list[Value]) -> tuple[np.ndarray, bool]:
    """float64 codes, and whether they are the numbers themselves. Strings are numbered in order, None comes first."""
    if all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
        return np.array(values, dtype=np.float64), True
    texts = ["" if value is None else str(value) for value in values]
    return np.unique(texts, return_inverse=True)[1].astype(np.float64), False
