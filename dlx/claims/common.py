"""What claims share: curves and summaries of their runs, means over seeds, colors, legends, the loss of guessing."""

from __future__ import annotations

import base64
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from dlx.config import Config, build
from dlx.runs.draw import Axes
from dlx.runs.folder import RunFolder
from dlx.runs.media import encode
from dlx.runs.metrics import read_metrics
from dlx.tasks.spec import Label


def curve(run: RunFolder, name: str) -> tuple[list[float], list[float]]:
    """A metric over epochs, at the rows that have it: epochs and values."""
    rows = [row for row in read_metrics(run.metrics_path) if isinstance(row.get(name), int | float)]
    return [row["epoch"] for row in rows], [row[name] for row in rows]


def mean_curve(runs: Sequence[RunFolder], name: str) -> dict[str, list[float]]:
    """The mean over runs; where one ended early (it diverged), up to there."""
    curves = [curve(run, name) for run in runs]
    length = min(len(values) for _, values in curves)
    values = [statistics.fmean(values[i] for _, values in curves) for i in range(length)]
    return {"x": curves[0][0][:length], "y": values}


def finals(runs: Sequence[RunFolder], name: str) -> list[float]:
    """A metric of each run's summary; runs without it (they diverged) are left out."""
    found: list[Any] = [run.summary().get(name) for run in runs]
    return [value for value in found if isinstance(value, int | float)]


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error (0 for a single value)."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return statistics.fmean(values), error


def falls(values: Sequence[float]) -> bool:
    """True if each value is below the one before."""
    return all(after < before for before, after in pairwise(values))


def plus_minus(pair: tuple[float, float], digits: int = 4) -> str:
    """`0.9500 ± 0.0100`."""
    return f"{pair[0]:.{digits}f} ± {pair[1]:.{digits}f}"


def ordered_colors(count: int) -> list[Any]:
    """Colors from dark to light, for ordered keys; without the end that is too light on white."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.88 * i / max(count - 1, 1)) for i in range(count)]


def legend_beside(axes: Axes) -> None:
    """A legend to the right of the axes, where it hides no data."""
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)


def picture_text(medium: Any) -> str:
    """A picture (dlx/runs/media.py) as text, PNG in base64, to be kept among what is measured."""
    return base64.b64encode(encode(medium)[1]).decode()


def picture_pixels(text: str) -> Any:
    """The pixels of `picture_text`, uint8 [H, W, 3]; a small picture was enlarged."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


def guessing(base: Config) -> dict[str, Any]:
    """`classes` and `loss`, the cross-entropy of a uniform guess; empty where another loss is trained."""
    labels = [entry for entry in build(base, "dataset").spec.entries.values() if isinstance(entry, Label)]
    if len(labels) != 1 or base["model"].get("loss") not in (None, "cross_entropy"):
        return {}
    classes = len(labels[0].classes)
    return {"classes": classes, "loss": math.log(classes)}


def draw_guessing(axes: Axes, guess: Mapping[str, Any]) -> None:
    """The loss of guessing as a dashed line, named in the legend."""
    if guess:
        label = f"guessing: ln {guess['classes']} = {guess['loss']:.4g}"
        axes.axhline(guess["loss"], color="0.5", linestyle="--", linewidth=1, label=label)
