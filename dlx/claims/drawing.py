"""What the figures of claims share: colors of ordered keys, legends beside the data, the loss of guessing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dlx.config import Config, build
from dlx.runs.draw import Axes
from dlx.tasks.spec import Label


def ordered_colors(count: int) -> list[Any]:
    """Colors from dark to light, for ordered keys; without the end that is too light on white."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.88 * i / max(count - 1, 1)) for i in range(count)]


def legend_beside(axes: Axes) -> None:
    """A legend to the right of the axes, where it hides no data."""
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)


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
