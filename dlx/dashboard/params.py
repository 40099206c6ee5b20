"""Checked parameters of a request."""

from __future__ import annotations

import json
import math

from starlette.requests import Request

from dlx.dashboard.answers import Problem
from dlx.runs.columns import AXES


def metric_of(request: Request) -> str:
    if not (metric := request.query_params.get("metric")):
        raise Problem(400, "metric: which one?")
    return metric


def axis_of(request: Request) -> str:
    axis = request.query_params.get("x", "step")
    if axis not in AXES:
        raise Problem(400, f"x: one of {', '.join(AXES)}")
    return axis


def ids_of(text: str) -> list[str]:
    """A group of runs: ids hold any sign, so that only JSON parts them."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise Problem(400, "group: a JSON list of ids")
    return found


def number(request: Request, name: str, default: float, least: float, most: float) -> float:
    """Brought into its range."""
    text = request.query_params.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise Problem(400, f"{name}: a number")
    return min(max(value, least), most)
